# SPDX-License-Identifier: MIT
"""A disk that is full or broken under a running server: each call that changes the data directory fails once in turn while a client uploads, submits,
cancels and deletes. Refusals are clear, what was there stays, nothing half done is left, and everything works the moment the disk does."""
import json
import uuid

import httpx
import pytest
from faulty import LIBRARY, Faulty

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="a sanitizer's build has no library to preload")
SLEEP = [word for argument in ("sh", "-c", "exec sleep 1000") for word in ("--train-launcher", argument)]
ROWS = "".join(json.dumps({"prompt": f"Question {i}: ", "completion": f"answer {i % 7}."}) + "\n" for i in range(400)).encode()


@pytest.fixture(scope="module")
def faulty(nano):
    with Faulty("--model", str(nano), *SLEEP) as running:
        with httpx.Client(base_url=running.url + "/v1", timeout=60) as http:
            kept = upload(http).json()["id"]
            submit(http, kept, "blocker")  # it runs for ever: the others wait
            yield running, http, kept


def upload(http):
    return http.post("/files", files={"file": ("rows.jsonl", ROWS)}, data={"purpose": "fine-tune"})


def submit(http, file, key):
    return http.post("/fine_tuning/jobs", json={"model": "nano", "training_file": file, "metadata": {"life": key}}, headers={"Idempotency-Key": key})


def check_refused(answer, wanted, data_dir):
    assert answer.status_code == wanted, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert error["message"] and error["code"] == {507: "insufficient_storage", 500: "internal_error"}[wanted]
    assert str(data_dir) not in answer.text and "couplet.db" not in answer.text


def ids(http, path, **parameters):
    rows = http.get(path, params={"limit": 100, **parameters})
    assert rows.status_code == 200, rows.text
    return {row["id"]: row for row in rows.json()["data"]}


def live(running, http, kept, rule, wanted):
    """One fault. False: no call was left to fail."""
    key = uuid.uuid4().hex
    running.fail(rule)
    sent = upload(http)
    content = http.get(f"/files/{kept}/content")
    job = submit(http, kept, key)
    cancelled = job.status_code == 200 and http.post(f"/fine_tuning/jobs/{job.json()['id']}/cancel")
    deleted = sent.status_code == 200 and http.delete(f"/files/{sent.json()['id']}")
    hit = running.was_hit()
    running.fail("")

    for answer in (sent, job, cancelled, deleted):
        if answer and answer.status_code != 200:
            check_refused(answer, wanted, running.data_dir)
    assert content.status_code == 200 and content.content == ROWS
    files, jobs = ids(http, "/files"), ids(http, "/fine_tuning/jobs", **{"metadata[life]": key})
    gone = sent.status_code != 200 or deleted.status_code == 200
    assert set(files) == ({kept} if gone else {kept, sent.json()["id"]})
    # Bytes of a file whose row is gone may wait for the next start's sweep, when unlink was what failed; nothing else lies there.
    lying = {p.name for p in (running.data_dir / "files").iterdir()}
    assert lying == set(files), (lying, set(files))
    if not gone:
        assert http.delete(f"/files/{sent.json()['id']}").status_code == 200
    assert len(jobs) == (job.status_code == 200)
    if jobs:
        assert jobs[job.json()["id"]]["status"] == ("cancelled" if cancelled.status_code == 200 else "queued")
    again = submit(http, kept, key)  # with the same key: what was refused is made now, what was made is found
    assert again.status_code == 200, again.text
    assert set(jobs) <= {again.json()["id"]} == set(ids(http, "/fine_tuning/jobs", **{"metadata[life]": key}))
    assert http.post(f"/fine_tuning/jobs/{again.json()['id']}/cancel").status_code == 200
    return hit


@pytest.mark.parametrize("errno, wanted", [("ENOSPC", 507), ("EIO", 500)])
@pytest.mark.parametrize("op", ["create", "write", "pwrite", "fsync", "fdatasync", "rename"])
def test_each_call_fails_once(faulty, op, errno, wanted):
    running, http, kept = faulty
    n = 1
    while live(running, http, kept, f"{op}:{n}:{errno}", wanted):
        n += 1
        assert n < 150
    assert upload(http).status_code == 200
    for file in set(ids(http, "/files")) - {kept}:
        assert http.delete(f"/files/{file}").status_code == 200
    assert running.process.poll() is None


def test_a_full_disk_stays_full_and_then_does_not(faulty):
    running, http, kept = faulty
    running.fail("any:1+:ENOSPC")
    for _ in range(3):
        check_refused(upload(http), 507, running.data_dir)
        check_refused(submit(http, kept, uuid.uuid4().hex), 507, running.data_dir)
        assert http.get(f"/files/{kept}/content").content == ROWS
    running.fail("")
    assert set(ids(http, "/files")) == {kept}
    sent = upload(http)
    assert sent.status_code == 200 and http.delete(f"/files/{sent.json()['id']}").status_code == 200


def test_a_restart_finds_everything(faulty):
    running, http, kept = faulty
    jobs = ids(http, "/fine_tuning/jobs")
    assert running.stop() == 0
    running.start()
    http = httpx.Client(base_url=running.url + "/v1", timeout=60)
    assert set(ids(http, "/files")) == {kept} and set(ids(http, "/fine_tuning/jobs")) == set(jobs)
    assert http.get(f"/files/{kept}/content").content == ROWS
