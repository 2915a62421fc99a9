# SPDX-License-Identifier: MIT
"""/v1/fine_tuning with the stock `openai` client and with raw requests. `idle`: a server whose trainer is a sleep, so that the first job runs for ever
and the others wait; `busy`: one that trains."""
import concurrent.futures
import contextlib
import io
import json
import os
import re
import socket
import sqlite3
import subprocess
import tarfile
import threading
import time

import httpx
import pytest
from serving import COUPLET, Server
from wire import metrics, wait_until

openai = pytest.importorskip("openai")
SLEEP = [word for argument in ("sh", "-c", "exec sleep 1000") for word in ("--train-launcher", argument)]
ROWS = "".join(json.dumps({"prompt": f"Question {i}: ", "completion": f"answer {i % 7}."}) + "\n" for i in range(24)).encode()


def client_of(server, key="none"):
    return openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=60)


def upload(client, name="rows.jsonl", data=ROWS):
    return client.files.create(file=(name, data), purpose="fine-tune").id


def wait_for(client, job, *statuses, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = client.fine_tuning.jobs.retrieve(job)
        if now.status in statuses:
            return now
        time.sleep(0.05)
    raise AssertionError(f"{job} is {now.status}, not {statuses}: {now}")


@contextlib.contextmanager
def serving(nano, *options):
    """A server that ends well, and of which no sanitizer had anything to say."""
    with Server("--model", str(nano), *options) as running:
        yield running
        assert running.stop() == 0 and not re.search("Sanitizer|runtime error", running.output()), running.output()[-4000:]


@pytest.fixture(scope="module")
def idle(nano):
    with serving(nano, *SLEEP) as running:
        yield running


@pytest.fixture(scope="module")
def client(idle):
    with client_of(idle) as c:
        blocker = c.fine_tuning.jobs.create(model="nano", training_file=upload(c))
        wait_for(c, blocker.id, "running")
        yield c


@pytest.fixture(scope="module")
def busy(nano):
    with serving(nano) as running:
        yield running


def test_create_and_look(client):
    file = upload(client)
    job = client.fine_tuning.jobs.create(
        model="nano", training_file=file, suffix="first", seed=42, metadata={"team": "red"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto", "batch_size": 4}}},
        extra_body={"couplet": {"validation_split": 0.25, "sample_prompts": ["Question 1: "]}})
    assert job.object == "fine_tuning.job" and job.id.startswith("ftjob-") and job.status == "queued"
    assert job.training_file == file and job.validation_file is None and job.seed == 42 and job.model == "nano"
    assert job.method.supervised.hyperparameters.n_epochs == 3 and job.hyperparameters.batch_size == 4
    assert job.fine_tuned_model is None and job.finished_at is None and job.error is None and job.result_files == [] and job.integrations == []
    assert job.metadata == {"team": "red"} and job.trained_tokens is None and job.estimated_finish is None and job.organization_id
    assert job.couplet["learning_rate"] == 2e-4 and job.couplet["training_type"]["type"] == "lora" and job.couplet["queue_place"] == 1
    assert "auto" not in job.model_dump_json()
    assert client.fine_tuning.jobs.retrieve(job.id) == job
    events = client.fine_tuning.jobs.list_events(job.id)
    assert [e.object for e in events.data] == ["fine_tuning.job.event"] and events.data[0].level == "info" and not events.has_more
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert checkpoints.data == [] and not checkpoints.has_more
    with pytest.raises(openai.ConflictError) as e:
        client.delete(f"/files/{file}", cast_to=object)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled" and e.value.status_code == 409


def test_pause_resume_cancel(client):
    job = client.fine_tuning.jobs.create(model="nano", training_file=upload(client)).id
    assert client.fine_tuning.jobs.pause(job).status == "paused"
    assert client.fine_tuning.jobs.pause(job).status == "paused"
    assert client.fine_tuning.jobs.resume(job).status == "queued"
    ended = client.fine_tuning.jobs.cancel(job)
    assert ended.status == "cancelled" and ended.finished_at
    assert client.fine_tuning.jobs.cancel(job).status == "cancelled"
    for act in (client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
        with pytest.raises(openai.ConflictError) as e:
            act(job)
        assert e.value.response.headers["x-should-retry"] == "false" and e.value.type == "conflict_error"
    assert [e.message for e in client.fine_tuning.jobs.list_events(job).data][0] == "The job has been cancelled."
    for act in ("retrieve", "cancel", "pause", "resume", "list_events"):
        with pytest.raises(openai.NotFoundError) as e:
            getattr(client.fine_tuning.jobs, act)("ftjob-0")
        assert e.value.code == "job_not_found"


def test_idempotency(client):
    file = upload(client)

    def make(key, **body):
        return client.fine_tuning.jobs.create(model="nano", training_file=file, extra_headers={"Idempotency-Key": key}, **body).id

    threads, ids = [], []
    for _ in range(8):
        threads.append(threading.Thread(target=lambda: ids.append(make("one", seed=1))))
        threads[-1].start()
    for t in threads:
        t.join()
    assert len(ids) == 8 and len(set(ids)) == 1
    assert make("two", seed=1) != ids[0]
    with pytest.raises(openai.ConflictError) as e:
        make("one", seed=2)
    assert e.value.code == "idempotency_error" and e.value.response.headers["x-should-retry"] == "false"


def test_a_repeated_request_is_answered_whatever_has_changed(nano):
    """Who never heard the answer asks again: by then the file may be gone and the key's places full."""
    with serving(nano, "--jobs-max-queued", "2", *SLEEP) as running, client_of(running) as c:
        wait_for(c, c.fine_tuning.jobs.create(model="nano", training_file=upload(c)).id, "running")
        request = {"model": "nano", "training_file": upload(c), "extra_headers": {"Idempotency-Key": "k"}}
        first = c.fine_tuning.jobs.create(**request)
        with pytest.raises(openai.RateLimitError):
            c.fine_tuning.jobs.create(model="nano", training_file=request["training_file"])
        assert c.fine_tuning.jobs.create(**request).id == first.id, "the places are full"
        c.fine_tuning.jobs.cancel(first.id)
        c.files.delete(request["training_file"])
        again = c.fine_tuning.jobs.create(**request)
        assert (again.id, again.status) == (first.id, "cancelled"), "the file is gone"


def test_one_request_many_times_at_once(nano):
    """All that ask with one key are answered with the one job, also when it took the last place; without a key one alone is."""
    with serving(nano, "--jobs-max-queued", "2", *SLEEP) as running, client_of(running) as c:
        wait_for(c, c.fine_tuning.jobs.create(model="nano", training_file=upload(c)).id, "running")
        file = upload(c)
        for i in range(12):
            headers = {"Idempotency-Key": f"round {i}"} if i % 2 else {}
            answers, all_here = [], threading.Barrier(4)

            def ask():
                with httpx.Client(timeout=30) as own:
                    own.get(running.url + "/healthz")
                    all_here.wait()
                    answers.append(own.post(running.url + "/v1/fine_tuning/jobs", json={"model": "nano", "training_file": file}, headers=headers))

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            ids = [a.json()["id"] for a in answers if a.status_code == 200]
            assert len(set(ids)) == 1 and len(ids) == (4 if headers else 1), [a.status_code for a in answers]
            c.fine_tuning.jobs.cancel(ids[0])


def test_lists(client):
    file = upload(client)
    made = [client.fine_tuning.jobs.create(model="nano", training_file=file, metadata={"list": "yes", "n": str(i)}).id for i in range(5)]
    page = client.fine_tuning.jobs.list(limit=2, metadata={"list": "yes"})
    assert [j.id for j in page.data] == made[:2:-1] and page.has_more
    assert [j.id for j in client.fine_tuning.jobs.list(limit=2, metadata={"list": "yes"})] == made[::-1]
    assert [j.id for j in client.fine_tuning.jobs.list(metadata={"list": "yes", "n": "3"}).data] == [made[3]]
    assert [j.id for j in client.fine_tuning.jobs.list(after=made[1], metadata={"list": "yes"}).data] == [made[0]]
    bare = client.fine_tuning.jobs.create(model="nano", training_file=file).id
    without = [j.id for j in client.fine_tuning.jobs.list(limit=100, extra_query={"metadata": "null"})]
    assert bare in without and not set(made) & set(without)
    places = [client.fine_tuning.jobs.retrieve(j).couplet["queue_place"] for j in made]
    assert places == sorted(places) and len(set(places)) == 5
    for query in ({"limit": 0}, {"limit": 101}, {"limit": "x"}, {"after": "ftjob-none"}):
        with pytest.raises(openai.BadRequestError):
            client.get("/fine_tuning/jobs", cast_to=object, options={"params": query})


def test_mistakes(client, idle):
    file = upload(client)
    good = {"model": "nano", "training_file": file}
    for change, status, param in (
            ({"training_file": "file-none"}, 404, "training_file"), ({"training_file": f"../files/{file}"}, 404, "training_file"),
            ({"training_file": "/etc/passwd"}, 404, "training_file"), ({"training_file": f"{file}/../{file}"}, 404, "training_file"),
            ({"training_file": "file-%2e%2e"}, 404, "training_file"), ({"training_file": file + "\0"}, 404, "training_file"),
            ({"training_file": 7}, 400, "training_file"), ({"validation_file": "couplet.db"}, 404, "validation_file"),
            ({"model": "../nano"}, 404, "model"), ({"model": str(idle.data.name)}, 404, "model"), ({"suffix": "../x"}, 400, "suffix"),
            ({"method": {"type": "dpo"}}, 400, "method.type"), ({"couplet": {"context_length": 257}}, 400, "couplet.context_length"),
            ({"metadata": {"k" * 65: "v"}}, 400, "metadata"), ({"metadata": {"k": "v" * 513}}, 400, "metadata"),
            ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, 400, "integrations"),
            ({"couplet": {"tokenizer": "/etc", "architecture": {"preset": "gpt2-nano"}}}, 400, "couplet.architecture")):
        r = httpx.post(idle.url + "/v1/fine_tuning/jobs", json={**good, **change})
        assert (r.status_code, r.json()["error"]["param"]) == (status, param), (change, r.text)
        assert "/" not in r.text and r.json()["error"]["code"]
    for path in ("../jobs", "%2e%2e%2fcouplet.db", "..%2f..%2fkeys", "%00", file, "ftjob-" + "x" * 5000, "'; DROP TABLE jobs; --", "*", "%ff%fe"):
        with socket.create_connection(("127.0.0.1", idle.port)) as s:
            s.sendall(f"GET /v1/fine_tuning/jobs/{path.replace(' ', '%20')}/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            status = int(s.makefile("rb").readline().split()[1])
        assert status in (400, 404, 414), (path, status)


def test_unknown_members_are_named(client, idle):
    r = httpx.post(idle.url + "/v1/fine_tuning/jobs", json={"model": "nano", "training_file": upload(client), "colour": 1, "couplet": {"size": 2}})
    assert r.status_code == 200 and r.headers["x-couplet-ignored"] == "colour, couplet.size"
    described = httpx.get(idle.url + "/openapi.json").json()
    assert {"get", "post"} == set(described["paths"]["/v1/fine_tuning/jobs"]) and "/v1/fine_tuning/jobs/{id}/export" in described["paths"]
    assert "couplet" in described["components"]["schemas"]["FineTuningJobRequest"]["properties"]


def sse(lines):
    """(id, data) of each event."""
    event = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            yield event.get("id"), event["data"]
            event = {}


def test_event_stream(client, idle):
    job = client.fine_tuning.jobs.create(model="nano", training_file=upload(client)).id
    url = f"{idle.url}/v1/fine_tuning/jobs/{job}/events?stream=true"
    with httpx.stream("GET", url, timeout=30) as r:
        assert r.status_code == 200 and r.headers["content-type"].startswith("text/event-stream")
        events = sse(r.iter_lines())
        first, created = next(events)
        assert json.loads(created)["message"].startswith("Created") and json.loads(created)["id"] == first
        client.fine_tuning.jobs.pause(job)
        assert "paused" in json.loads(next(events)[1])["message"]
        client.fine_tuning.jobs.cancel(job)
        assert "cancelled" in json.loads(next(events)[1])["message"]
        assert next(events) == (None, "[DONE]") and next(events, None) is None
    with httpx.stream("GET", url, headers={"Last-Event-ID": first}, timeout=30) as r:
        again = [data for _, data in sse(r.iter_lines())]
    assert len(again) == 3 and "paused" in again[0] and again[-1] == "[DONE]"
    with httpx.stream("GET", f"{url}&after={first}", timeout=30) as r:
        assert len(list(sse(r.iter_lines()))) == 3
    assert httpx.get(url.replace(job, "ftjob-none")).status_code == 404
    assert httpx.get(url, headers={"Last-Event-ID": "ftevent-none"}).status_code == 400


def test_drain_ends_streams(nano):
    with serving(nano, *SLEEP) as running:
        with client_of(running) as c:
            job = c.fine_tuning.jobs.create(model="nano", training_file=upload(c)).id
        with httpx.stream("GET", f"{running.url}/v1/fine_tuning/jobs/{job}/events?stream=true", timeout=30) as r:
            lines = sse(r.iter_lines())
            next(lines)
            begin = time.monotonic()
            running.process.terminate()
            assert "[DONE]" not in [data for _, data in lines]
        assert running.process.wait(60) == 0 and time.monotonic() - begin < 20  # and not the 30 s that a drain may last


def test_a_stream_ends_without_done_where_the_job_has_not(nano):
    """A store that fails under a stream; and a drain that begins while a stream is still being looked up behind a slow disk."""
    with serving(nano, *SLEEP) as running, client_of(running) as c:
        job = c.fine_tuning.jobs.create(model="nano", training_file=upload(c)).id
        wait_for(c, job, "running")
        url = f"{running.url}/v1/fine_tuning/jobs/{job}"
        with contextlib.closing(sqlite3.connect(os.path.join(running.data.name, "data", "couplet.db"), isolation_level=None, timeout=20)) as db:
            with httpx.stream("GET", url + "/events?stream=true", timeout=30) as r:
                lines = sse(r.iter_lines())
                next(lines)
                db.execute("ALTER TABLE events RENAME TO hidden")
                c.fine_tuning.jobs.pause(job)
                assert "[DONE]" not in [data for _, data in lines]
            db.execute("ALTER TABLE hidden RENAME TO events")
            db.execute("BEGIN IMMEDIATE")
            with concurrent.futures.ThreadPoolExecutor(2) as others:
                waits = others.submit(httpx.post, url + "/resume", timeout=60)
                wait_until(lambda: metrics(running)["couplet:http_requests_in_flight"] == 2, what="one that waits, beside the one who asks")
                late = others.submit(lambda: httpx.get(url + "/events?stream=true", timeout=60).text)
                wait_until(lambda: metrics(running)["couplet:http_requests_in_flight"] == 3, what="two that wait")
                running.process.terminate()
                wait_until(lambda: "draining" in running.output())
                db.execute("ROLLBACK")
                begin = time.monotonic()
                assert "[DONE]" not in late.result() and waits.result().status_code == 200
        assert running.process.wait(60) == 0 and time.monotonic() - begin < 20  # and not the 30 s that a drain may last


def add_key(server, name, scope):
    data = os.path.join(server.data.name, "data")
    out = subprocess.run([COUPLET, "keys", "add", name, "--scope", scope, "--data-dir", data], capture_output=True, text=True, check=True)
    return max(re.findall(r"[\w.-]+", out.stdout), key=len)


def test_thirty_keys(nano):
    """Two jobs of each of thirty keys: turns are taken, and nobody sees another's."""
    with serving(nano, *SLEEP, "--jobs-max-queued", "2") as running:
        keys = [add_key(running, f"key{i}", "train") for i in range(30)]
        infer, admin = add_key(running, "infer", "infer"), add_key(running, "admin", "admin")
        running.stop()
        running.start()
        clients = [client_of(running, k) for k in keys]
        with client_of(running, admin) as c:
            wait_for(c, c.fine_tuning.jobs.create(model="nano", training_file=upload(c)).id, "running")
        with client_of(running, infer) as c, pytest.raises(openai.PermissionDeniedError):
            c.fine_tuning.jobs.list()
        files, jobs = [upload(c) for c in clients], [[None, None] for _ in clients]

        def submit(i):
            for k in range(2):
                jobs[i][k] = clients[i].fine_tuning.jobs.create(model="nano", training_file=files[i]).id

        threads = [threading.Thread(target=submit, args=(i,)) for i in range(30)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        places = [[c.fine_tuning.jobs.retrieve(j).couplet["queue_place"] for j in jobs[i]] for i, c in enumerate(clients)]
        assert sorted(p[0] for p in places) == list(range(1, 31)) and sorted(p[1] for p in places) == list(range(31, 61))
        for i, c in enumerate(clients):
            assert {j.id for j in c.fine_tuning.jobs.list(limit=100).data} == set(jobs[i])
        other = clients[1].fine_tuning.jobs
        for act in (other.retrieve, other.cancel, other.pause, other.resume, other.list_events, other.checkpoints.list):
            with pytest.raises(openai.NotFoundError):
                act(jobs[0][0])
        for path in (f"/fine_tuning/jobs/{jobs[0][0]}/export", f"/fine_tuning/jobs/{jobs[0][0]}/events?stream=true"):
            with pytest.raises(openai.NotFoundError):
                clients[1].get(path, cast_to=object)
        with pytest.raises(openai.RateLimitError) as e:
            clients[0].fine_tuning.jobs.create(model="nano", training_file=files[0])
        assert "retry-after" in e.value.response.headers
        clients[0].fine_tuning.jobs.cancel(jobs[0][0])
        with pytest.raises(openai.NotFoundError) as e:
            clients[0].fine_tuning.jobs.create(model="nano", training_file=files[1])
        assert e.value.param == "training_file"
        with client_of(running, admin) as c:
            assert len(list(c.fine_tuning.jobs.list(limit=20))) == 61
        for c in clients:
            c.close()


def test_estimate(busy):
    with client_of(busy) as c:
        file, text = upload(c), upload(c, "text.txt", b"To be, or not to be, that is the question. " * 200)
        broken = upload(c, "broken.jsonl", ROWS + b'{"prompt": "x"}\n')
    for body in ({"model": "nano", "training_file": file}, {"model": "nano", "training_file": file, "couplet": {"training_type": {"type": "full"}}},
                 {"model": "new", "training_file": text, "couplet": {"tokenizer": "train", "vocab_size": 300,
                                                                     "architecture": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_ctx": 64}}}):
        answer = httpx.post(busy.url + "/v1/fine_tuning/estimate", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert said["object"] == "fine_tuning.estimate" and said["steps"] > 0 and said["train_tokens"] > 0 and said["peak_memory_bytes"] > 1 << 20
    r = httpx.post(busy.url + "/v1/fine_tuning/estimate", json={"model": "nano", "training_file": broken}, timeout=60)
    error = r.json()["error"]
    assert r.status_code == 400 and error["param"] == "training_file" and error["code"] == "invalid_training_file" and "line 25" in error["message"]
    assert busy.data.name not in r.text and "/" not in error["message"]
    assert httpx.post(busy.url + "/v1/fine_tuning/estimate", json={"model": "none", "training_file": file}).status_code == 404
    assert os.listdir(os.path.join(busy.data.name, "data", "tmp")) == []


def unpack(answer, into):
    assert answer.status_code == 200, answer.text
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        archive.extractall(into)
    (folder,) = into.iterdir()
    return folder


def test_export(busy, tmp_path):
    with client_of(busy) as c:
        file = upload(c)
        small = {"model": "nano", "training_file": file, "hyperparameters": {"n_epochs": 1}}
        lora = c.fine_tuning.jobs.create(**small).id
        full = c.fine_tuning.jobs.create(**small, extra_body={"couplet": {"training_type": {"type": "full"}}}).id
        for job in (lora, full):
            done = wait_for(c, job, "succeeded", "failed")
            assert done.status == "succeeded" and done.fine_tuned_model.startswith("ft:nano:local:") and done.trained_tokens > 0, done

    def export(job, query):
        return httpx.get(f"{busy.url}/v1/fine_tuning/jobs/{job}/export?{query}", timeout=120)

    peft = unpack(export(lora, "format=peft"), tmp_path / "peft")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {p.name for p in peft.iterdir()}
    answer = export(lora, "format=safetensors")
    assert float(answer.headers["couplet-logit-difference"]) < 1e-4 and lora in answer.headers["content-disposition"]
    for name, answer in (("merged", answer), ("full", export(full, "format=safetensors"))):
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {p.name for p in unpack(answer, tmp_path / name).iterdir()}
    for job in (lora, full):
        for kind, limit in (("f32", 1e-3), ("f16", 0.05), ("q8_0", 1)):
            answer = export(job, f"format=gguf&type={kind}")
            assert answer.status_code == 200 and answer.content[:4] == b"GGUF" and answer.headers["content-type"] == "application/octet-stream"
            assert float(answer.headers["couplet-logit-difference"]) < limit
    for job, query in ((full, "format=peft"), (lora, "format=zip"), (lora, "format=gguf&type=q4"), (lora, "format=peft&type=f16")):
        assert export(job, query).status_code == 400, query
    assert os.listdir(os.path.join(busy.data.name, "data", "tmp")) == []
