# SPDX-License-Identifier: MIT
"""Disks that are full or broken while a job runs: the training process on a real full disk, and every call that changes the data directory failing in
turn between a job's claim and its published model, in the server and in its trainer. (tests/api/test_disk_faults.py: the same for uploads and requests.)"""
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from faulty import LIBRARY, Faulty
from serving import Server

ROWS = "".join(json.dumps({"prompt": f"Question {i}: ", "completion": f"answer {i % 7}."}) + "\n" for i in range(24)).encode()
LORA = {"max_steps": 4, "n_checkpoints": 2, "training_type": {"type": "lora", "lora_r": 1}}
FULL = {"max_steps": 4, "n_checkpoints": 2, "training_type": {"type": "full"}}
FINAL = ("succeeded", "failed", "cancelled")
EVERY = int(os.environ.get("COUPLET_FAULT_EVERY", "9"))  # 1: every call in turn


def upload(http, data=ROWS, name="rows.jsonl"):
    return http.post("/files", files={"file": (name, data)}, data={"purpose": "fine-tune"})


def submit(http, file, how):
    return http.post("/fine_tuning/jobs", json={"model": "nano", "training_file": file, "seed": 7, "couplet": how})


def wait_for_end(http, job, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen = http.get(f"/fine_tuning/jobs/{job}").json()
        if seen["status"] in FINAL:
            return seen
        time.sleep(0.03)
    raise AssertionError(f"the job is {seen['status']} after {seconds} s: {seen}")


def check_clean(data, http, jobs):
    """A job says how it ended before it is cleaned up."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            return check_clean_now(data, http, jobs)
        except AssertionError:
            time.sleep(0.05)
    return check_clean_now(data, http, jobs)


def check_clean_now(data, http, jobs):
    """Files are those that the server names, models too; nothing is left over of the jobs that have ended."""
    files = {f["id"] for f in http.get("/files").json()["data"]}
    assert {p.name for p in (data / "files").iterdir()} == files
    owned = {m["couplet"]["job"] for m in http.get("/models").json()["data"]}
    for folder in (data / "models").iterdir():
        assert "ftjob-" + folder.name.split("-")[1] in owned, f"{folder.name} is nobody's"
    assert not list((data / "tmp").iterdir())
    for job in jobs:
        for left in ("checkpoints", "snapshots", "live"):
            assert not (data / "jobs" / job / "out" / left).exists(), f"{left} of {job}"
        assert not list((data / "jobs" / job).rglob("*.tmp*")) and not list((data / "jobs" / job).rglob("*.safetensors"))


# ---- a disk of 2 MiB ----

class Small(Server):
    """A server whose data directory is a tmpfs of its own, gone with it."""

    def start(self):
        self.hidden = Path(self.data.name) / "data"
        self.hidden.mkdir(exist_ok=True)
        plain, self.command = self.command, ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "-m", "sh", "-c",
                                             f'mount -t tmpfs -o size=2m none "{self.hidden}" && exec "$@"', "sh", *self.command]
        super().start()
        self.command = plain
        self.data_dir = Path("/proc", str(self.process.pid), "root", *self.hidden.parts[1:])


@pytest.fixture
def small(nano):
    try_it = ["unshare", *([] if os.geteuid() == 0 else ["-Ur"]), "-m", "sh", "-c", "mount -t tmpfs -o size=2m none /tmp"]
    if not shutil.which("unshare") or subprocess.run(try_it, capture_output=True).returncode != 0:
        pytest.skip("a tmpfs cannot be mounted here")
    with Small("--model", str(nano), "--disk-low-mb", "0", "--train-threads", "1") as running:
        with httpx.Client(base_url=running.url + "/v1", timeout=60) as http:
            yield running, http
        assert "Sanitizer" not in running.output()


def fill(http, piece):
    """Uploads until one is refused; their ids."""
    made = []
    for n in range(1000):
        answer = upload(http, os.urandom(piece), f"ballast-{n}")
        if answer.status_code != 200:
            assert answer.status_code == 507 and answer.json()["error"]["code"] == "insufficient_storage", answer.text
            return made
        made.append(answer.json()["id"])
    raise AssertionError("the disk was never full")


def test_a_full_disk_refuses_and_recovers(small):
    running, http = small
    kept = upload(http).json()["id"]
    for piece in (300_000, 30_000, 3_000):
        made = fill(http, piece)
        check_clean(running.data_dir, http, [])
        assert http.get(f"/files/{kept}/content").content == ROWS
        refused = upload(http, os.urandom(300_000))
        assert refused.status_code == 507 and str(running.hidden) not in refused.text
    for file in [f["id"] for f in http.get("/files").json()["data"] if f["id"] != kept]:
        assert http.delete(f"/files/{file}").status_code == 200
    assert made is not None and upload(http, os.urandom(300_000)).status_code == 200
    assert running.process.poll() is None and http.get(f"/files/{kept}/content").content == ROWS


def test_training_fills_the_disk(small):
    running, http = small
    kept, ballast = upload(http).json()["id"], upload(http, os.urandom(900_000)).json()["id"]
    job = submit(http, kept, FULL).json()["id"]
    ended = wait_for_end(http, job)
    assert ended["status"] == "failed" and ended["error"]["code"] == "no_space", ended
    assert str(running.hidden) not in json.dumps(ended)
    check_clean(running.data_dir, http, [job])
    assert http.get(f"/files/{kept}/content").content == ROWS
    assert http.delete(f"/files/{ballast}").status_code == 200
    good = wait_for_end(http, submit(http, kept, FULL).json()["id"])
    assert good["status"] == "succeeded", good
    assert http.post("/completions", json={"model": good["fine_tuned_model"], "prompt": "Question", "max_tokens": 4}).status_code == 200


# ---- each call fails ----

def faulty(command, nano):
    if not LIBRARY.exists():
        pytest.skip("a sanitizer's build has no library to preload")
    return Faulty("--model", str(nano), "--train-threads", "1", "--log-level", "warn", command=command)


def one_fault(running, http, kept, how, rule, codes):
    """One job with one fault. False: no call was left to fail."""
    running.fail(rule)
    made = submit(http, kept, how)
    if made.status_code != 200:  # it was the request itself
        assert made.status_code in (500, 507), made.text
        running.fail("")
        return True
    job = made.json()["id"]
    ended = wait_for_end(http, job)
    hit = running.was_hit()
    running.fail("")
    assert running.process.poll() is None
    if ended["status"] == "failed":
        assert hit and ended["error"]["code"] in codes, (rule, ended)
        assert str(running.data.name) not in json.dumps(ended), (rule, ended)
        assert ended["fine_tuned_model"] is None
    else:
        assert ended["status"] == "succeeded", (rule, ended)
        answer = http.post("/completions", json={"model": ended["fine_tuned_model"], "prompt": "Question", "max_tokens": 4})
        assert answer.status_code == 200, (rule, answer.text)
    assert http.get(f"/files/{kept}/content").content == ROWS
    try:
        check_clean(running.data_dir, http, [job])
    except AssertionError as e:
        raise AssertionError(f"{rule}, {ended['status']} {ended['error']}: {e}") from None
    return hit


def every_fault(running, http, how, op, errno, codes, every, first=1):
    kept = upload(http).json()["id"]
    n, hits = first, 0
    while one_fault(running, http, kept, how, f"{op}:{n}:{errno}", codes):
        n, hits = n + every, hits + 1
        assert n < 1000
    ended = wait_for_end(http, submit(http, kept, how).json()["id"])
    assert ended["status"] == "succeeded", ended
    return hits


@pytest.mark.parametrize("errno, codes", [("ENOSPC", {"no_space"}), ("EIO", {"io_error"})])
@pytest.mark.parametrize("command", ["serve", "train"])
def test_each_call_of_a_job_fails_once(nano, command, errno, codes):
    """In the trainer a call fails in every attempt; in the server once."""
    with faulty(command, nano) as running, httpx.Client(base_url=running.url + "/v1", timeout=60) as http:
        hits = every_fault(running, http, LORA if errno == "EIO" else FULL, "any", errno, codes, EVERY, 1 + EVERY // 2)
        print(f"{command} {errno}: {hits} faults")
        assert hits > 0 and running.stop() == 0
