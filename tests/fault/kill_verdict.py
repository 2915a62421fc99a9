# SPDX-License-Identifier: MIT
"""What the kill campaign looks at when the killing is over: over HTTP, then in the data directory of the stopped server. Standard library only."""
import collections
import sqlite3
from pathlib import Path

from kill_client import sha

# What stays of a job that has ended.
JOB_KEEPS = {"out", "out/log.jsonl", "out/results.csv", "out/report.md", "out/report.json", "results.html", "results.json", "stderr.log", "config.json"}


class Verdict:
    def __init__(self, life, client, reference, weights_of):
        self.life, self.client, self.reference, self.weights_of = life, client, reference, weights_of
        self.wrong, self.figures = [], collections.Counter(lost=0, double=0)

    def check(self, good, text, figure=None):
        if not good:
            self.wrong.append(text)
            if figure:
                self.figures[figure] += 1

    # ---- over HTTP ----

    def over_http(self):
        self.files()
        self.jobs()
        self.models()

    def files(self):
        listed = {f["id"]: f for f in self.client.pages("/v1/files", 1000) if f["purpose"] != "fine-tune-results"}
        names = collections.Counter(f["filename"] for f in listed.values())
        for f in self.client.files:
            if f.state == "there":
                self.check(f.id in listed, f"acknowledged file {f.name} is lost", "lost")
                self.check(self.client.ask("GET", f"/v1/files/{f.id}/content")[1] == f.data, f"acknowledged file {f.name} has other bytes", "lost")
            if f.state == "gone":
                self.check(f.id not in listed, f"deleted file {f.name} is there again")
            self.check(names[f.name] <= 1, f"one upload, two files: {f.name}", "double")
        by_name = {f.name: f for f in self.client.files}
        for row in listed.values():
            sent = by_name.get(row["filename"])
            self.check(sent and row["sha256"] == sha(sent.data), f"a file nobody sent: {row}")

    def jobs(self):
        rows = self.client.pages("/v1/fine_tuning/jobs")
        made = collections.defaultdict(list)
        for row in rows:
            made[int(row["metadata"]["n"])].append(row["id"])
        self.check(len(rows) == len({row["id"] for row in rows}), "the list of jobs names one twice")
        for n, job in self.client.jobs.items():
            self.check(not job.id or job.id in made[n], f"acknowledged job {job.id} is lost", "lost")
            # Without a key only one request was sent, with one all of them are the same job.
            self.check(len(made[n]) <= 1, f"one request, these jobs: {made[n]}", "double")
            if job.id and job.end[0] == "succeeded":
                result, wanted = self.client.job_result(job), self.reference[job.setting]
                for what, value in result.items():
                    self.check(value == wanted[what], f"job {job.id} ({job.setting}): {what} differ: {difference(value, wanted[what])}")
                self.figures["events_compared"] += len(result["metrics"])
                self.wrong += [f"job {job.id} ({job.setting}): {e}" for e in job.errors]
        self.end_strays(made)

    def end_strays(self, made):
        """Jobs whose one answer was lost: the client does not know them, the server does."""
        for n, job in self.client.jobs.items():
            if not job.id and made[n]:
                job.id = made[n][0]
        self.client.drain(60 + 4 * len(self.client.jobs))

    def models(self):
        status, models = self.client.ask("GET", "/v1/models")
        names = collections.Counter(m["id"] for m in models["data"])
        for job in self.client.acknowledged():
            if job.end[0] != "succeeded":
                continue
            count = names[job.end[1]]
            self.check(job.model_state == "unsure" or count == (job.model_state == "there"), f"{job.end[1]} ({job.model_state}) is listed {count} times",
                       "double" if count > 1 else "lost")
            if count:
                self.client.generate(job)
                self.figures["models_answer"] += 1

    # ---- in the data directory ----

    def on_disk(self, when):
        data = self.life.data
        db = sqlite3.connect(f"file:{data}/couplet.db?mode=ro", uri=True)
        self.check(db.execute("PRAGMA integrity_check").fetchone() == ("ok",), f"{when}: the database is damaged")
        files = {row[0] for row in db.execute("SELECT id FROM files")}
        self.same(f"{when}: files/", {p.name for p in (data / "files").iterdir()}, files)
        models = [(job, Path(folder).name) for job, folder in db.execute("SELECT job, dir FROM models")]
        self.same(f"{when}: models/", {p.name for p in (data / "models").iterdir()}, {folder for _, folder in models})
        self.check(len({folder for _, folder in models}) == len(models), f"{when}: two models in one directory", "double")
        results = collections.Counter(db.execute("SELECT job FROM models WHERE NOT checkpoint"))
        for job in self.client.acknowledged():
            wanted = job.end[0] == "succeeded" and job.model_state == "there"
            self.check(job.model_state == "unsure" or results[(job.id,)] == wanted, f"{when}: job {job.id} has {results[(job.id,)]} models", "double")
            self.check(job.end[0] != "cancelled" or not results[(job.id,)], f"{when}: cancelled job {job.id} has a model")
        self.same(f"{when}: tmp/", {p.name for p in (data / "tmp").iterdir()}, set())
        self.same(f"{when}: data directory", {p.name for p in data.iterdir()} - {"couplet.db-wal", "couplet.db-shm"},
                  {"couplet.db", "lock", "files", "models", "jobs", "tmp"})
        for folder in (data / "jobs").iterdir():
            left = {str(p.relative_to(folder)) for p in folder.rglob("*")} - JOB_KEEPS
            self.check(not left, f"{when}: leftovers of {folder.name}: {sorted(left)}")
        if when.startswith("before"):
            self.weights(models)
        db.close()

    def weights(self, models):
        settings = {job.id: job.setting for job in self.client.acknowledged()}
        for job, folder in models:
            step = folder.partition(job[6:])[2]
            wanted = self.reference[settings[job]]["weights"].get(step)
            self.check(self.weights_of(self.life.data / "models" / folder) == wanted, f"weights of {folder} ({settings[job]}) differ from an unkilled run's")
            self.figures["weights_compared" if not step else "checkpoints_compared"] += 1

    def same(self, what, found, wanted):
        self.check(found == wanted, f"{what}: too many {sorted(found - wanted)[:5]}, missing {sorted(wanted - found)[:5]}")


def difference(a, b):
    """The first place where two lists part."""
    for n, (x, y) in enumerate(zip(a, b)):
        if x != y:
            return f"[{n}] {x} for {y}"
    return f"{len(a)} entries for {len(b)}"
