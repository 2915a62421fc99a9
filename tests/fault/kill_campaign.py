#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""kill -9 of the server, its trainers or both, at random times, at named places and before chosen calls that change the disk, under a client that
uploads, submits, cancels, pauses, resumes, deletes, reads and generates. What was acknowledged must be there afterwards, once, and every model that came
out must equal, bit by bit, the one of an unkilled run. Standard library only.

    COUPLET=build/server/couplet tests/fault/kill_campaign.py --kills 200 --seed 1 [--minutes 30] [--keep DIR]

Named places need a build with -Dfailpoints=true, chosen calls libfail_io.so of the build; without them the other kinds take their part.
"""
import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tools"), str(Path(__file__).resolve().parent)]
from kill_client import Client, call, sha  # noqa: E402
from kill_verdict import Verdict  # noqa: E402
from serving import COUPLET, hold_port, make_nano  # noqa: E402

LIBRARY = Path(COUPLET).resolve().parents[1] / "tests" / "fault" / "libfail_io.so"
SERVER_POINTS = ("runner.after_claim", "runner.after_spawn", "runner.before_publish_rename", "runner.after_publish_rename", "runner.before_finish",
                 "runner.after_finish")
TRAINER_POINTS = ("trainer.before_checkpoint_rename",)
STUCK_SECONDS = 20  # less than the 30 s after which a dead server's lease would have ended by itself
TEXT = "".join(f"The {n % 13}th line says that {n * n % 97} birds sat on {n % 5} trees.\n" for n in range(600)).encode()


def rows(n, words):
    return "".join(json.dumps({"prompt": f"Question {i}: ", "completion": " ".join(f"answer {i * k % 7}" for k in range(words)) + "."}) + "\n"
                   for i in range(n)).encode()


# Name -> (data, its file's name, the request). Every one has its own weights at the end.
SETTINGS = {
    "lora": (rows(40, 12), "rows.jsonl", {"model": "nano", "seed": 1, "couplet": {"max_steps": 30, "n_checkpoints": 5}}),
    "lora-dropout": (rows(31, 9), "rows.jsonl", {"model": "nano", "seed": 2, "suffix": "drop", "couplet": {
        "max_steps": 40, "n_checkpoints": 4, "n_evals": 2, "validation_split": 0.2, "packing": True, "sample_prompts": ["Question 3: "],
        "training_type": {"type": "lora", "lora_r": 4, "lora_dropout": 0.1}}}),
    "full": (rows(40, 12), "rows.jsonl", {"model": "nano", "seed": 3, "couplet": {"max_steps": 20, "n_checkpoints": 4, "training_type": {"type": "full"}}}),
    "text": (TEXT, "text.txt", {"model": "nano", "seed": 4, "couplet": {"max_steps": 10, "context_length": 128, "n_checkpoints": 3, "dropout": 0.1,
                                                                        "training_type": {"type": "full"}}}),
    "new": (TEXT, "text.txt", {"model": "new", "seed": 5, "couplet": {
        "max_steps": 12, "context_length": 64, "n_checkpoints": 2, "tokenizer": "train", "vocab_size": 300,
        "architecture": {"n_layer": 2, "n_head": 2, "n_embd": 64, "n_ctx": 64}}}),
}


def processes(folder):
    """(pid, first argument) of what runs with this folder on its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state not in "ZX" and any(os.fsencode(str(folder)) in w for w in words) and words[0].endswith((b"couplet", b"exe")):
            found.append((int(entry.name), words[1].decode()))
    return found


class Life:
    """One data directory and the servers that live in it, one after the other."""

    def __init__(self, folder, model):
        self.folder, self.data, self.held = folder, folder / "data", hold_port()
        self.port = self.held.getsockname()[1]
        folder.mkdir(exist_ok=True)
        self.log = open(folder / "log", "a")
        self.command = [COUPLET, "serve", "--port", str(self.port), "--data-dir", str(self.data), "--model", str(model), "--train-threads", "1",
                        "--train-max-attempts", "100", "--threads", "2"]
        self.process, self.starts = None, 0

    def start(self, environment=()):
        self.starts += 1
        self.log.write(f"---- start {self.starts} {dict(environment)}\n")
        self.log.flush()
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, env={**os.environ, **dict(environment)})

    def is_dead(self):
        return self.process.poll() is not None

    def wait_ready(self, seconds=120):
        """False: it died before."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.is_dead():
                return False
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5):
                    return True
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        raise AssertionError(f"the server is not ready after {seconds} s")

    def kill(self):
        if not self.is_dead():
            self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)

    def trainers(self):
        return [pid for pid, command in processes(self.data) if command in ("train", "eval", "tokenizer")]


def kill_pid(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False


class Killer:
    """Ends one server's life after the other, each in one way."""

    def __init__(self, life, client, seed):
        self.life, self.client, self.random = life, client, random.Random(seed)
        self.kinds = collections.Counter()
        self.points, self.slowest, self.beside_training = collections.Counter(), 0.0, 0
        binary = Path(COUPLET).read_bytes()
        self.has_points, self.has_calls = b"runner.after_claim" in binary, LIBRARY.exists()

    def plan(self):
        kinds = {"server": 4, "trainer": 3, "both": 3, "starting": 2}
        if self.has_points:
            kinds.update({"server at a point": 4, "trainer at a point": 1})
        if self.has_calls:
            kinds.update({"server at a call": 5, "trainer at a call": 3})
        return self.random.choices(list(kinds), list(kinds.values()))[0]

    def arm(self, kind):
        """The environment in which it dies by itself; a file that says that it happened."""
        draw, mark = self.random, self.life.folder / f"hit-{self.life.starts}"
        if kind == "server at a point":
            self.point = draw.choice(SERVER_POINTS)
            return {"COUPLET_FAILPOINT": f"{self.point}=kill@{draw.choice((1, 1, 2))}"}, None
        if kind == "trainer at a point":
            self.point = draw.choice(TRAINER_POINTS)
            return {"COUPLET_FAILPOINT": f"{self.point}=kill@{draw.choice((1, 2))}", "COUPLET_FAILPOINT_ONCE": str(mark)}, mark
        if kind in ("server at a call", "trainer at a call"):
            serve = kind.startswith("server")
            n = int(10 ** draw.uniform(0, 3.1 if serve else 2.4))
            return {"LD_PRELOAD": str(LIBRARY), "FAIL_IO": f"any:{n}:KILL", "FAIL_IO_BELOW": str(self.life.data), "FAIL_IO_COMMAND": "serve" if serve else "train",
                    "FAIL_IO_ONCE": str(mark)}, None if serve else mark
        return {}, None

    def wait(self, condition, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not condition():
            time.sleep(0.02)
        return condition()

    def point_count(self, kind):
        if kind.endswith("at a point"):
            self.points[self.point] += 1

    def trainer_kill(self):
        if not self.wait(self.life.trainers, 4):
            return False
        time.sleep(self.random.uniform(0, 0.8))
        return any([kill_pid(pid) for pid in self.life.trainers()])

    def live(self, kind):
        """Starts a server, lets it serve, kills. How many kills that were."""
        environment, mark = self.arm(kind)
        self.life.start(environment)
        if kind == "starting":
            time.sleep(self.random.uniform(0, 0.25))
            self.life.kill()
            self.kinds[kind] += 1
            return 1
        kills = 0
        if self.life.wait_ready():
            self.client.server_is_up()
            self.stuck_check()
        if kind.startswith("trainer"):
            hit = self.trainer_kill() if kind == "trainer" else self.wait(mark.exists, 6)
            kills += hit
            self.kinds[kind] += hit
            if hit:
                self.point_count(kind)
                self.wait(self.life.is_dead, self.random.uniform(0, 1.5))
            kind = "server"
        if kind.startswith("server at"):
            if self.wait(self.life.is_dead, 6):
                self.point_count(kind)
            else:
                kind = "server"
        if kind == "both":
            self.wait(self.life.trainers, 4)
        if kind in ("server", "both"):
            self.wait(self.life.is_dead, self.random.uniform(0.02, 2))
        if kind == "both":
            victims = self.life.trainers()
            first = self.random.random() < 0.5
            if first:
                self.life.process.kill()
            if not any([kill_pid(pid) for pid in victims]):
                kind = "server"
        self.beside_training += bool(self.life.trainers())
        self.life.kill()
        self.client.server_goes_down()
        self.kinds[kind] += 1
        return kills + 1

    def stuck_check(self):
        """A queued job runs soon where nothing else does."""
        began = time.monotonic()
        while not self.life.is_dead():
            answer = call(self.life.port, "GET", "/v1/fine_tuning/jobs?limit=100")
            if not answer or answer[0] != 200:
                return
            states = collections.Counter(job["status"] for job in answer[1]["data"])
            if states["running"] or not states["queued"]:
                self.slowest = max(self.slowest, time.monotonic() - began)
                return
            assert time.monotonic() - began < STUCK_SECONDS, f"queued jobs and none runs, {STUCK_SECONDS} s after the start: {states}"
            time.sleep(0.02)


def reference_make(folder, model):
    """Setting -> what an unkilled run of it leaves."""
    life = Life(folder, model)
    life.start()
    assert life.wait_ready(), "the reference's server died"
    client = Client(life.port, SETTINGS, 0)
    for name in SETTINGS:
        client.submit_one(name)
    try:
        client.drain(300)
        out = {client.jobs[n].setting: client.job_result(client.jobs[n]) for n in client.jobs}
        for job in client.jobs.values():
            out[job.setting]["weights"] = {d.name.partition(job.id[6:])[2]: weights_of(d) for d in sorted((life.data / "models").glob(f"model-{job.id[6:]}*"))}
    finally:
        assert life.stop() == 0
    return out


def weights_of(folder):
    return {p.name: sha(p.read_bytes()) for p in sorted(folder.iterdir()) if p.suffix == ".safetensors"}


def campaign(kills, seed, minutes, folder, say=print):
    """Runs it; the figures, or AssertionError. What it left lies in the folder."""
    began = time.monotonic()
    model = make_nano(folder / "nano", "--layers", "2", "--width", "64", "--ctx", "256")
    reference = reference_make(folder / "reference", model)
    life = Life(folder / "life", model)
    client = Client(life.port, SETTINGS, seed)
    killer = Killer(life, client, seed)
    thread = threading.Thread(target=client.run)
    thread.start()
    done = 0
    try:
        while done < kills and time.monotonic() - began < minutes * 60 and not client.wrong:
            done += killer.live(killer.plan())
        life.start()
        assert life.wait_ready(), "the last server died"
        client.server_is_up()
        killer.stuck_check()
        client.stop()
        thread.join()
        client.wishes_check()
        client.drain(300 + 4 * len(client.jobs))
        verdict = Verdict(life, client, reference, weights_of)
        verdict.over_http()
        assert life.stop() == 0, "the server did not end well"
        verdict.on_disk("before a restart")
        life.start()
        assert life.wait_ready()
        assert life.stop() == 0
        verdict.on_disk("after a restart")
    finally:
        client.stop()
        thread.join()
        if life.process and not life.is_dead():
            life.kill()
    time.sleep(0.2)
    verdict.check(not processes(folder), f"processes are left: {processes(folder)}")
    figures = {"kills": done, **killer.kinds, "server_kills_beside_training": killer.beside_training, "points": dict(killer.points), "slowest_restart_s": round(killer.slowest, 2), **client.figures(), **verdict.figures,
               "seconds": round(time.monotonic() - began)}
    say(json.dumps(figures))
    wrong = client.wrong + verdict.wrong
    assert not wrong, "\n".join(wrong)
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--keep", help="a new folder for everything; kept")
    options = parser.parse_args()
    folder = Path(options.keep or tempfile.mkdtemp(prefix="couplet-kill-"))
    folder.mkdir(exist_ok=True)
    try:
        campaign(options.kills, options.seed, options.minutes, folder)
    except AssertionError as e:
        print(f"WRONG (see {folder}):\n{e}")
        return 1
    if not options.keep:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
