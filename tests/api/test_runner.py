# SPDX-License-Identifier: MIT
"""A file becomes a model: through pauses, kill -9 of server and trainer, and trainers that misbehave. With the stock `openai` client."""
import csv
import io
import json
import os
import signal
import sqlite3
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from conftest import stop_and_look
from held_trainer import Hold
from serving import COUPLET, Server

openai = pytest.importorskip("openai")
ROOT = Path(__file__).resolve().parents[2]
FAKE = ["--train-launcher", sys.executable, "--train-launcher", str(ROOT / "tests" / "tools" / "fake_trainer.py")]
ROWS = "".join(json.dumps({"prompt": f"Question {i}: ", "completion": f"answer {i % 7}."}) + "\n" for i in range(24)).encode()
TEXT = (ROOT / "configs" / "examples" / "village.txt").read_bytes()[:16000]
QUICK = {"couplet": {"max_steps": 4}}
LONG = {"seed": 3, "hyperparameters": {"batch_size": 4}, "couplet": {"max_steps": 60, "n_evals": 4, "n_checkpoints": 4, "context_length": 64, "stride": 64, "validation_split": 0.2}}
ENDLESS = {"couplet": {"max_steps": 100000, "context_length": 64}}
FAILPOINTS = b"COUPLET_FAILPOINT_ONCE" in Path(COUPLET).read_bytes()


def client_of(server):
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=60)


def start(client, data=TEXT, name="text.txt", **body):
    file = client.files.create(file=(name, data), purpose="fine-tune").id
    extra = {"couplet": body.pop("couplet", {})}
    return client.fine_tuning.jobs.create(model=body.pop("model", "nano"), training_file=file, extra_body=extra, **body).id


def wait_for(client, job, *statuses, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = client.fine_tuning.jobs.retrieve(job)
        if now.status in statuses:
            return now
        time.sleep(0.03)
    raise AssertionError(f"{job} is {now.status}, not {statuses}: {now}")


def wait_until(condition, seconds=60, every=0.02):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(every)
    raise AssertionError("it did not happen")


def wait_for_step(client, job, step):
    """Waits until the job has told of that step or a later one."""
    def told():
        return max([e.data["step"] for e in client.fine_tuning.jobs.list_events(job, limit=5) if e.type == "metrics"], default=0)

    wait_until(lambda: told() >= step, 300, 0.01)


def all_events(client, job):
    return list(reversed(list(client.fine_tuning.jobs.list_events(job, limit=100))))


def kinds(events):
    return [(e.data or {}).get("kind") or e.type for e in events]


def data_dir(server):
    return Path(server.data.name) / "data"


def weights(server, job):
    return next((data_dir(server) / "models" / job.replace("ftjob-", "model-")).glob("*.safetensors")).read_bytes()


def trainer_pid(server, job):
    path = data_dir(server) / "jobs" / job / "pid"
    return int(path.read_text().split()[0]) if path.exists() else 0


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def post(client, job, action):
    return client.post(f"/fine_tuning/jobs/{job}/{action}", cast_to=object)


def metric(server, name):
    text = urllib.request.urlopen(server.url + "/metrics", timeout=60).read().decode()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(name + " ")))


@pytest.fixture(scope="module")
def running(nano):
    one = Server("--model", str(nano), "--lease-seconds", "3")
    yield one
    stop_and_look(one)


@pytest.fixture(scope="module")
def client(running):
    with client_of(running) as c:
        yield c


@pytest.fixture(scope="module")
def reference(running, client):
    """The weights of LONG, from a run that nothing disturbs."""
    job = start(client, **LONG)
    wait_for(client, job, "succeeded")
    return weights(running, job)


def test_rows_become_a_model(running, client):
    job = start(client, ROWS, "rows.jsonl", suffix="qa", hyperparameters={"n_epochs": 2}, couplet={"n_checkpoints": 2, "sample_prompts": ["Question 1: "],
                                                                                                   "validation_split": 0.2, "learning_rate": 0.01})
    done = wait_for(client, job, "succeeded", "failed")
    assert done.status == "succeeded", done.error
    assert done.fine_tuned_model == f"ft:nano:local:qa:{job[6:14]}" and done.trained_tokens > 0 and done.finished_at >= done.created_at
    events = all_events(client, job)
    seen = kinds(events)
    for kind in ("job_start", "training_start", "metrics", "sample", "checkpoint_save", "epoch_complete", "training_complete", "job_complete"):
        assert kind in seen, (kind, seen)
    assert seen.index("job_start") < seen.index("training_start") < seen.index("training_complete") < seen.index("job_complete")
    assert events[-1].message == "The job has successfully completed"
    steps = [e.data for e in events if e.type == "metrics" and "train_mean_token_accuracy" in e.data]
    assert [s["step"] for s in steps] == list(range(1, len(steps) + 1)) and len(steps) == steps[-1]["total_steps"]
    assert all({"epoch", "train_loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second"} <= set(s) for s in steps)
    evaluations = [e.data for e in events if e.type == "metrics" and "valid_loss" in e.data]
    assert evaluations and all({"step", "total_steps", "epoch", "valid_loss", "perplexity", "tokens"} <= set(v) for v in evaluations)
    assert all(v["tokens"] == s["tokens"] for v in evaluations for s in steps if s["step"] == v["step"])
    samples = [e.data for e in events if (e.data or {}).get("kind") == "sample"]
    assert samples and all(s["prompt"] == "Question 1: " and isinstance(s["text"], str) and s["step"] >= 0 for s in samples)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job))
    assert [c.step_number for c in checkpoints] == [len(steps), len(steps) // 2]
    assert checkpoints[0].metrics.full_valid_loss > 0 and checkpoints[0].metrics.train_loss > 0
    files = {client.files.retrieve(f).filename: client.files.content(f).text for f in done.result_files}
    assert set(files) == {"results.csv", "report.md", "results.html", "results.json"}
    results = json.loads(files["results.json"])
    assert (results["model"], results["base"]) == (done.fine_tuned_model, "nano") and len(results["cards"]) == files["results.html"].count("<article>") > 0
    assert all(c["instruction"] and c["reference"] and c["base"] is not None for c in results["cards"])
    table = list(csv.DictReader(io.StringIO(files["results.csv"])))
    assert len(table) == len(steps) and float(table[-1]["train_loss"]) == pytest.approx(steps[-1]["train_loss"], rel=1e-6)
    assert "<html" in files["results.html"]

    def answer(model):
        return client.completions.create(model=model, prompt="Question 1: ", max_tokens=12, temperature=0).choices[0].text

    assert answer(done.fine_tuned_model) == answer(checkpoints[0].fine_tuned_model_checkpoint) != answer("nano")
    assert metric(running, 'couplet:ft_jobs{status="succeeded"}') >= 1 and metric(running, "couplet:ft_tokens_total") > 0
    place = data_dir(running) / "jobs" / job
    assert not (place / "out" / "checkpoints").exists() and not list(place.rglob("*.safetensors")), "weights that nobody needs are gone"


@pytest.mark.parametrize("tokenizer", ["train", "nano"])
def test_a_new_model(client, tokenizer):
    vocabulary = {"vocab_size": 300} if tokenizer == "train" else {}
    job = start(client, model="new", couplet={"architecture": {"n_layer": 1, "n_head": 2, "n_embd": 16, "n_ctx": 64}, "tokenizer": tokenizer, "max_steps": 4, **vocabulary})
    done = wait_for(client, job, "succeeded", "failed")
    assert done.status == "succeeded" and done.fine_tuned_model == f"ft:new:local::{job[6:14]}", done.error
    assert client.completions.create(model=done.fine_tuned_model, prompt="The mill", max_tokens=4).choices[0].finish_reason


def test_a_tokenizer_alone(client):
    """Without an architecture the job ends with the vocabulary's files."""
    job = start(client, model="new", couplet={"tokenizer": "train", "vocab_size": 300})
    done = wait_for(client, job, "succeeded", "failed")
    assert done.status == "succeeded" and done.fine_tuned_model is None, done.error
    names = [client.files.retrieve(file).filename for file in done.result_files]
    assert names == ["tokenizer.json", "vocab.json", "merges.txt"]
    assert len(json.loads(client.files.content(done.result_files[1]).text)) == 300


def test_live_weights_while_it_runs(running, client):
    job = start(client, **ENDLESS)
    live = f"ft:nano:local::{job[6:14]}:live"
    wait_until(lambda: live in [m.id for m in client.models.list()])
    assert client.completions.create(model=live, prompt="The mill", max_tokens=2).choices[0].finish_reason
    client.fine_tuning.jobs.cancel(job)
    assert wait_for(client, job, "cancelled").fine_tuned_model is None
    wait_until(lambda: live not in [m.id for m in client.models.list()])
    assert not trainer_pid(running, job)


def test_the_process(running, client):
    """Its own session and group, the lowest priority, bounded, and dead with its server."""
    job = start(client, **ENDLESS)
    pid = wait_until(lambda: trainer_pid(running, job))
    limits = wait_until(lambda: "256" in (text := Path(f"/proc/{pid}/limits").read_text()).split("Max open files")[1].split("\n")[0] and text)
    status = Path(f"/proc/{pid}/status").read_text()
    assert "Name:\tcouplet" in status and Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
    assert os.getsid(pid) == os.getpgid(pid) == pid and os.getpriority(os.PRIO_PROCESS, pid) == 19 and os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert "NoNewPrivs:\t1" in status and "Max core file size        0 " in limits and os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    client.fine_tuning.jobs.cancel(job)
    wait_for(client, job, "cancelled")


def test_pause_and_resume_change_nothing(nano, reference, tmp_path):
    hold = Hold(tmp_path)
    with Server("--model", str(nano), *hold.options) as server, client_of(server) as client:
        hold.at(20)
        job = start(client, **LONG)
        for step, go_on in ((20, lambda: hold.at(40)), (40, hold.release)):
            wait_for_step(client, job, step)
            post(client, job, "pause")
            wait_for(client, job, "paused")
            assert not alive(trainer_pid(server, job))
            go_on()
            post(client, job, "resume")
        assert wait_for(client, job, "succeeded").status == "succeeded"
        assert weights(server, job) == reference
        steps = [e.data["step"] for e in all_events(client, job) if e.type == "metrics" and "grad_norm" in e.data]
        assert sorted(steps) == list(range(1, 61)), "every step is told once"
        assert [c.step_number for c in client.fine_tuning.jobs.checkpoints.list(job)] == [60, 45, 30, 15]
        stop_and_look(server)


def test_cancelled_while_it_waits(running, client):
    """Nobody runs its end, and yet its checkpoints go: without a restart."""
    job = start(client, **ENDLESS)
    wait_until(lambda: "metrics" in kinds(all_events(client, job)))
    post(client, job, "pause")
    wait_for(client, job, "paused")
    checkpoints = data_dir(running) / "jobs" / job / "out" / "checkpoints"
    assert list(checkpoints.glob("step-*"))
    post(client, job, "cancel")
    assert wait_for(client, job, "cancelled")
    wait_until(lambda: not checkpoints.exists())


def test_a_group_that_stands_still(nano):
    """Stopped by somebody: it can be cancelled all the same, and it dies with its server."""
    with Server("--model", str(nano)) as server:
        for end in ("cancelled", "running"):
            job = start(client_of(server), **LONG)
            wait_until(lambda: "metrics" in kinds(all_events(client_of(server), job)))
            pid = trainer_pid(server, job)
            os.killpg(pid, signal.SIGSTOP)
            if end == "cancelled":
                post(client_of(server), job, "cancel")
            else:
                server.process.kill()
                server.process.wait()
            wait_until(lambda: not alive(pid))
        server.start()
        wait_for(client_of(server), job, "succeeded")
        stop_and_look(server)


def test_a_store_that_refuses_at_the_start(nano):
    """What the dead server ran is queued again as soon as the store takes it."""
    with Server("--model", str(nano)) as server:
        job = start(client_of(server), **LONG)
        wait_for(client_of(server), job, "running")
        server.process.kill()
        server.process.wait()
        db = sqlite3.connect(data_dir(server) / "couplet.db", isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        server.start()
        wait_until(lambda: "jobs not queued again" in server.output())
        db.execute("COMMIT")
        db.close()
        wait_for(client_of(server), job, "succeeded")
        stop_and_look(server)


def test_kill_9_loses_nothing(nano):
    """The server, twice; the trainer, once; then a server that is told to stop. The weights are those of a run that was left alone."""
    long = {**LONG, "couplet": {**LONG["couplet"], "max_steps": 240, "n_evals": 8, "n_checkpoints": 8}}  # a checkpoint every 30 steps
    with Server("--model", str(nano), "--lease-seconds", "3") as server, client_of(server) as client:
        undisturbed = start(client, **long)
        wait_for(client, undisturbed, "succeeded")
        reference, n_models = weights(server, undisturbed), len(list((data_dir(server) / "models").iterdir()))
        job = start(client, **long)
        for step in (20, 50):
            wait_for_step(client, job, step)
            pid = trainer_pid(server, job)
            server.process.kill()
            server.process.wait()
            wait_until(lambda: not alive(pid))
            server.start()
        wait_for_step(client, job, 80)
        pid = trainer_pid(server, job)
        os.killpg(pid, signal.SIGKILL)
        wait_until(lambda: alive(trainer_pid(server, job)) and trainer_pid(server, job) != pid)
        wait_for_step(client, job, 110)
        assert server.stop() == 0
        server.start()
        wait_for(client, job, "succeeded")
        assert weights(server, job) == reference
        steps = [e.data["step"] for e in all_events(client, job) if e.type == "metrics" and "grad_norm" in e.data]
        assert sorted(steps) == list(range(1, 241))
        assert n_models == 9 and len(list((data_dir(server) / "models").iterdir())) == 2 * n_models


@pytest.mark.skipif(not FAILPOINTS, reason="built without -Dfailpoints=true")
@pytest.mark.parametrize("point", ["runner.after_claim", "runner.after_spawn", "runner.before_publish_rename", "runner.after_publish_rename", "runner.before_finish",
                                   "runner.after_finish", "trainer.before_checkpoint_rename"])
def test_killed_at(nano, reference, point, monkeypatch, tmp_path):
    with Server("--model", str(nano)) as server, client_of(server) as client:
        server.stop()
        monkeypatch.setenv("COUPLET_FAILPOINT", point + "=kill")
        monkeypatch.setenv("COUPLET_FAILPOINT_ONCE", str(tmp_path / "once"))
        server.start()
        try:
            job = start(client, **LONG)
        except openai.APIConnectionError:  # claimed, and dead, before the answer was out
            job = None
        if point.startswith("runner."):
            assert server.process.wait(60) == -signal.SIGKILL
            server.start()
        job = job or client.fine_tuning.jobs.list().data[0].id
        wait_for(client, job, "succeeded")
        assert (tmp_path / "once").exists() and weights(server, job) == reference
        assert [m.id for m in client.models.list()].count(f"ft:nano:local::{job[6:14]}") == 1
        assert [e.message for e in all_events(client, job)].count("The job has successfully completed") == 1
        done = client.fine_tuning.jobs.retrieve(job)
        wait_until(lambda: len(list((data_dir(server) / "files").iterdir())) == 1 + len(done.result_files))


# How it misbehaves, how the job ends, why, how often it was started again.
MISDEEDS = [
    ("bomb", "failed", "out_of_memory", 0),
    ("segv", "failed", "trainer_crashed", 2),
    ("segv-once", "succeeded", None, 1),
    ("kill-once", "succeeded", None, 1),
    ("stop", "failed", "trainer_stalled", 2),
    ("silent", "failed", "trainer_stalled", 2),
    ("mute", "failed", "trainer_failed", 2),
    ("quit", "failed", "trainer_failed", 2),
    ("error", "failed", "invalid_training_file", 0),
    ("full", "failed", "no_space", 0),
    ("orphan", "succeeded", None, 0),
    ("garbage", "succeeded", None, 0),
]


@pytest.mark.parametrize("how, status, code, restarts", MISDEEDS)
def test_misbehaviour(nano, monkeypatch, how, status, code, restarts):
    monkeypatch.setenv("FAKE_TRAINER", how)
    stall = "1" if code == "trainer_stalled" else "120"  # a machine with much to do may keep the real program waiting for longer than one
    server = Server("--model", str(nano), *FAKE, "--train-stall-seconds", stall, "--train-memory-mb", "600", "--lease-seconds", "3")
    with client_of(server) as client:
        def answer():
            return client.completions.create(model="nano", prompt="The mill", max_tokens=8, temperature=0).choices[0].text

        before = answer()
        job = start(client, **QUICK)
        done = wait_for(client, job, "succeeded", "failed")
        assert (done.status, done.error.code if done.error else None) == (status, code), done.error
        assert kinds(all_events(client, job)).count("job_restarted") == restarts
        assert answer() == before
        assert "/" not in (done.error.message if done.error else "")
        assert (data_dir(server) / "jobs" / job / "stderr.log").stat().st_size <= 1 << 20
    stop_and_look(server)


def test_deaf_to_sigterm(nano, monkeypatch):
    monkeypatch.setenv("FAKE_TRAINER", "deaf")

    def deaf_pid(job):
        pid = wait_until(lambda: trainer_pid(server, job))
        wait_until(lambda: int(Path(f"/proc/{pid}/status").read_text().split("SigIgn:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)
        return pid

    server = Server("--model", str(nano), *FAKE, "--train-grace-seconds", "1")
    with client_of(server) as client:
        job = start(client, **QUICK)
        pid, begun = deaf_pid(job), time.monotonic()
        client.fine_tuning.jobs.cancel(job)
        wait_for(client, job, "cancelled")
        assert 0.9 < time.monotonic() - begun < 20 and not alive(pid)
        deaf_pid(start(client, **QUICK))
    stop_and_look(server)  # and a drain ends after the grace
    server = Server("--model", str(nano), *FAKE, "--train-grace-seconds", "3600")
    with client_of(server) as client:
        pid = deaf_pid(start(client, **QUICK))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.output())
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 128 + signal.SIGTERM and alive(pid), "the second signal ends at once"
        server.command[server.command.index("3600")] = "1"
        server.start()
        wait_until(lambda: not alive(pid))
    stop_and_look(server)


def test_a_lost_attempt_publishes_nothing(nano):
    server = Server("--model", str(nano), "--lease-seconds", "3")
    with client_of(server) as client:
        job = start(client, **ENDLESS)
        pid = wait_until(lambda: trainer_pid(server, job))
        with sqlite3.connect(data_dir(server) / "couplet.db", timeout=10) as db:
            db.execute("UPDATE jobs SET attempt = attempt + 1 WHERE id = ?", (job,))
        wait_until(lambda: not alive(pid))
        time.sleep(0.3)
        assert client.fine_tuning.jobs.retrieve(job).status == "running", "it is the other attempt's to end"
    stop_and_look(server)


@pytest.mark.alone
def test_training_gives_way(nano):
    """Without a latency target it stands still while a request is served, and goes on at once afterwards."""
    server = Server("--model", str(nano), "--serve-latency-ms", "0")

    def state(pid):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    with client_of(server) as client:
        job = start(client, **ENDLESS)
        pid = wait_until(lambda: trainer_pid(server, job))
        time.sleep(0.3)
        assert state(pid) != "T" and metric(server, "couplet:ft_yield_seconds_total") == 0
        end = time.monotonic() + 2

        def ask():  # three of these: something is always being served
            while time.monotonic() < end:
                client.completions.create(model="nano", prompt="The mill", max_tokens=200, temperature=0, extra_body={"ignore_eos": True})

        askers = [threading.Thread(target=ask) for _ in range(3)]
        for asker in askers:
            asker.start()
        states = []
        while time.monotonic() < end:
            time.sleep(0.01)
            states.append(state(pid))
        for asker in askers:
            asker.join()
        assert states.count("T") > 0.7 * len(states), states
        wait_until(lambda: state(pid) != "T", 5, 0.005)
        assert metric(server, "couplet:ft_yield_seconds_total") > 0.3
        client.fine_tuning.jobs.cancel(job)
        wait_for(client, job, "cancelled")
    stop_and_look(server)
