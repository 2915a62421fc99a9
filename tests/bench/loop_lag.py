#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How long the event loop is held up while large JSON bodies of unpleasant shapes are posted: prints JSON, judges nothing.

    loop_lag.py [--seconds N] [--clients N] [--threads N] [--streams N] [--realtime] [--model PATH]     (default: gpt2-nano, random weights)

For every shape, `clients` connections post bodies of 1 MiB without a pause while `streams` streams run; the quantiles are those of
couplet:loop_lag_seconds (bounds of its buckets) and, seen from outside, of GET /health. An idle row and a row of small bodies stand beside them: on
a busy machine part of the lag is the machine's. loop_wait_ms is how long the loop's thread was ready and got no processor, loop_cpu_ms how long it
ran, over the whole row. --realtime (root) makes a busy machine look idle: the loop gets one processor before everybody else, the server's other
threads the rest of them. (The loop alone before everybody would measure libuv: it spins while a thread that woke it is between two instructions.)
"""
import argparse
import http.client
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from client import Stream, connect, metrics, post, quantile_bound  # noqa: E402
from serving import Server, make_nano  # noqa: E402

MIB = 1 << 20


def body(prompt_json, model="nano"):
    return f'{{"model":"{model}","max_tokens":1,"prompt":{prompt_json}}}'.encode()


def fill(piece, size=MIB - 200):
    return ",".join([piece] * (size // (len(piece) + 1)))


def shapes(model):
    """name -> (path, body): each about 1 MiB, or asking for many."""
    deep = "[" * 60 + "]" * 60
    return {
        "small": ("/v1/completions", body('"hello"', model)),
        "{},{}": ("/v1/completions", body(f"[{fill('{}')}]", model)),
        "[],[]": ("/v1/completions", body(f"[{fill('[]')}]", model)),
        "60 deep": ("/v1/completions", body(f"[{fill(deep)}]", model)),
        "too deep": ("/v1/completions", body("[" * (MIB // 2) + "]" * (MIB // 2), model)),
        "many names": ("/v1/completions", ('{"model":"' + model + '",' + ",".join(f'"k{i}":0' for i in range(90_000)) + "}").encode()),
        "long strings": ("/v1/completions", body('"x","metadata":[' + fill('"' + "lorem ipsum " * 800 + '"') + "]", model)),
        "escapes": ("/v1/completions", body('"' + "\\u00e9" * (MIB // 6) + '"', model)),
        "one letter": ("/v1/completions", body('"' + "a" * MIB + '"', model)),
        "ids": ("/v1/completions", body(f"[{fill('7')}]", model)),
        # small requests with large answers
        "20 logprobs": ("/v1/completions", json.dumps({"model": model, "prompt": [[7] * 6000] * 4, "max_tokens": 0, "echo": True, "logprobs": 20}).encode()),
        "ids back": ("/v1/completions", json.dumps({"model": model, "prompt": [[7] * 8000] * 6, "max_tokens": 1, "n": 20, "return_token_ids": True}).encode()),
        "tokenize": ("/tokenize", json.dumps({"model": model, "prompt": "a" * MIB}).encode()),
        "tokenize prose": ("/tokenize", json.dumps({"model": model, "prompt": "The sea, the sky; and 1234 ships. " * 30_000}).encode()),
    }


def post_until(url, path, data, end, statuses):
    link = connect(url, 60)
    while time.perf_counter() < end:
        try:
            link.request("POST", path, data, {"Content-Type": "application/json"})
            reply = link.getresponse()
            reply.read()
            statuses[reply.status] = statuses.get(reply.status, 0) + 1
        except (http.client.HTTPException, OSError):  # refused before its body was read: the connection is the server's to close
            statuses["closed"] = statuses.get("closed", 0) + 1
            link.close()


def ask_health(url, end, times):
    link = connect(url, 60)
    while time.perf_counter() < end:
        began = time.perf_counter()
        link.request("GET", "/health")
        link.getresponse().read()
        times.append(time.perf_counter() - began)
        time.sleep(0.005)  # a probe's pace, not a load
    link.close()


def come_first(server, model):
    post(server.url, "/v1/completions", {"model": model, "prompt": "x", "max_tokens": 1})  # every thread exists from now on
    first, *others = sorted(os.sched_getaffinity(0))
    for task in map(int, os.listdir(f"/proc/{server.process.pid}/task")):
        is_loop = task == server.process.pid
        os.sched_setaffinity(task, {first} if is_loop or not others else set(others))
        os.sched_setscheduler(task, os.SCHED_RR, os.sched_param(2 if is_loop else 1))


def loop_times(pid):
    """(ms on a processor, ms ready and waiting for one) of the loop's thread so far."""
    cpu, wait, _ = open(f"/proc/{pid}/schedstat").read().split()
    return int(cpu) / 1e6, int(wait) / 1e6


def measure(server, model, path, data, o):
    url, loop = server.url, loop_times(server.process.pid)
    streams = [Stream(url, "/v1/completions", {"model": model, "prompt": "go", "max_tokens": o.stream_tokens, "ignore_eos": True}) for _ in range(o.streams)]
    before, end, statuses, times = metrics(url), time.perf_counter() + o.seconds, {}, []
    work = [threading.Thread(target=ask_health, args=(url, end, times))]
    if data:
        work += [threading.Thread(target=post_until, args=(url, path, data, end, statuses)) for _ in range(o.clients)]
    [t.start() for t in work]
    [t.join() for t in work]
    after = metrics(url)
    row_loop = [b - a for a, b in zip(loop, loop_times(server.process.pid))]
    for stream in streams:
        stream.link.close()
    times.sort()
    row = {f"lag_p{share:g}_ms": round(1000 * quantile_bound(before, after, "couplet:loop_lag_seconds", share / 100)[0], 3) for share in (50, 99, 99.9)}
    row["observations"] = quantile_bound(before, after, "couplet:loop_lag_seconds", 0.5)[1]
    row["health_p50_ms"], row["health_p99_ms"] = (round(1000 * times[int(share * (len(times) - 1))], 2) for share in (0.5, 0.99))
    row["loop_cpu_ms"], row["loop_wait_ms"] = (round(x, 1) for x in row_loop)
    return {**row, "body_bytes": len(data or b""), "answers": statuses}


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--seconds", type=float, default=4)
    a.add_argument("--clients", type=int, default=2)
    a.add_argument("--threads", default="1")
    a.add_argument("--streams", type=int, default=1, help="running beside, so that the lag is probed all the time")
    a.add_argument("--stream-tokens", type=int, default=16000)
    a.add_argument("--realtime", action="store_true")
    a.add_argument("--model", help="[NAME=]PATH; with a context of more than --stream-tokens")
    o = a.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = o.model or f"nano={make_nano(Path(folder) / 'nano', '--ctx', '16384')}"
        name = model.partition("=")[0] if "=" in model else Path(model).stem
        with Server("--model", model, "--threads", o.threads) as server:
            if o.realtime:
                come_first(server, name)
            report = {"idle": measure(server, name, None, None, o)}
            for shape, (path, data) in shapes(name).items():
                report[shape] = measure(server, name, path, data, o)
                print(json.dumps({shape: report[shape]}), file=sys.stderr, flush=True)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
