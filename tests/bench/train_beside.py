#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What a training job costs those who are being served, and what they cost it: prints JSON, judges nothing.

    train_beside.py --model PATH [--streams 8] [--seconds 20] [--rounds 3] [--data FILE.jsonl] [SERVE OPTIONS...]

Interleaved in every round, on one server: streams alone (the job is paused), streams beside the job, the job alone. Ratios are of the same round,
so that a machine's moods fall on both sides. Streams are greedy and decode without end; the first seconds of a phase do not count.
"""
import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from serving import Server  # noqa: E402

SETTLE_S = 3


def call(server, path, body=None, method=None, headers=None):
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data=data, method=method, headers={"Content-Type": "application/json", **(headers or {})})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def upload(server, path):
    edge = "couplet-bench-boundary"
    body = (f'--{edge}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--{edge}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="{path.name}"\r\n\r\n').encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
    return call(server, "/v1/files", body, headers={"Content-Type": f"multipart/form-data; boundary={edge}"})["id"]


def stream(server, model, number, began, end, gaps, counts):
    """Tokens between `began` and `end`, and the time between two of them."""
    while time.perf_counter() < end:
        body = {"model": model, "prompt": f"Story {number}. Once upon a time", "max_tokens": 400, "temperature": 0, "stream": True, "ignore_eos": True}
        request = urllib.request.Request(server.url + "/v1/completions", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as reply:
            last = None
            for line in reply:
                now = time.perf_counter()
                if now > end:
                    return
                if not line.startswith(b"data: {"):
                    continue
                if now > began:
                    counts[number] += 1
                    if last is not None:
                        gaps.append(now - last)
                last = now


def streams(server, model, n, seconds):
    gaps, counts = [], [0] * n
    began = time.perf_counter() + SETTLE_S
    threads = [threading.Thread(target=stream, args=(server, model, i, began, began + seconds, gaps, counts)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    gaps.sort()
    return {"tokens_per_second": sum(counts) / seconds, "p50_ms": 1e3 * gaps[len(gaps) // 2], "p99_ms": 1e3 * gaps[len(gaps) * 99 // 100]}


def job_wait(server, job, *wanted):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = call(server, f"/v1/fine_tuning/jobs/{job}")
        if found["status"] in wanted:
            return
        assert found["status"] not in ("failed", "cancelled", "succeeded"), found
        time.sleep(0.2)
    raise TimeoutError(f"the job did not become {wanted}")


def steps(server, job, seconds):
    time.sleep(SETTLE_S)
    began, first = time.perf_counter(), call(server, f"/v1/fine_tuning/jobs/{job}")["couplet"]["step"]
    time.sleep(seconds)
    return (call(server, f"/v1/fine_tuning/jobs/{job}")["couplet"]["step"] - first) / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data")
    options, serve = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder, Server("--model", f"base={options.model}", *serve) as server:
        data = Path(options.data) if options.data else Path(folder) / "rows.jsonl"
        if not options.data:
            data.write_text("".join(json.dumps({"prompt": f"Count from {i}:", "completion": " " + " ".join(str(i + k) for k in range(20))}) + "\n"
                                    for i in range(200)))
        body = {"model": "base", "training_file": upload(server, data), "hyperparameters": {"batch_size": 2},
                "couplet": {"max_steps": 100000, "excess_length": "truncate", "context_length": 128}}
        job = call(server, "/v1/fine_tuning/jobs", body)["id"]
        rounds = []
        for _ in range(options.rounds):
            call(server, f"/v1/fine_tuning/jobs/{job}/pause", {})
            job_wait(server, job, "paused")
            alone = streams(server, "base", options.streams, options.seconds)
            call(server, f"/v1/fine_tuning/jobs/{job}/resume", {})
            job_wait(server, job, "running")
            free = steps(server, job, options.seconds)
            beside = streams(server, "base", options.streams, options.seconds)
            after = steps(server, job, options.seconds)
            rounds.append({"streams_alone": alone, "streams_beside": beside, "throughput_ratio": beside["tokens_per_second"] / alone["tokens_per_second"],
                           "p99_ratio": beside["p99_ms"] / alone["p99_ms"], "steps_per_second_before": free, "steps_per_second_after": after,
                           "back_to": after / free if free else None})
            print(json.dumps(rounds[-1]), flush=True)
        call(server, f"/v1/fine_tuning/jobs/{job}/cancel", {})
        print(json.dumps({"median": {k: statistics.median(r[k] for r in rounds) for k in ("throughput_ratio", "p99_ratio", "back_to")}}))


if __name__ == "__main__":
    main()
