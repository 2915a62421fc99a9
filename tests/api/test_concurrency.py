# SPDX-License-Identifier: MIT
"""What a request gets does not depend on what else the server does: streams side by side against each alone, crowds that leave, full queues, the end.

COUPLET_ISA and --threads are varied; the numbers are compared as text, to the last digit. The same tests run against the sanitizer builds.
"""
import json
import os
import random
import signal
import socket
import struct
import threading

import pytest
from chat_model import make_chat_nano
from client import Stream, exact_float, metrics, post, whole_choices
from serving import Server, make_nano
from wire import ask, completion, connect, wait_until

ISAS = {"c": set(), "avx2": {"avx2", "fma", "f16c"}, "avx512": {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"}}
CPU = next((set(line.split()) for line in open("/proc/cpuinfo") if line.startswith("flags")), set())
MISSING = {isa for isa, needs in ISAS.items() if not needs <= CPU}


def isa_parameters():
    return [pytest.param(isa, marks=pytest.mark.skipif(isa in MISSING, reason=f"this processor lacks {isa}")) for isa in ISAS]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Arguments of a server with two models, so that the engine has two lanes to take in turn. $COUPLET_CONCURRENCY_MODEL: a chat model for both."""
    if "COUPLET_CONCURRENCY_MODEL" in os.environ:
        return [part for name in ("nano", "chat") for part in ("--model", f"{name}={os.environ['COUPLET_CONCURRENCY_MODEL']}")]
    folder = tmp_path_factory.mktemp("pair")
    return ["--model", f"nano={make_nano(folder / 'nano')}", "--model", f"chat={make_chat_nano(folder / 'chat')}"]


@pytest.fixture(scope="module")
def long_nano(tmp_path_factory):
    """A nano whose context holds a generation of a second and more."""
    return make_nano(tmp_path_factory.mktemp("long") / "nano", "--ctx", "4096")


# ---- the sixteen ----

def text(n, seed):
    letters = random.Random(seed)
    return "".join(letters.choice("etaoin shrdlu,.\n\u00e9\U0001f600") for _ in range(n))


def sixteen():
    """(path, body): every way of sampling, prompts from a letter to most of the context, some with equal beginnings."""
    shared = text(90, 0)
    plain = [
        dict(prompt="a", max_tokens=200),
        dict(prompt=shared + "one", max_tokens=90, temperature=1, seed=1, logprobs=5),
        dict(prompt=shared + "two", max_tokens=90, temperature=1, seed=1, logprobs=0, echo=True),
        dict(prompt=text(120, 1), max_tokens=60, temperature=0.7, top_k=20, seed=2, n=3),
        dict(prompt=text(40, 2), max_tokens=120, temperature=1.3, top_p=0.8, seed=3, logprobs=20),
        dict(prompt=text(30, 3), max_tokens=150, temperature=1, min_p=0.05, seed=4, presence_penalty=0.5, frequency_penalty=0.3),
        dict(prompt=text(60, 4), max_tokens=100, temperature=1, typical_p=0.7, seed=5, repetition_penalty=1.2, logprobs=3, echo=True),
        dict(prompt=text(20, 5), max_tokens=180, temperature=1, seed=6, stop=[*"etaoinshrdlucmf", "never there"], min_tokens=50, logprobs=2),
        dict(prompt=text(20, 5), max_tokens=180, temperature=1, seed=6, stop=["\ufffd\ufffd"], min_tokens=20),
        dict(prompt=[5, 250, 17] * 50, max_tokens=80, temperature=1, seed=7, stop_token_ids=list(range(40)), min_tokens=30),
        dict(prompt=["x", "yy", shared], max_tokens=50, temperature=1, seed=8, n=2, logprobs=1, echo=True),
        dict(prompt=[[1, 2, 3], [200] * 100], max_tokens=70, logprobs=4, logit_bias={"65": 3, "66": -100, "101": 2}),
        dict(prompt=text(150, 6), max_tokens=0, echo=True, logprobs=10),
    ]
    talks = [
        dict(messages=[{"role": "user", "content": text(50, 7)}], max_tokens=150, logprobs=True, top_logprobs=5, seed=9, temperature=1),
        dict(messages=[{"role": "system", "content": text(80, 8)}, {"role": "user", "content": "Hi"}], max_tokens=120, n=2, seed=10, temperature=0.9),
        dict(messages=[{"role": "user", "content": text(250, 9)}], max_tokens=60, stop=[*"etaoinshrdlucmfw"], min_tokens=25, temperature=1.1, seed=11, logprobs=True),
    ]
    common = {"temperature": 0, "ignore_eos": True, "return_token_ids": True}
    return ([("/v1/completions", {"model": "nano", **common, **body}) for body in plain] +
            [("/v1/chat/completions", {"model": "chat", **common, **body}) for body in talks])


REQUESTS = sixteen()
assert len(REQUESTS) == 16


def whole(server, path, body):
    """(choices, tokens counted) of an answer that is not streamed."""
    answer = post(server.url, path, body, parse_float=exact_float)
    return answer["choices"], (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])


def together(server, requests, streamed):
    """All at once: every request is sent before the first answer is read. [(choices, tokens counted)]"""
    if not streamed:
        results = [None] * len(requests)

        def run(i):
            results[i] = whole(server, *requests[i])

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(requests))]
        [t.start() for t in threads]
        [t.join() for t in threads]
        return results
    streams = [Stream(server.url, path, {**body, "stream_options": {"include_usage": True}}) for path, body in requests]
    results = []
    for stream in streams:
        events = stream.read().events(exact_float)
        assert stream.done
        usage = events[-1][1]["usage"]
        results.append((whole_choices(events), (usage["prompt_tokens"], usage["completion_tokens"])))
    return results


def expect_equal(got, wanted, what):
    assert len(got) == len(wanted)
    for (path, body), one, other in zip(REQUESTS, got, wanted):
        assert one == other, f"{what}: {path} {json.dumps(body)[:200]}"


@pytest.fixture(scope="module")
def alone(models):
    """alone(isa): the answers of the sixteen one after the other, of a fresh server with one thread, not streamed. Computed once an instruction set."""
    known = {}

    def answers(isa):
        if isa not in known:
            with isa_server(isa, *models, "--threads", "1") as server:
                cold = [whole(server, path, body) for path, body in REQUESTS]
                warm = [whole(server, path, body) for path, body in REQUESTS]
                assert metrics(server.url)["couplet:prefix_cache_hits_total"] > 1000
                expect_equal(warm, cold, "warm prefix cache")
                known[isa] = cold
                assert server.stop() == 0
        return known[isa]

    return answers


def isa_server(isa, *arguments):
    """A server forced to an instruction set, which it must confirm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COUPLET_ISA", isa)
        server = Server(*arguments)
    try:
        assert json.loads(ask(server, "GET", "/version").body)["isa"] == isa
    except BaseException:
        server.__exit__()
        raise
    return server


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("isa", isa_parameters())
def test_sixteen_streams_equal_each_alone(models, alone, isa, threads):
    wanted = alone(isa)
    # A small step cuts the prompts into other chunks than the solo runs had.
    with isa_server(isa, *models, "--threads", threads, "--step-rows", "48") as server:
        expect_equal(together(server, REQUESTS, streamed=True), wanted, "16 streams, cold")
        m = metrics(server.url)
        assert m["couplet:engine_rows_total"] > 3 * m["couplet:engine_steps_total"], "they did not run side by side"
        backwards = together(server, REQUESTS[::-1], streamed=True)[::-1]
        expect_equal(backwards, wanted, "16 streams, warm, other order")
        expect_equal(together(server, REQUESTS, streamed=False), wanted, "16 at once, not streamed")
        assert server.stop() == 0


@pytest.mark.skipif("avx512" in MISSING, reason="this processor lacks avx512")
def test_avx2_and_avx512_have_the_same_bits(alone):
    expect_equal(alone("avx512"), alone("avx2"), "avx512 against avx2")


def test_equal_when_the_cache_is_too_small_for_all(start_server, long_nano):
    """Sequences that are put back for want of cache, and computed again, say the same."""
    requests = [("/v1/completions", {"model": "nano", "prompt": text(60, i), "max_tokens": 160, "seed": i, "temperature": 1, "logprobs": 2}) for i in range(16)]
    wanted = together(start_server(model=long_nano), requests, streamed=False)
    small = start_server("--kv-cache-mb", "4", model=f"nano={long_nano}")
    got = together(small, requests, streamed=True)
    assert metrics(small.url)["couplet:num_preemptions_total"] > 0
    assert got == wanted
    assert small.stop() == 0


# ---- clients that leave ----

def reset(s):
    """Closes with RST instead of FIN."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def sanitized(server):
    return "san.so" in open(f"/proc/{server.process.pid}/maps").read()


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def resident_bytes(server):
    return int(open(f"/proc/{server.process.pid}/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")


def still(server):
    """Nobody runs, waits or is connected, but for the one who asks."""
    m = metrics(server.url)
    names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "http_body_bytes")
    return not any(m["couplet:" + name] for name in names) and m["couplet:http_connections"] == 1


LEAVERS = {
    "decode": dict(prompt="go", max_tokens=3500, stream=True, logprobs=2),
    "many": dict(prompt="go", max_tokens=1500, stream=True, n=3, temperature=1),
    "not streaming": dict(prompt="go", max_tokens=3500),
    "prefill": dict(max_tokens=1, stream=True),
    "scoring": dict(max_tokens=0, echo=True, logprobs=1),
}


def visit(server, rng):
    """Sends one request of a random kind and says when to leave: at once, after the first byte, or after a few."""
    kind = rng.choice([*LEAVERS, "half a request"])
    body = dict(LEAVERS.get(kind, {}), ignore_eos=True, seed=rng.randrange(1 << 30))
    if kind in ("prefill", "scoring"):
        body["prompt"] = [rng.randrange(256) for _ in range(3500)]
    data = completion(**body)
    s = connect(server)
    s.sendall(data[: rng.randrange(1, len(data))] if kind == "half a request" else data)
    return s, rng.randrange(3) if kind in ("decode", "many") else 0


def leave(visits, rng):
    for s, reads in visits:
        try:
            s.settimeout(0.05)  # one that is queued gets nothing to read: it leaves from the queue
            for _ in range(reads):
                s.recv(2000)
        except TimeoutError:
            pass
        reset(s) if rng.random() < 0.5 else s.close()


def crowd(server, rng, visitors, at_once=8):
    for _ in range(visitors // at_once):
        visits = [visit(server, rng) for _ in range(at_once)]
        rng.shuffle(visits)
        leave(visits, rng)
    wait_until(lambda: still(server), 60, what="nothing left of those who left")


def test_200_disconnects_leave_nothing(start_server, long_nano):
    # Three places for eight visitors: most leave the queue, some their prompt, some their text.
    server = start_server("--max-running", "3", "--kv-cache-mb", "48", model=long_nano)
    golden = dict(prompt="The golden answer", max_tokens=300, temperature=1, seed=5, logprobs=3, ignore_eos=True, echo=True)
    wanted = ask(server, "POST", "/v1/completions", ["Content-Type: application/json"], json.dumps({"model": "nano", **golden}).encode()).json()["choices"]
    rng = random.Random(20)
    crowd(server, rng, 200)  # the cache commits its memory, the allocator finds its size
    fds, memory, gone = descriptors(server), resident_bytes(server), metrics(server.url)["couplet:client_disconnects_total"]
    committed = metrics(server.url)["couplet:kv_cache_bytes"]
    witness = Stream(server.url, "/v1/completions", {"model": "nano", **golden})
    reader = threading.Thread(target=witness.read)
    reader.start()
    crowd(server, rng, 200)
    reader.join()
    assert witness.done and whole_choices(witness.events()) == wanted
    assert post(server.url, "/v1/completions", {"model": "nano", **golden})["choices"] == wanted
    wait_until(lambda: still(server), what="still")
    m = metrics(server.url)
    print(f"{m['couplet:client_disconnects_total'] - gone:.0f} disconnects noticed, cancel mean "
          f"{1000 * m['couplet:cancel_seconds_sum'] / m['couplet:cancel_seconds_count']:.2f} ms; resident {memory >> 20} -> {resident_bytes(server) >> 20} MiB, "
          f"descriptors {fds} -> {descriptors(server)}")
    assert m["couplet:client_disconnects_total"] - gone >= 100
    wait_until(lambda: descriptors(server) <= fds, what="descriptors as before")
    if not sanitized(server):  # those keep freed memory aside
        grown = [resident_bytes(server) - memory - (m["couplet:kv_cache_bytes"] - committed)]
        while grown[-1] > 8 << 20 and len(grown) < 4:  # what is lost is lost every time; how many were there at once is the machine's matter
            memory = resident_bytes(server)
            crowd(server, rng, 200)
            grown.append(resident_bytes(server) - memory)
        assert grown[-1] <= 8 << 20, grown
    assert server.stop() == 0  # under a sanitizer: no leak, no report


# ---- a full queue ----

def expect_full(server):
    answer = ask(server, "POST", "/v1/completions", ["Content-Type: application/json"], json.dumps({"model": "nano", "prompt": "x", "max_tokens": 1}).encode())
    assert answer.status == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    error = answer.error()
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("rate_limit_error", None, "rate_limit_exceeded") and error["message"]


def expect_recovery(server, sockets):
    rejected = metrics(server.url)["couplet:requests_rejected_total"]
    for s in sockets:
        s.close()
    wait_until(lambda: still(server), what="still after the crowd left")
    assert len(post(server.url, "/v1/completions", {"model": "nano", "prompt": "x", "max_tokens": 5, "ignore_eos": True, "return_token_ids": True})["choices"][0]["token_ids"]) == 5
    assert rejected >= 1 and metrics(server.url)["couplet:requests_rejected_total"] == rejected


def test_full_queue_small(start_server, long_nano):
    server = start_server("--max-running", "1", "--max-waiting", "2", model=long_nano)
    sockets = []
    for i, waiting in enumerate([0, 1, 2]):
        sockets.append(connect(server))
        sockets[-1].sendall(completion(max_tokens=4000, ignore_eos=True, seed=i, stream=True))
        wait_until(lambda n=waiting: (m := metrics(server.url))["couplet:num_requests_running"] == 1 and m["couplet:num_requests_waiting"] == n)
    expect_full(server)
    sockets.pop().close()
    wait_until(lambda: metrics(server.url)["couplet:num_requests_waiting"] == 1)
    sockets.append(connect(server))
    sockets[-1].sendall(completion(max_tokens=4000, ignore_eos=True, stream=True))
    wait_until(lambda: metrics(server.url)["couplet:num_requests_waiting"] == 2, what="the freed place is taken")
    expect_full(server)
    expect_recovery(server, sockets)


def test_288_sequences_fit_and_one_more_does_not(start_server, long_nano):
    server = start_server(model=long_nano)
    sockets = [connect(server), connect(server)]
    for s, running, waiting in zip(sockets, (32, 32), (112, 256)):
        s.sendall(completion(prompt=[[1]] * 144, max_tokens=3500, ignore_eos=True))
        wait_until(lambda r=running, w=waiting: (m := metrics(server.url))["couplet:num_requests_running"] == r and m["couplet:num_requests_waiting"] == w)
    expect_full(server)
    expect_recovery(server, sockets)


# ---- the end ----

def test_sigterm_lets_8_streams_finish(start_server, long_nano):
    server = start_server("--drain-seconds", "600", model=long_nano)
    bodies = [{"model": "nano", "prompt": "go", "max_tokens": 400, "ignore_eos": True, "temperature": 1, "seed": i, "return_token_ids": True} for i in range(8)]
    streams = [Stream(server.url, "/v1/completions", body) for body in bodies]
    wait_until(lambda: metrics(server.url)["couplet:num_requests_running"] == 8)
    server.process.send_signal(signal.SIGTERM)
    for stream in streams:
        choice, = whole_choices(stream.read().events())
        assert stream.done and choice["finish_reason"] == "length" and len(choice["token_ids"]) == 400
    assert server.process.wait(60) == 0
