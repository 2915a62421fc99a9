#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A trainer that misbehaves: the server's train_launcher in tests. Called as `fake_trainer.py COUPLET train ...` with FAKE_TRAINER in the environment
saying how. What it does not spoil it hands to the real program."""
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time


def say(**line):
    sys.stdout.buffer.write(json.dumps(line).encode() + b"\n")
    sys.stdout.flush()


def real():
    os.execv(sys.argv[1], sys.argv[1:])


def out():
    return next(a.split("=", 1)[1] for a in sys.argv if a.startswith("--out="))


def once(name):
    """True the first time in this job."""
    path = os.path.join(os.path.dirname(out()), name)
    if os.path.exists(path):
        return False
    open(path, "w").close()
    return True


def bomb():
    limit = int(re.search(r"memory=(\d+)", os.environ["COUPLET_SUPERVISED"])[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    held = []
    try:
        while True:
            held.append(bytearray(16 << 20))
    except MemoryError:
        held.clear()
        sys.stderr.write("out of memory: one object too many\n")
        sys.stderr.flush()
        os.abort()


def garbage():
    sys.stdout.buffer.write(os.urandom(100000) + b"\n{\n[]\nnull\n" + b"x" * 10_000_000 + b"\n" + b'{"event":"step","step":"many"}\n')
    sys.stdout.flush()
    sys.stderr.buffer.write(os.urandom(3_000_000))
    sys.stderr.flush()
    real()


def main():
    how = os.environ.get("FAKE_TRAINER", "")
    if sys.argv[2] != "train":
        real()
    os.makedirs(out(), exist_ok=True)
    say(event="start", step=0, total_steps=10)
    if how == "bomb":
        bomb()
    elif how in ("segv", "segv-once"):
        if how == "segv" or once("crashed"):
            os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "kill-once":
        if once("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
    elif how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "silent":
        time.sleep(1000)
    elif how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            sum(range(10000))
    elif how == "error":
        say(event="error", code="invalid_training_file", message="line 3: this is no JSON")
        sys.exit(1)
    elif how == "full":
        say(event="error", code="no_space", message="there is no space left")
        sys.exit(1)
    elif how == "mute":
        sys.exit(7)
    elif how == "quit":
        sys.exit(0)
    elif how == "orphan":
        subprocess.Popen(["sleep", "1000"])  # in the group, holding stdout
    elif how == "garbage":
        garbage()
    real()


main()
