# SPDX-License-Identifier: MIT
"""The client of the kill campaign: does at random what clients do, repeats what got no answer, and remembers what was acknowledged. Standard library only."""
import collections
import hashlib
import http.client
import json
import random
import threading
import time
import uuid
from dataclasses import dataclass, field

FINAL = ("succeeded", "failed", "cancelled")
UNFINISHED_MOST = 5
ONCE = ("Training started", "The job has successfully completed", "New fine-tuned model created", "Fine-tuning job started", "Created fine-tuning job")


def sha(data):
    return hashlib.sha256(data).hexdigest()


def call(port, method, path, body=None, headers=None):
    """(status, JSON or bytes); None: no answer came, so nobody knows what happened."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        if isinstance(body, dict):
            body, headers = json.dumps(body).encode(), {**(headers or {}), "Content-Type": "application/json"}
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        return answer.status, json.loads(data) if answer.getheader("Content-Type", "").startswith("application/json") else data
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


@dataclass
class File:
    name: str
    data: bytes
    id: str = None
    state: str = "unsure"  # "there", "gone": acknowledged
    setting: str = None


@dataclass
class Job:
    n: int
    setting: str
    file: File
    key: str
    body: dict
    id: str = None
    lost: int = 0            # answers that did not come
    wish: str = "go"         # the last acknowledged: "go", "pause"; "unsure": its answer was lost
    cancel: str = "no"       # "asked": without an answer; "taken": acknowledged; "done": acknowledged as cancelled
    end: tuple = None        # what never changes again
    model_state: str = "there"
    errors: list = field(default_factory=list)


class Client:
    def __init__(self, port, settings, seed):
        self.port, self.settings, self.random = port, settings, random.Random(seed + 1000)
        self.files, self.jobs, self.wrong = [], {}, []
        self.counts = collections.Counter()
        self.up, self.stopped = threading.Event(), threading.Event()

    # ---- the killer's side ----

    def server_is_up(self):
        self.up.set()

    def server_goes_down(self):
        self.up.clear()

    def stop(self):
        self.stopped.set()
        self.up.set()

    def complain(self, text):
        self.wrong.append(text)

    # ---- requests ----

    def ask(self, method, path, body=None, headers=None):
        answer = call(self.port, method, path, body, headers)
        self.counts["answers" if answer else "lost answers"] += 1
        if answer and answer[0] >= 500 and answer[0] != 503:
            self.complain(f"{method} {path}: {answer}")
        return answer

    def upload(self, data=None, setting=None, name=None, purpose="user_data"):
        if data is None:
            data = self.random.randbytes(int(10 ** self.random.uniform(1, 5.3)))
        f = File(f"{len(self.files)}-{name or 'any'}", data, setting=setting)
        self.files.append(f)
        edge = uuid.uuid4().hex
        form = (f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n--{edge}\r\nContent-Disposition: form-data; name="file"; '
                f'filename="{f.name}"\r\n\r\n').encode() + data + f"\r\n--{edge}--\r\n".encode()
        answer = self.ask("POST", "/v1/files", form, {"Content-Type": f"multipart/form-data; boundary={edge}"})
        if answer and answer[0] == 200:
            f.id, f.state = answer[1]["id"], "there"
            if answer[1]["sha256"] != sha(data) or answer[1]["bytes"] != len(data):
                self.complain(f"the upload {f.name} came out as {answer[1]}")
        elif answer and answer[0] != 503:
            self.complain(f"upload: {answer}")
        return f

    def submit_one(self, setting, key=None):
        data, name, request = self.settings[setting]
        f = next((f for f in self.files if f.setting == setting and f.state == "there"), None)
        if not f or self.random.random() < 0.2:
            f = self.upload(data, setting, name, "fine-tune")
        if f.state != "there":
            return None
        n = len(self.jobs)
        job = Job(n, setting, f, key, {**request, "training_file": f.id, "metadata": {"n": str(n)}})
        self.jobs[n] = job
        self.send(job)
        return job

    def send(self, job):
        answer = self.ask("POST", "/v1/fine_tuning/jobs", job.body, {"Idempotency-Key": job.key} if job.key else {})
        if answer is None:
            job.lost += 1
        elif answer[0] == 200:
            if job.id not in (None, answer[1]["id"]):
                self.complain(f"one key, two jobs: {job.id} and {answer[1]['id']}")
            job.id = answer[1]["id"]
            self.see(job, answer[1])
        elif answer[0] != 503:
            self.complain(f"submit: {answer}")

    def see(self, job, seen):
        """What a job's object says must agree with what it said before."""
        if seen["status"] == "failed":
            self.complain(f"job {job.id} ({job.setting}) failed: {seen['error']}")
        end = (seen["status"], seen["fine_tuned_model"], seen["finished_at"], tuple(seen["result_files"])) if seen["status"] in FINAL else None
        if job.end and end != job.end:
            self.complain(f"job {job.id} had ended as {job.end} and is {end or seen['status']}")
        job.end = end

    def look(self, job):
        answer = self.ask("GET", f"/v1/fine_tuning/jobs/{job.id}")
        if answer and answer[0] == 200:
            self.see(job, answer[1])
            return answer[1]
        if answer and answer[0] != 503:
            self.complain(f"acknowledged job {job.id}: {answer}")
        return None

    def act(self, job, action):
        if action == "cancel" and job.cancel == "no":
            job.cancel = "asked"
        answer = self.ask("POST", f"/v1/fine_tuning/jobs/{job.id}/{action}")
        if answer is None:
            job.wish = "unsure" if action != "cancel" else job.wish
        elif answer[0] == 200:
            if action == "cancel":
                job.cancel = "done" if answer[1]["status"] == "cancelled" else "taken"
            else:
                job.wish = {"pause": "pause", "resume": "go"}[action]
            self.see(job, answer[1])
        elif answer[0] not in (409, 503):
            self.complain(f"{action}: {answer}")

    def file_delete(self, f):
        answer = self.ask("DELETE", f"/v1/files/{f.id}")
        if answer is None:
            f.state = "unsure"
        elif answer[0] == 200:
            f.state = "gone"
        elif answer[0] not in (409, 503):
            self.complain(f"delete of {f.name}: {answer}")

    def file_read(self, f):
        answer = self.ask("GET", f"/v1/files/{f.id}/content")
        if answer and answer[0] != 503 and (answer[0] != 200 or answer[1] != f.data):
            self.complain(f"acknowledged file {f.name} {f.id}: {answer[0]}, {len(answer[1])} bytes of {len(f.data)}")

    def model_delete(self, job):
        answer = self.ask("DELETE", f"/v1/models/{job.end[1]}")
        if answer is None:
            job.model_state = "unsure"
        elif answer[0] == 200:
            job.model_state = "gone"
        elif answer[0] != 503:
            self.complain(f"delete of {job.end[1]}: {answer}")

    def generate(self, job):
        answer = self.ask("POST", "/v1/completions", {"model": job.end[1], "prompt": "Question 3: ", "max_tokens": 8})
        if answer and answer[0] not in (200, 503):
            self.complain(f"{job.end[1]} does not answer: {answer}")

    # ---- at random ----

    def acknowledged(self):
        return [job for job in self.jobs.values() if job.id]

    def step(self):
        draw = self.random
        jobs, kept = self.acknowledged(), [f for f in self.files if f.state == "there"]
        unfinished = [job for job in jobs if not job.end]
        models = [job for job in jobs if job.end and job.end[1] and job.model_state == "there"]
        unanswered = [job for job in self.jobs.values() if job.key and not job.id]
        what = draw.choices(("upload", "submit", "again", "cancel", "pause", "resume", "look", "read", "delete", "generate", "model"),
                            (4, 6, 3, 0.15, 0.6, 3, 8, 6, 1, 2, 0.05))[0]
        if unanswered:
            self.send(draw.choice(unanswered))
        elif what == "upload":
            self.upload()
        elif what == "submit" and len(unfinished) < UNFINISHED_MOST:
            self.submit_one(draw.choice(list(self.settings)), uuid.uuid4().hex if draw.random() < 0.8 else None)
        elif what == "again" and any(job.key for job in jobs):
            job = draw.choice([job for job in jobs if job.key])
            if job.file.state == "there":
                self.counts["repeated keys"] += 1
                self.send(job)
        elif what in ("cancel", "pause", "resume") and unfinished:
            self.act(draw.choice(unfinished), what)
        elif what == "look" and jobs:
            self.look(draw.choice(unfinished or jobs if draw.random() < 0.7 else jobs))
        elif what == "read" and kept:
            self.file_read(draw.choice(kept))
        elif what == "delete" and kept:
            self.file_delete(draw.choice(kept))
        elif what == "generate" and models:
            self.generate(draw.choice(models))
        elif what == "model" and models:
            self.model_delete(draw.choice(models))

    def run(self):
        while not self.stopped.is_set():
            self.up.wait()
            if self.stopped.is_set():
                return
            try:
                self.step()
            except Exception as e:  # a mistake of this test must not look like a quiet server
                self.complain(f"the client: {e!r}")
                return
            time.sleep(self.random.uniform(0, 0.05))

    # ---- at the end ----

    def wishes_check(self, seconds=60):
        """What was acknowledged as paused is paused, what was cancelled is cancelled; nothing pauses that was not asked to."""
        end, open_jobs = time.monotonic() + seconds, self.acknowledged()
        while open_jobs and time.monotonic() < end:
            still = []
            for job in open_jobs:
                status = (self.look(job) or {}).get("status")
                paused = job.wish == "pause" and job.cancel == "no"
                if job.cancel == "done" and status != "cancelled":
                    self.complain(f"job {job.id} was acknowledged as cancelled and is {status}")
                if status == "paused" and job.wish == "go":
                    self.complain(f"job {job.id} is paused and nobody asked for it")
                if status not in FINAL and (job.cancel == "taken" or (paused and status not in ("paused", "queued"))):
                    still.append(job)
                if paused and status == "queued":
                    self.complain(f"job {job.id} was acknowledged as paused and is {status}")
                if status == "cancelled" and job.cancel == "no":
                    self.complain(f"job {job.id} is cancelled and nobody asked for it")
            open_jobs = still
            time.sleep(0.1)
        for job in open_jobs:
            self.complain(f"job {job.id}: its wish ({job.wish}, cancel {job.cancel}) was not heeded in {seconds} s")

    def drain(self, seconds):
        """Everything goes on to its end."""
        end = time.monotonic() + seconds
        for job in self.jobs.values():
            if job.key and not job.id:
                self.send(job)
        while time.monotonic() < end:
            unfinished = [job for job in self.acknowledged() if not job.end]
            for job in unfinished:
                if (self.look(job) or {}).get("status") == "paused":
                    self.act(job, "resume")
            if not unfinished:
                return
            time.sleep(0.1)
        raise AssertionError(f"these jobs did not end in {seconds:.0f} s: {[(job.id, self.look(job)) for job in unfinished]}")

    def pages(self, path, limit=100):
        rows, after = [], ""
        while True:
            status, page = self.ask("GET", f"{path}?limit={limit}{after}")
            assert status == 200, page
            rows += page["data"]
            if not page["has_more"]:
                return rows
            after = f"&after={rows[-1]['id']}"

    def job_result(self, job):
        """What two runs of the same settings have in common."""
        events = self.pages(f"/v1/fine_tuning/jobs/{job.id}/events")[::-1]
        for text in ONCE:
            if sum(e["message"].startswith(text) for e in events) != (job.end[0] == "succeeded"):
                job.errors.append(f"{text!r} stands {sum(e['message'].startswith(text) for e in events)} times among its events")
        metrics = [{k: v for k, v in e["data"].items() if k != "tokens_per_second"} for e in events if e["type"] == "metrics"]
        samples = [e["data"] for e in events if (e["data"] or {}).get("kind") == "sample"]
        checkpoints = sorted(c["step_number"] for c in self.pages(f"/v1/fine_tuning/jobs/{job.id}/checkpoints"))
        tables = []
        for file in job.end[3]:
            meta, content = self.ask("GET", f"/v1/files/{file}"), self.ask("GET", f"/v1/files/{file}/content")
            if meta[0] != 200 or content[0] != 200 or sha(content[1] if isinstance(content[1], bytes) else b"") != meta[1]["sha256"]:
                job.errors.append(f"its result file {file} is not there as it was")
            elif meta[1]["filename"] == "results.csv":
                tables.append(content[1].decode())
        return {"metrics": metrics, "samples": samples, "checkpoints": checkpoints, "results": tables}

    def figures(self):
        ends = collections.Counter(job.end[0] for job in self.acknowledged() if job.end)
        return {"files_acknowledged": sum(f.id is not None for f in self.files), "files_deleted": sum(f.state == "gone" for f in self.files),
                "jobs_acknowledged": len(self.acknowledged()), **{f"jobs_{k}": v for k, v in ends.items()}, **self.counts}
