# SPDX-License-Identifier: MIT
"""Models as names that come and go: adapters beside their base, aliases, what jobs made, keys that see their own, removal under running streams.

What jobs made is put in place as a job leaves it: a directory below models/ and its row."""
import hashlib
import json
import shutil
import sqlite3
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from adapters import make_adapter
from client import Stream, metrics, post, whole_choices
from serving import Server, make_nano

MODULES = {"attn.c_attn": (128, 384), "attn.c_proj": (128, 128), "mlp.c_fc": (128, 512), "mlp.c_proj": (512, 128)}
LENGTH = 700


@pytest.fixture(scope="module")
def long_nano(tmp_path_factory):
    """A nano whose context holds a generation of a second and more."""
    return make_nano(tmp_path_factory.mktemp("long") / "nano", "--ctx", "4096")


def adapter(folder, base, seed):
    make_adapter(folder, {f"transformer.h.{n}.{name}": shape for n in range(4) for name, shape in MODULES.items()}, base=str(base), seed=seed)
    return folder


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, long_nano):
    """A whole model with other weights, and two adapters of long_nano."""
    folder = tmp_path_factory.mktemp("tuned")
    return {"full": make_nano(folder / "full", "--ctx", "4096", "--seed", "9"), "one": adapter(folder / "one", long_nano, 1),
            "two": adapter(folder / "two", long_nano, 2)}


@pytest.fixture
def restored(long_nano, tuned):
    """restored(models, keys=(), arguments...): a server that finds `models` ({id: (kind, owner's key or "", shared)}) in its data directory. keys:
    {name: scope}; their texts are the server's `keys`."""
    running = []

    def start(models, *arguments, keys=()):
        server = Server("--model", f"nano={long_nano}", *arguments)
        running.append(server)
        server.keys = {name: server.add_key(name, "--scope", scope) for name, scope in dict(keys).items()}
        server.stop()
        for n, (name, (kind, key, shared)) in enumerate(models.items()):
            owner = "key-" + hashlib.sha256(server.keys[key].encode()).hexdigest()[:12] if key else ""
            server.models = data(server) / "models"
            shutil.copytree(tuned[kind], server.models / f"model-{n}", dirs_exist_ok=True)
            with sqlite3.connect(data(server) / "couplet.db") as db:
                db.execute("INSERT INTO models (id, owner, dir, base, kind, step, bytes, checkpoint, shared, created_s) VALUES (?, ?, ?, ?, ?, 0, 0, 0, ?, ?)",
                           (name, owner, f"models/model-{n}", "nano", int(kind != "full"), shared, 1000 + n))
            db.close()
        server.start()
        return server

    yield start
    for server in running:
        assert server.stop() == 0, server.output()[-4000:]
        assert "Sanitizer" not in server.output() and "runtime error" not in server.output()
        server.__exit__()


def data(server):
    return Path(server.data.name) / "data"


def ask(server, method, path, body=None, key=None):
    headers = {"Authorization": f"Bearer {server.keys[key]}"} if key else {}
    return httpx.request(method, server.url + path, json=body, headers=headers, timeout=60)


def complete(server, model, key=None, prompt="abc", tokens=24, **fields):
    reply = ask(server, "POST", "/v1/completions", {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True,
                                                    "logprobs": 2, "return_token_ids": True, **fields}, key)
    return reply.json()["choices"][0] if reply.status_code == 200 else (reply.status_code, reply.json()["error"]["code"])


def ids(server, key=None):
    return [m["id"] for m in ask(server, "GET", "/v1/models", key=key).json()["data"]]


def together(*calls):
    results = [None] * len(calls)

    def run(n):
        results[n] = calls[n]()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(calls))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


# ---- adapters of one base ----

def test_adapters_beside_their_base(long_nano, tuned, start_server):
    server = start_server("--model", f"one={tuned['one']}", "--model", f"base={long_nano}", "--model", f"two={tuned['two']}", model=None)
    models = {m["id"]: m for m in ask(server, "GET", "/v1/models").json()["data"]}
    assert list(models) == ["one", "base", "two"] and [m["parent"] for m in models.values()] == ["base", None, "base"]
    assert models["one"]["couplet"]["bytes"] < models["base"]["couplet"]["bytes"] / 10 and models["one"]["couplet"]["adapter"]
    assert (metrics(server.url)['couplet:models_loaded{kind="full"}'], metrics(server.url)['couplet:models_loaded{kind="adapter"}']) == (1, 2)
    prompts = ["abc", "The sea", "x" * 70]
    calls = [lambda m=m, p=p: complete(server, m, prompt=p, tokens=40) for p in prompts for m in models]
    alone = [call() for call in calls]
    for _ in range(3):
        assert together(*calls) == alone  # in one batch, the prefix cache warm or not
    assert len({c["text"] for c in alone}) == len(alone)
    assert len({fingerprint(server, m) for m in models}) == 3


def test_a_further_adapter_costs_its_own_size(tmp_path, start_server):
    wide = make_nano(tmp_path / "wide", "--width", "256", "--layers", "6")  # 20 MB of weights
    names = [make_adapter(tmp_path / f"a{n}", {"transformer.h.0.attn.c_attn": (256, 768)}, base=str(wide), seed=n) and tmp_path / f"a{n}" for n in range(5)]
    memory = []
    for n in (1, 5):
        server = start_server(*[part for folder in names[:n] for part in ("--model", str(folder))], model=None)
        assert [m["id"] for m in ask(server, "GET", "/v1/models").json()["data"]] == [f"a{k}" for k in range(n)]  # the base is there, and hidden
        assert complete(server, "wide") == (404, "model_not_found") and complete(server, "a0")["text"]
        memory.append(metrics(server.url)["process_resident_memory_bytes"])
    assert memory[1] - memory[0] < 4e6, memory


# ---- aliases ----

def test_aliases(start_server, nano):
    server = start_server("--model", f"b={nano}")
    put = lambda name, model: ask(server, "PUT", f"/v1/models/{name}", {"model": model})
    made = put("my%3Aalias", "b")
    assert made.status_code == 200 and (made.json()["id"], made.json()["alias_of"], made.json()["root"]) == ("my:alias", "b", "b")
    assert ask(server, "GET", "/v1/models/my:alias").json() == made.json() and ids(server) == ["nano", "b", "my:alias"]
    assert complete(server, "my:alias") == complete(server, "b")
    assert put("second", "my:alias").json()["alias_of"] == "b"  # an alias of an alias is one of the model
    for name, model, want in [("nano", "b", (409, "name_taken")), ("x", "none", (404, "model_not_found")), ("%01", "b", (409, "name_taken")),
                              ("x" * 300, "b", (409, "name_taken")), ("x", "", (400, "value_out_of_range"))]:
        reply = put(name, model)
        assert (reply.status_code, reply.json()["error"]["code"]) == want
    assert ask(server, "PUT", "/v1/models/x", {}).json()["error"]["code"] == "missing_required_parameter"
    assert put("my:alias", "nano").json()["alias_of"] == "nano"
    server.stop()
    server.start()
    assert ids(server) == ["nano", "b", "my:alias", "second"] and ask(server, "GET", "/v1/models/my%3aalias").json()["alias_of"] == "nano"
    assert ask(server, "DELETE", "/v1/models/my%3Aalias").json() == {"id": "my:alias", "object": "model", "deleted": True}
    assert complete(server, "my:alias") == (404, "model_not_found") and ask(server, "DELETE", "/v1/models/my:alias").status_code == 404
    refused = ask(server, "DELETE", "/v1/models/nano")
    assert (refused.status_code, refused.json()["error"]["code"], refused.headers["x-should-retry"]) == (409, "model_is_served", "false")
    server.stop()
    server.start()
    assert ids(server) == ["nano", "b", "second"]


# ---- what jobs made ----

def test_two_keys(restored):
    server = restored({"ft:a": ("one", "anna", 0), "ft:b": ("two", "berta", 0), "ft:s": ("full", "berta", 1)},
                      keys={"anna": "train", "berta": "train", "carl": "infer", "root": "admin"})
    assert ids(server, "anna") == ["nano", "ft:a", "ft:s"] and ids(server, "berta") == ["nano", "ft:b", "ft:s"]
    assert ids(server, "carl") == ["nano", "ft:s"] and ids(server, "root") == ["nano", "ft:a", "ft:b", "ft:s"]
    cold = ask(server, "GET", "/v1/models/ft%3Aa", key="anna").json()
    assert (cold["meta"], cold["couplet"]["loaded"], cold["parent"]) == (None, False, "nano")
    for path, body in [("/v1/completions", {"prompt": "a"}), ("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]}), ("/v1/inspect", {"prompt": "a"})]:
        assert ask(server, "POST", path, {"model": "ft:b", **body}, "anna").json()["error"]["code"] == "model_not_found"
    assert ask(server, "GET", "/v1/models/ft:b", key="anna").status_code == 404 == ask(server, "DELETE", "/v1/models/ft:b", key="anna").status_code
    assert ask(server, "PUT", "/v1/models/x", {"model": "ft:b"}, "anna").status_code == 404
    assert ask(server, "DELETE", "/v1/models/ft:s", key="anna").json()["error"]["code"] == "forbidden"
    assert ask(server, "DELETE", "/v1/models/ft:s", key="carl").status_code == 403 == ask(server, "PUT", "/v1/models/x", {"model": "nano"}, "carl").status_code
    # loaded by the first that asks, whoever that is and whatever for
    assert ask(server, "GET", "/tokenizer_info?model=ft:s", key="carl").json()["vocab_size"] == 257
    assert ask(server, "POST", "/tokenize", {"model": "ft:b", "prompt": "ab"}, "berta").json()["count"] == 2
    assert ask(server, "POST", "/v1/inspect", {"model": "ft:a", "prompt": "ab"}, "anna").json()["tokens"]["texts"] == ["a", "b"]
    texts = {complete(server, m, "root")["text"] for m in ("nano", "ft:a", "ft:b", "ft:s")}
    assert len(texts) == 4 and ask(server, "GET", "/v1/models/ft:a", key="anna").json()["couplet"]["loaded"]
    assert ask(server, "PUT", "/v1/models/mine", {"model": "ft:a"}, "anna").status_code == 200
    assert ask(server, "PUT", "/v1/models/mine", {"model": "ft:b"}, "berta").json()["error"]["code"] == "name_taken"
    assert complete(server, "mine", "berta") == (404, "model_not_found")
    assert ask(server, "DELETE", "/v1/models/ft:b", key="root").json()["deleted"] and not (server.models / "model-1").exists()
    assert ask(server, "DELETE", "/v1/models/ft:a", key="anna").json()["deleted"] and ids(server, "anna") == ["nano", "ft:s"]
    shutil.rmtree(server.models / "model-2")
    server.stop()
    server.start()
    assert ids(server, "root") == ["nano"] and "model left out" in server.output()


def streams(server, model, count=8):
    """Streams under way, each with its first token out."""
    body = {"model": model, "max_tokens": LENGTH, "temperature": 0, "ignore_eos": True, "logprobs": 1}
    opened = [Stream(server.url, "/v1/completions", {**body, "prompt": f"{n}: "}) for n in range(count)]
    threads = [threading.Thread(target=s.read) for s in opened]
    for t in threads:
        t.start()
    end = time.monotonic() + 30
    while not all(s.lines for s in opened):
        assert time.monotonic() < end
        time.sleep(0.005)
    return opened, threads


def finish(opened, threads):
    for t in threads:
        t.join()
    assert all(s.done for s in opened)
    return [whole_choices(s.events(parse_float=str)) for s in opened]


@pytest.mark.parametrize("kind", ["full", "one"])
def test_removed_under_streams(restored, kind):
    server = restored({"ft:x": (kind, "", 0)})
    want = finish(*streams(server, "ft:x"))
    opened, threads = streams(server, "ft:x")
    removed = ask(server, "DELETE", "/v1/models/ft:x")
    assert removed.status_code == 200 and complete(server, "ft:x") == (404, "model_not_found") and ids(server) == ["nano"]
    assert not all(s.done for s in opened), "the streams were over before the removal: make them longer"
    assert finish(opened, threads) == want
    assert complete(server, "nano")["text"]


def test_few_stay_loaded(restored):
    server = restored({f"ft:{n}": ("full", "", 0) for n in range(3)}, "--max-loaded", "1")
    want = complete(server, "ft:0")
    opened, threads = streams(server, "ft:0", 4)
    calls = [lambda n=n: complete(server, f"ft:{n % 3}") for n in range(6)]
    assert together(*calls) == [want] * 6  # each waits for its turn, none is turned away
    assert metrics(server.url)['couplet:models_loaded{kind="full"}'] == 2
    finish(opened, threads)
    loaded = [m["couplet"]["loaded"] for m in ask(server, "GET", "/v1/models").json()["data"]]
    assert loaded[0] and sum(loaded) == 2


def test_a_base_in_use_stays(restored, tuned, tmp_path):
    server = restored({"ft:base": ("full", "", 0)})
    server.stop()
    shutil.copytree(tuned["one"], server.models / "model-1")
    config = server.models / "model-1" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(server.models / "model-0")}))
    with sqlite3.connect(data(server) / "couplet.db") as db:
        db.execute("INSERT INTO models (id, owner, dir, base, kind, step, bytes, checkpoint, shared, created_s) VALUES ('on', '', 'models/model-1', 'ft:base', 1, 0, 0, 0, 0, 2000)")
    db.close()
    server.start()
    assert len({complete(server, m)["text"] for m in ("nano", "ft:base", "on")}) == 3
    assert metrics(server.url)['couplet:models_loaded{kind="full"}'] == 2
    refused = ask(server, "DELETE", "/v1/models/ft:base")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "model_in_use") and complete(server, "ft:base")["text"]
    assert ask(server, "DELETE", "/v1/models/on").status_code == 200 == ask(server, "DELETE", "/v1/models/ft:base").status_code


# ---- a running job's live weights ----

OFTEN = "import os, sys; a = ['--live-every=0.3' if x.startswith('--live-every') else x for x in sys.argv[1:]]; os.execv(a[0], a)"


def fingerprint(server, model):
    return ask(server, "POST", "/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1}).json()["system_fingerprint"]


def keep_live(folder, kept, stop):
    """Copies every live adapter before the trainer removes it."""
    while not stop.is_set():
        for step in folder.glob("step-*"):
            if not (kept / step.name).exists():
                try:
                    shutil.copytree(step, kept / "copy")
                    (kept / "copy").rename(kept / step.name)
                except OSError:  # shutil.Error too: it went while it was copied
                    shutil.rmtree(kept / "copy", ignore_errors=True)
        time.sleep(0.01)


def test_hot_swap(long_nano, tmp_path, start_server):
    """Streams on NAME:live go on, to the last digit, with the weights they began with, while newer ones take their place several times."""
    server = start_server("--train-share-percent", "100", *[w for word in (sys.executable, "-c", OFTEN) for w in ("--train-launcher", word)], model=long_nano)
    text = httpx.post(server.url + "/v1/files", data={"purpose": "fine-tune"}, files={"file": ("t.txt", b"The sea, the sand and the moon. " * 400)}).json()["id"]
    settings = {"model": "nano", "training_file": text, "suffix": "swap", "hyperparameters": {"batch_size": 2, "learning_rate_multiplier": 5},
                "couplet": {"max_steps": 100000, "context_length": 64}}
    job = ask(server, "POST", "/v1/fine_tuning/jobs", settings).json()["id"]
    kept, stop = tmp_path / "kept", threading.Event()
    kept.mkdir()
    keeper = threading.Thread(target=keep_live, args=(data(server) / "jobs" / job / "out" / "live", kept, stop))
    keeper.start()
    try:
        end = time.monotonic() + 60
        while not (live := [name for name in ids(server) if name.endswith(":live")]):
            assert time.monotonic() < end, server.output()[-2000:]
            time.sleep(0.02)
        overlapped = False
        while not overlapped and time.monotonic() < end + 60:  # until newer weights come while the streams run
            first, old = streams(server, live[0], 4), fingerprint(server, live[0])
            while not (all(s.done for s in first[0]) or overlapped):
                overlapped = fingerprint(server, live[0]) != old
        second = streams(server, live[0], 4)  # of the newer weights, beside those of the older
        assert overlapped
        answers = [(s.events(parse_float=str)[0][1]["system_fingerprint"], choice, n)
                   for r in (first, second) for n, (s, choice) in enumerate(zip(r[0], finish(*r)))]
    finally:
        stop.set()
        keeper.join()
        ask(server, "POST", f"/v1/fine_tuning/jobs/{job}/cancel")
    assert len({print_ for print_, _, _ in answers}) >= 2
    beside = start_server(*[part for folder in kept.iterdir() for part in ("--model", f"{folder.name}={folder}")], "--model", f"nano={long_nano}", model=None)
    by_print = {fingerprint(beside, folder.name): folder.name for folder in kept.iterdir()}
    for print_, choice, n in answers:
        body = {"model": by_print[print_], "prompt": f"{n}: ", "max_tokens": LENGTH, "temperature": 0, "ignore_eos": True, "logprobs": 1}
        assert post(beside.url, "/v1/completions", body, parse_float=str)["choices"] == choice
