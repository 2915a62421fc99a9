#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A trainer that a test holds: a server started with `*hold.options` trains with the real program, and no run says more than the test lets it say.

    hold = Hold(folder)            Server("--model", ..., *hold.options)
    hold.at(5)                     the run, or the next one, stands still when it has said all there is to say of step 5
    hold.release()                 it goes on, to its end

To the server it is a trainer whose next step takes long. Told to end it saves and ends, as ever. Estimates and other commands are not held.
"""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


class Hold:
    """The test's side: a folder with a file in it that says how far."""

    def __init__(self, folder):
        self.file = Path(folder) / "until"
        self.options = [word for argument in (sys.executable, __file__, str(folder)) for word in ("--train-launcher", argument)]

    def at(self, step):
        written = self.file.with_suffix(".new")
        written.write_text(str(step))
        written.replace(self.file)

    def release(self):
        self.file.unlink(missing_ok=True)


def step_of(line):
    try:
        said = json.loads(line)
    except ValueError:
        return 0
    return said["step"] if said.get("event") == "step" else 0


def main():
    folder, *command = sys.argv[1:]
    if command[1] != "train" or "--estimate" in command:
        os.execv(command[0], command)
    file, server, told = Path(folder) / "until", os.getppid(), False

    def held(step):
        try:
            return not told and step > int(file.read_text())
        except FileNotFoundError:
            return False

    def on_told(*_):
        nonlocal told
        told = True
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGCONT)

    # In a group of its own: the server, which stops and continues the group when it has answers to write, would continue what is held here.
    child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    signal.signal(signal.SIGTERM, on_told)
    for line in child.stdout:
        if held(step := step_of(line)):
            child.send_signal(signal.SIGSTOP)
            while held(step) and os.getppid() == server:
                time.sleep(0.02)
            child.send_signal(signal.SIGCONT)
        sys.stdout.buffer.write(line)
        sys.stdout.flush()
    sys.exit(child.wait() and 1)


if __name__ == "__main__":
    main()
