#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""couplet beside a peer: the same GGUF file, the same number of threads, runs in turn, medians. Prints JSON with the ratios couplet / peer of pairs.

    compare.py --gguf FILE [--threads N] [--runs N] [--peer-url URL --peer-model NAME | --peer-python PYTHON] [--only prefill,decode,eight]

A run counts only if nobody else used the machine meanwhile: whoever loses a core in the middle of a step loses far more than its share, and a median
of such runs compares the neighbours. The rule looks at processor time alone, is the same for both, and the report says how many runs it put aside.

The peer is an OpenAI-compatible server that runs already, or llama.cpp's server out of the PyPI wheel `xllamacpp`, started here with the Python
that has it (default: this one). Both servers stay up; only one works at a time.

prefill   tokens/s of a fresh prompt of 512 tokens and one new token: prompt tokens / time to the first token
decode    tokens/s of one stream after its first token, 128 tokens
eight     eight streams at once, prompts of 64 fresh tokens, 128 new ones: all new tokens / wall time, and the median time to the first token
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
from client import Stream  # noqa: E402
from serving import Server, hold_port  # noqa: E402

LLAMA_CPP = """
import os, sys, threading, xllamacpp as x
p = x.CommonParams()
p.model.path, p.port, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
p.n_parallel, p.n_ctx = 8, 8 * 1024
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
p.hostnames = ["127.0.0.1"] if isinstance(p.hostnames, list) else "127.0.0.1"
server = x.Server(p)
print(server.listening_address, flush=True)
sys.stdin.read()
os._exit(0)
"""


class LlamaCpp:
    """The peer's process; ends with its standard input, so also when this program dies."""

    def __init__(self, python, gguf, threads):
        self.held = hold_port()
        port = self.held.getsockname()[1]
        self.url, self.model = f"http://127.0.0.1:{port}", "peer"
        self.process = subprocess.Popen([python, "-c", LLAMA_CPP, gguf, str(port), str(threads)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_ready(self.url + "/health", self.process)

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)


def wait_ready(url, process, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("the peer did not start")


def fresh_ids(n, rng):
    """Ids of ordinary tokens: fresh, so that no prefix cache knows them."""
    return [rng.randrange(1000, 20000) for _ in range(n)]


def run(peer, prompt, max_tokens):
    stream = Stream(peer["url"], "/v1/completions", {"model": peer["model"], "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
                                                     "stream_options": {"include_usage": True}})
    stream.owed = len(prompt), max_tokens
    return stream


def times(stream):
    """(seconds to the first token, to the last). A server that computed less than it was asked for has no time worth comparing."""
    events = stream.events()
    said = [at for at, event in events if event.get("choices")]
    usage = next((event["usage"] for _, event in reversed(events) if event.get("usage")), None)
    if not said or not stream.done or not usage:
        raise RuntimeError("the stream was cut, or told no usage")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    if (usage["prompt_tokens"], usage["completion_tokens"]) != stream.owed or cached > 8:
        raise RuntimeError(f"not the work asked for: {usage}, asked for {stream.owed}")
    return said[0] - stream.began, said[-1] - stream.began


def prefill(peer, rng):
    first, _ = times(run(peer, fresh_ids(512, rng), 1).read())
    return {"tokens_per_s": 512 / first}


def decode(peer, rng):
    first, last = times(run(peer, fresh_ids(8, rng), 128).read())
    return {"tokens_per_s": 127 / (last - first)}


def eight(peer, rng):
    began = time.perf_counter()
    streams = [run(peer, fresh_ids(64, rng), 128) for _ in range(8)]
    readers = [threading.Thread(target=s.read) for s in streams]
    [t.start() for t in readers]
    [t.join() for t in readers]
    wall = time.perf_counter() - began
    return {"tokens_per_s": 8 * 128 / wall, "ttft_s": statistics.median(times(s)[0] for s in streams)}


MEASURES = {"prefill": prefill, "decode": decode, "eight": eight}


CALM_CORES = 0.15  # of others, this program included


def processor_seconds(pid):
    """(everybody's, the server's) so far."""
    tick = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat") as f:
        everybody = [int(word) for word in f.readline().split()[1:9]]
    with open(f"/proc/{pid}/stat") as f:
        own = f.read().rsplit(")", 1)[1].split()
    return (sum(everybody) - everybody[3] - everybody[4]) / tick, (int(own[11]) + int(own[12])) / tick


def watched(peer, measure, rng):
    """(what was measured, whether the machine was calm)"""
    if not peer["pid"]:
        return measure(peer, rng), True
    before, began = processor_seconds(peer["pid"]), time.perf_counter()
    result = measure(peer, rng)
    after, wall = processor_seconds(peer["pid"]), time.perf_counter() - began
    others = ((after[0] - before[0]) - (after[1] - before[1])) / wall
    return result, others <= CALM_CORES


def spread(values):
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def compare(peers, measure, runs, rng):
    """Runs in turn until `runs` pairs were calm on both sides, or four times as many were tried."""
    calm, disturbed = [], 0
    for peer in peers.values():
        measure(peer, rng)  # warm
    for i in range(4 * runs):
        if len(calm) == runs:
            break
        pair = {name: watched(peers[name], measure, rng) for name in sorted(peers, reverse=i % 2 == 1)}
        if all(was_calm for _, was_calm in pair.values()):
            calm.append({name: result for name, (result, _) in pair.items()})
        else:
            disturbed += 1
    report = {"calm_pairs": len(calm), "disturbed_pairs": disturbed}
    if not calm:
        return report
    for name in peers:
        report[name] = {key: spread([pair[name][key] for pair in calm]) for key in calm[0][name]}
    report["ratio"] = {key: spread([pair["couplet"][key] / pair["peer"][key] for pair in calm]) for key in calm[0]["couplet"]}
    return report


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--gguf", required=True)
    a.add_argument("--threads", type=int, default=os.cpu_count())
    a.add_argument("--runs", type=int, default=5)
    a.add_argument("--only", default=",".join(MEASURES))
    a.add_argument("--weights", default="auto")
    a.add_argument("--peer-url")
    a.add_argument("--peer-model", default="peer")
    a.add_argument("--peer-python", default=sys.executable)
    a.add_argument("--seed", type=int, default=1)
    o = a.parse_args()
    rng = random.Random(o.seed)
    report = {"file": os.path.basename(o.gguf), "threads": o.threads, "runs": o.runs, "load_before": os.getloadavg()[0]}
    peer = None if o.peer_url else LlamaCpp(o.peer_python, o.gguf, o.threads)
    try:
        with Server("--model", f"m={o.gguf}", "--threads", str(o.threads), "--weights", o.weights) as server:
            peers = {"couplet": {"url": server.url, "model": "m", "pid": server.process.pid},
                     "peer": {"url": o.peer_url or peer.url, "model": o.peer_model, "pid": peer.process.pid if peer else None}}
            for name in o.only.split(","):
                report[name] = compare(peers, MEASURES[name], o.runs, rng)
    finally:
        if peer:
            peer.stop()
    report["load_after"] = os.getloadavg()[0]
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
