# SPDX-License-Identifier: MIT
"""The life of connections, requests and the process: clients that leave, dawdle or flood; drain; keys; who may ask. Nothing here sleeps
for luck: every wait polls for what it waits for, with a deadline."""
import gzip
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from serving import COUPLET, ROOT
from wire import ask, completion, connect, metrics, parse, read_answer, read_to_end, request_bytes, wait_until

LONG = 16000  # tokens: seconds of work for this model


@pytest.fixture(scope="session")
def long_nano(tmp_path_factory):
    """A nano whose context holds a generation of many seconds."""
    folder = tmp_path_factory.mktemp("long") / "nano"
    subprocess.run([sys.executable, str(ROOT / "tests" / "tools" / "make_nano.py"), "--vocab", "257", "--ctx", "16384", str(folder)], check=True)
    return folder


@pytest.fixture
def long_server(start_server, long_nano):
    return start_server(model=long_nano)


def reset(s):
    """Closes with RST instead of FIN."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def live(server):
    m = metrics(server)
    return m["couplet:num_requests_running"] + m["couplet:num_requests_waiting"]


def quiet(server):
    """Nothing is left of any request but the one that asks."""
    m = metrics(server)
    rest = ["num_requests_running", "num_requests_waiting", "http_body_bytes"]
    return not any(m[f"couplet:{k}"] for k in rest) and m["couplet:http_requests_in_flight"] == 1 and m["couplet:http_connections"] == 1


def stream_events(data):
    return [line[6:] for line in data.decode().split("\n") if line.startswith("data: ")]


# ---- clients that leave ----

PHASES = {
    "stream": dict(stream=True, max_tokens=LONG),
    "whole": dict(max_tokens=LONG),
    "many": dict(max_tokens=LONG, n=8, temperature=1, stream=True),
    "prefill": dict(prompt=[1, 2, 3, 4] * 4000, max_tokens=1),
}


@pytest.mark.parametrize("close", [socket.socket.close, reset], ids=["fin", "rst"])
@pytest.mark.parametrize("phase", PHASES)
def test_leaving_frees_the_slot(long_server, phase, close):
    s = connect(long_server)
    s.sendall(completion(**{"ignore_eos": True, **PHASES[phase]}))
    wait_until(lambda: live(long_server), what="running")
    close(s)
    begin = time.monotonic()
    wait_until(lambda: not live(long_server), what="slot free")
    print(f"{phase}: free after {1000 * (time.monotonic() - begin):.1f} ms")
    wait_until(lambda: quiet(long_server), what="quiet")
    m = metrics(long_server)
    assert m["couplet:client_disconnects_total"] == 1
    assert m["couplet:cancel_seconds_count"] >= 1
    assert m['couplet:cancel_seconds_bucket{le="2.5"}'] == m["couplet:cancel_seconds_count"]  # one step of a sanitizer build; release: ms


def test_leaving_the_queue(start_server, long_nano):
    server = start_server("--max-running", "1", model=long_nano)
    first, queued = connect(server), connect(server)
    first.sendall(completion(stream=True, max_tokens=LONG, ignore_eos=True))
    wait_until(lambda: metrics(server)["couplet:num_requests_running"] == 1)
    queued.sendall(completion(max_tokens=LONG))
    wait_until(lambda: metrics(server)["couplet:num_requests_waiting"] == 1)
    queued.close()
    wait_until(lambda: metrics(server)["couplet:num_requests_waiting"] == 0)
    assert metrics(server)["couplet:num_requests_running"] == 1
    first.close()
    wait_until(lambda: quiet(server))
    assert metrics(server)["couplet:client_disconnects_total"] == 2


def test_half_close_counts_as_leaving(long_server):
    with connect(long_server) as s:
        s.sendall(completion(max_tokens=LONG, ignore_eos=True))
        wait_until(lambda: live(long_server))
        s.shutdown(socket.SHUT_WR)
        wait_until(lambda: not live(long_server))
    assert metrics(long_server)["couplet:client_disconnects_total"] == 1


def test_200_random_leavings_leave_nothing(long_server):
    rng = random.Random(7)
    wait_until(lambda: quiet(long_server))
    before = metrics(long_server)

    def visit():
        s = connect(long_server)
        kind = rng.choice(["stream", "whole", "many", "prefill", "half", "none"])
        data = {"half": completion()[:100], "none": b""}.get(kind) or completion(**{"ignore_eos": True, **PHASES.get(kind, {})})
        s.sendall(data)
        if kind == "stream" and rng.random() < 0.5:
            s.recv(1)
        return s

    for _ in range(25):
        open_ = [visit() for _ in range(8)]
        rng.shuffle(open_)
        for s in open_:
            reset(s) if rng.random() < 0.5 else s.close()
    wait_until(lambda: quiet(long_server), what="quiet after 200")
    after = metrics(long_server)
    assert after["process_open_fds"] <= before["process_open_fds"] + 1
    assert after["couplet:kv_cache_usage_perc"] <= before["couplet:kv_cache_usage_perc"] + 0.9
    assert ask(long_server, "GET", "/health").status == 200


def test_leaving_in_the_middle_of_a_body(server):
    with connect(server) as s:
        s.sendall(completion()[:-10])
        wait_until(lambda: metrics(server)["couplet:http_body_bytes"] > 0)
    wait_until(lambda: quiet(server))


def test_who_reads_is_not_cut(long_server):
    """A step with all its log-probabilities is more than may wait for a slow reader: it goes out while it is being written."""
    with connect(long_server, 60) as s:
        s.sendall(completion(prompt=[[7] * 6000] * 4, max_tokens=0, echo=True, logprobs=20, stream=True))
        data = bytearray()
        while not data.endswith(b"\r\n0\r\n\r\n"):  # the last chunk: who goes after [DONE] and before it has left
            more = s.recv(1 << 16)
            assert more, f"cut after {len(data)} bytes"
            data += more
    assert b"[DONE]" in data[-200:] and metrics(long_server)["couplet:client_disconnects_total"] == 0


# ---- clients that dawdle ----

def test_header_drip_is_cut_at_its_deadline(start_server):
    server = start_server("--header-seconds", "1")
    begin = time.monotonic()
    with connect(server) as s:
        s.setblocking(False)
        for byte in b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * 10_000:
            try:
                s.send(bytes([byte]))
                if s.recv(100):
                    break
            except BlockingIOError:
                time.sleep(0.02)  # the attack's own pace
            except (BrokenPipeError, ConnectionResetError):
                break
            assert time.monotonic() - begin < 30
    assert time.monotonic() - begin > 0.9


def test_second_request_has_a_deadline_too(start_server):
    server = start_server("--header-seconds", "1", "--stall-seconds", "1")
    with connect(server) as s:
        s.sendall(request_bytes("GET", "/health"))
        read_answer(s)
        begin = time.monotonic()
        s.sendall(b"GET /health HTTP/1.1\r\nHost:")
        data = read_to_end(s)
    assert time.monotonic() - begin < 8
    assert not data or parse(data)[0].status == 408


def test_slow_body_is_cut(start_server):
    server = start_server("--header-seconds", "1", "--body-bytes-per-second", "1000")
    begin = time.monotonic()
    with connect(server) as s:
        s.sendall(request_bytes("POST", "/v1/completions", ["Content-Type: application/json", "Content-Length: 100000"]))
        s.settimeout(0.05)
        while True:
            try:
                s.send(b" ")
                if not s.recv(100):
                    break
            except TimeoutError:
                assert time.monotonic() - begin < 30
            except (BrokenPipeError, ConnectionResetError):
                break
    assert time.monotonic() - begin > 0.9
    wait_until(lambda: quiet(server))


def test_idle_connection_is_closed(start_server):
    server = start_server("--stall-seconds", "1")
    with connect(server) as s:
        s.sendall(request_bytes("GET", "/health"))
        read_answer(s)
        begin = time.monotonic()
        assert s.recv(1) == b""
        assert 0.5 < time.monotonic() - begin < 8


def test_stalled_reader_is_cut_and_others_go_on(start_server, long_nano):
    server = start_server("--stall-seconds", "2", model=long_nano)
    with connect(server, receive_buffer=4096) as stalled:
        stalled.sendall(completion(stream=True, max_tokens=LONG, ignore_eos=True, logprobs=20, n=4, temperature=1))
        wait_until(lambda: live(server) == 4)
        with connect(server, 30) as good:
            good.sendall(completion(stream=True, max_tokens=50, ignore_eos=True))
            answer = read_answer(good)[0]
            assert stream_events(answer.body)[-1] == "[DONE]"
        wait_until(lambda: not live(server), what="stalled reader cut")
    wait_until(lambda: quiet(server))
    assert metrics(server)["process_resident_memory_bytes"] < 600e6


def test_ping_while_queued(start_server, long_nano):
    server = start_server("--max-running", "1", "--ping-seconds", "1", model=long_nano)
    with connect(server) as first, connect(server) as queued:
        first.sendall(completion(stream=True, max_tokens=LONG, ignore_eos=True))
        wait_until(lambda: metrics(server)["couplet:num_requests_running"] == 1)
        queued.sendall(completion(stream=True, max_tokens=1))
        data = b""
        while b":\n\n" not in data:
            more = queued.recv(4096)
            assert more and b"data:" not in data, "no ping before the first token"
            data += more


def test_idle_server_sleeps(server):
    """Idle, and with connections that say nothing: at most 2 % of a core over a second. Of a few seconds, as it may not have been idle for long."""
    idle = [connect(server) for _ in range(20)]

    def used_in_a_second():
        before = metrics(server)["process_cpu_seconds_total"]
        time.sleep(1)
        return metrics(server)["process_cpu_seconds_total"] - before

    wait_until(lambda: used_in_a_second() < 0.02, 10, what="a server that sleeps")
    for s in idle:
        s.close()


def test_waiting_streams_do_not_spin(start_server, long_nano):
    """64 streams wait in the queue: the loop's own share of the time stays small (the engine may use its core)."""
    server = start_server("--max-running", "1", "--threads", "1", model=long_nano)
    streams = [connect(server) for _ in range(65)]
    for s in streams:
        s.sendall(completion(stream=True, max_tokens=LONG, ignore_eos=True))
    wait_until(lambda: metrics(server)["couplet:num_requests_waiting"] == 64)
    loop_thread = f"/proc/{server.process.pid}/task/{server.process.pid}/stat"

    def ticks():
        fields = open(loop_thread).read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    begin, before = time.monotonic(), ticks()
    time.sleep(1)
    share = (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - begin)
    for s in streams:
        s.close()
    assert share < 0.5
    wait_until(lambda: quiet(server))


def test_more_connections_than_allowed(start_server):
    server = start_server("--max-connections", "16")
    crowd = [connect(server) for _ in range(60)]
    for s in crowd:
        s.close()
    assert wait_until(lambda: ask(server, "GET", "/health").status) == 200


def test_slow_crowd_does_not_disturb_a_stream(start_server, long_nano):
    server = start_server(model=long_nano)
    crowd = [connect(server) for _ in range(300)]
    for i, s in enumerate(crowd):
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n" + (b"Content-Type: application/json\r\nContent-Length: 90\r\n\r\n{" if i % 2 else b"X-A: "))
    with connect(server, 30) as good:
        good.sendall(completion(stream=True, max_tokens=200, ignore_eos=True))
        assert stream_events(read_answer(good)[0].body)[-1] == "[DONE]"
    for s in crowd:
        s.close()
    wait_until(lambda: quiet(server))


# ---- the end ----

def test_drain_lets_streams_finish(start_server, long_nano):
    server = start_server("--drain-seconds", "600", model=long_nano)
    kept = connect(server, 60)
    kept.sendall(request_bytes("GET", "/health"))
    read_answer(kept)
    results = [None] * 8

    def read_stream(i):
        with connect(server, 60) as s:
            s.sendall(completion(stream=True, max_tokens=1500, ignore_eos=True, seed=i))
            results[i] = stream_events(read_answer(s)[0].body)

    readers = [threading.Thread(target=read_stream, args=(i,)) for i in range(8)]
    for t in readers:
        t.start()
    wait_until(lambda: live(server) == 8)
    # Busy when the signal comes, so that it is still there afterwards; its next request is then already on its way.
    kept.sendall(completion(max_tokens=1000, ignore_eos=True))
    wait_until(lambda: live(server) == 9)
    kept.sendall(request_bytes("GET", "/health") + completion())
    server.process.send_signal(signal.SIGTERM)

    def refused():
        try:
            connect(server).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            return False  # it stood in the queue of the listening socket when that closed: the next one is refused

    wait_until(refused, what="new connections refused")
    answer, rest = read_answer(kept)
    assert answer.json()["usage"]["completion_tokens"] == 1000
    assert answer.headers["connection"] == "close"
    kept.close()
    for t in readers:
        t.join(60)
    for events in results:
        assert events[-1] == "[DONE]"
        assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(60) == 0


def test_idle_server_ends_at_once(start_server):
    server = start_server()
    kept = connect(server)
    kept.sendall(request_bytes("GET", "/health"))
    read_answer(kept)
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 10  # and not the 30 s that a request would be given
    kept.close()


def test_drain_deadline_tells_the_streams(start_server, long_nano):
    server = start_server("--drain-seconds", "1", model=long_nano)
    with connect(server, 30) as s, connect(server, 30) as whole:
        s.sendall(completion(stream=True, max_tokens=LONG, ignore_eos=True, n=8, temperature=1))
        whole.sendall(completion(max_tokens=LONG, ignore_eos=True, n=8, temperature=1))
        wait_until(lambda: live(server) == 16)
        server.process.send_signal(signal.SIGTERM)
        last = json.loads(stream_events(read_answer(s)[0].body)[-1])
        assert last["error"]["code"] == "shutting_down"
        answer = read_answer(whole)[0]
        assert (answer.status, answer.error()["code"]) == (503, "shutting_down")
    assert server.process.wait(60) == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_at_once(start_server, long_nano, second):
    server = start_server(model=long_nano)
    with connect(server) as s:
        s.sendall(completion(stream=True, max_tokens=LONG, ignore_eos=True))
        wait_until(lambda: live(server))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.output())
        begin = time.monotonic()
        server.process.send_signal(second)
        assert server.process.wait(60) == 128 + second
        assert time.monotonic() - begin < 10


def test_health_while_draining(start_server, long_nano):
    server = start_server(model=long_nano)
    with connect(server, 30) as kept, connect(server) as stream:
        stream.sendall(completion(stream=True, max_tokens=LONG, ignore_eos=True))
        wait_until(lambda: live(server))
        # Half a request: the connection is in use, so that drain leaves it open.
        kept.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        wait_until(lambda: metrics(server)["couplet:http_connections"] == 3)
        wait_until(lambda: ask(server, "GET", "/health").status == 200)
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.output())
        kept.sendall(b"\r\n")
        answer = read_answer(kept)[0]
        assert (answer.status, answer.error()["code"], answer.headers["connection"]) == (503, "shutting_down", "close")
    assert server.process.wait(60) == 0


def test_port_in_use_is_said(server):
    other = subprocess.run([COUPLET, "serve", "--port", str(server.port)], capture_output=True, text=True, timeout=60)
    assert other.returncode == 1 and "cannot listen" in other.stderr


def test_missing_model_ends_with_one_sentence():
    other = subprocess.run([COUPLET, "serve", "--port", "0", "--model", "/nonexistent/model"], capture_output=True, text=True, timeout=60)
    assert other.returncode == 1 and "/nonexistent/model" in other.stderr


def test_without_a_model(start_server):
    server = start_server(model=None)
    assert ask(server, "GET", "/readyz").status == 200
    assert ask(server, "GET", "/v1/models").json()["data"] == []


# ---- who may ask ----

ALLOWED_HOSTS = ["localhost", "LOCALHOST", "localhost:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:65535"]
REFUSED_HOSTS = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8080", "localhost.", "127.0.0.2", "127.1",
                 "2130706433", "0.0.0.0", "[::ffff:127.0.0.1]", "::1", "[::1", "[::1]x", "localhost:", "localhost:x", "localhost:123456", "user@localhost",
                 "localhost,evil.example", "local host", "", " ", "xn--localhost", "127.0.0.1:80:80", "[localhost]", "http://localhost"]


@pytest.mark.parametrize("host", ALLOWED_HOSTS)
def test_allowed_hosts(server, host):
    assert ask(server, "GET", "/health", host=host).status == 200
    for scheme in ("http", "https"):
        assert ask(server, "GET", "/health", [f"Origin: {scheme}://{host}"]).status == 200


@pytest.mark.parametrize("host", REFUSED_HOSTS)
def test_refused_hosts(server, host):
    answer = ask(server, "GET", "/health", host=host)
    assert (answer.status, answer.error()["code"]) == (403, "host_not_allowed")
    answer = ask(server, "GET", "/health", [f"Origin: http://{host}"])
    assert (answer.status, answer.error()["code"]) == (403, "origin_not_allowed")


@pytest.mark.parametrize("origin", ["null", "file://", "ftp://localhost", "http:localhost", "http://localhost/", "http://localhost/path", "", "chrome-extension://abc"])
def test_refused_origins(server, origin):
    assert ask(server, "GET", "/health", [f"Origin: {origin}"]).status == 403


def test_foreign_host_is_refused_before_the_body_and_the_key(start_server):
    server = start_server()
    server.add_key("one")
    with connect(server) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        answer = read_answer(s)[0]
    assert (answer.status, answer.error()["code"]) == (403, "host_not_allowed")


def test_public_host(start_server):
    server = start_server("--public-host", "llm.example", "--public-host", "other.example")
    for host in ("llm.example", "LLM.example:443", "other.example", "localhost"):
        assert ask(server, "GET", "/health", host=host).status == 200
    assert ask(server, "GET", "/health", ["Origin: https://llm.example"]).status == 200
    assert ask(server, "GET", "/health", host="third.example").status == 403


def keys(server, *arguments):
    data = os.path.join(server.data.name, "data")
    return subprocess.run([COUPLET, "keys", *arguments, "--data-dir", data], capture_output=True, text=True, timeout=60)


def test_keys(start_server):
    server = start_server()

    def status(authorization=None, path="/v1/models"):
        return ask(server, "GET", path, [f"Authorization: {authorization}"] if authorization else []).status

    assert status() == 200 and status("Bearer anything") == 200  # without keys any is accepted
    made = keys(server, "add", "one")
    key = made.stdout.strip()
    assert made.returncode == 0 and key.startswith("sk-couplet-") and len(key) == 59
    wait_until(lambda: status() == 401, what="the running server noticed")
    assert status(f"Bearer {key}") == 200 and status(f"bearer {key}") == 200
    constant = {ask(server, "GET", "/v1/models", h).body for h in ([], ["Authorization: Bearer x"], [f"Authorization: Bearer {key[:-1]}"])}
    assert len(constant) == 1
    answer = ask(server, "GET", "/v1/models")
    assert answer.error()["code"] == "invalid_api_key" and answer.headers["www-authenticate"] == "Bearer"
    for wrong in (key, f"Basic {key}", f"Bearer {key}x", f"Bearer {key[:-1]}", f"Bearer {key.upper()}", "Bearer", "Bearer ", f"Bearer {key} {key}"):
        assert status(wrong) == 401
    for public in ("/health", "/livez", "/readyz", "/version", "/metrics", "/"):
        assert status(path=public) == 200
    stored = open(os.path.join(server.data.name, "data", "keys")).read()
    assert key not in stored and key[11:] not in stored
    assert os.stat(os.path.join(server.data.name, "data", "keys")).st_mode & 0o777 == 0o600
    assert key not in server.output()
    assert keys(server, "add", "one").returncode == 1  # the name is taken
    assert keys(server, "list").stdout.split()[-1] == "one"
    assert keys(server, "revoke", "one").returncode == 0 and keys(server, "revoke", "one").returncode == 1
    wait_until(lambda: status() == 200)


def test_keys_added_at_once_are_all_kept(tmp_path):
    commands = [subprocess.Popen([COUPLET, "keys", "add", f"k{i}", "--data-dir", str(tmp_path / "d")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for i in range(10)]
    assert [c.wait(60) for c in commands] == [0] * 10
    listed = subprocess.run([COUPLET, "keys", "list", "--data-dir", str(tmp_path / "d")], capture_output=True, text=True).stdout
    assert sorted(line.split()[-1] for line in listed.splitlines()) == sorted(f"k{i}" for i in range(10))
    for c in commands:
        c.stdout.close()


def test_damaged_key_file_keeps_the_old_keys(start_server):
    server = start_server()
    key = server.add_key("one")
    path = os.path.join(server.data.name, "data", "keys")
    with open(path, "w") as f:
        f.write("nonsense\n")
    wait_until(lambda: "keys not read" in server.output())
    assert ask(server, "GET", "/v1/models").status == 401
    assert ask(server, "GET", "/v1/models", [f"Authorization: Bearer {key}"]).status == 200


def test_other_addresses_need_a_key(start_server, tmp_path):
    arguments = [COUPLET, "serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", str(tmp_path)]
    refused = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0
    assert "couplet keys add" in refused.stderr and "couplet serve --host 0.0.0.0" in refused.stderr
    assert subprocess.run([COUPLET, "keys", "add", "a", "--data-dir", str(tmp_path)], capture_output=True).returncode == 0
    server = start_server("--host", "0.0.0.0", "--data-dir", str(tmp_path))
    assert ask(server, "GET", "/v1/models").status == 401
    assert subprocess.run([COUPLET, "keys", "revoke", "a", "--data-dir", str(tmp_path)], capture_output=True).returncode == 0
    wait_until(lambda: "keys=0" in server.output())
    assert ask(server, "GET", "/v1/models").status == 401  # the last key is gone: nobody, not everybody


# ---- configuration and page ----

def serve(*arguments, **env):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("COUPLET_")}
    return subprocess.run([COUPLET, "serve", *arguments], capture_output=True, text=True, timeout=60, env={**clean, **env})


def test_configuration_order(tmp_path):
    file = tmp_path / "c.conf"
    file.write_text("# settings\nport = 1\nmax_running = 2\nthreads=3\npublic_host = a\npublic_host = b\n")
    out = serve("-c", str(file), "--port", "9", "--print-config", COUPLET_MAX_RUNNING="5", COUPLET_PORT="7").stdout
    for line in ("port = 9", "max_running = 5", "threads = 3", "public_host = a", "public_host = b"):
        assert line in out.split("\n")
    again = tmp_path / "again.conf"
    again.write_text(out)
    assert serve("-c", str(again), "--print-config").stdout == out


@pytest.mark.parametrize("text,said", [("port = 70000", ":1"), ("\nport 80", ":2"), ("nonsense = 1", "nonsense"), ("port = 1\nport = 2", "twice"),
                                       ("weights = q3", "weights"), ("threads = -1", "threads"), ("host =", "host")])
def test_mistakes_in_the_file_are_named(tmp_path, text, said):
    file = tmp_path / "c.conf"
    file.write_text(text + "\n")
    result = serve("-c", str(file), "--check-config")
    assert result.returncode == 2 and said in result.stderr and "c.conf:" in result.stderr


def test_mistakes_elsewhere_are_named():
    assert "COUPLET_PORT" in serve("--check-config", COUPLET_PORT="x").stderr
    assert serve("--port", "x").returncode == 2 and serve("--nonsense").returncode == 2
    assert serve("--check-config").returncode == 0


def test_shipped_configuration_is_the_table():
    shipped = ROOT / "configs" / "couplet.conf"
    assert shipped.read_text() == serve("--print-config").stdout
    assert serve("-c", str(shipped), "--check-config").returncode == 0


def test_page(server):
    answer = ask(server, "GET", "/")
    assert answer.status == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "form-action 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    tag = answer.headers["etag"]
    assert ask(server, "GET", "/", [f"If-None-Match: {tag}"]).status == 304
    assert ask(server, "GET", "/app.js").headers["content-type"].startswith("text/javascript")
    assert ask(server, "GET", "/page.css").headers["content-type"].startswith("text/css")
    for hostile in ("/../server/main.c", "/%2e%2e/x", "/app.js/", "//app.js", "/.git/config", "/web/app.js"):
        assert ask(server, "GET", hostile).status == 404


# Accept-Encoding -> what the page comes in; brotli only if the build had it.
CODINGS = {"gzip": "gzip", "br;q=0, GZIP;q=0.5": "gzip", "*": "br", "gzip ; q=0.001": "gzip", "deflate, gzip": "gzip", "gzip;q=0": None, "gzip;q=0, *;q=0": None,
    "gzip; Q=0.000, identity": None, "*;q=0": None, "xgzip": None, ",": None, "": None, "br": "br", "gzip, deflate, br, zstd": "br", "b, brr": None}


@pytest.mark.parametrize("accepted", CODINGS)
def test_page_is_packed_for_whoever_takes_that(server, accepted):
    plain, answer = ask(server, "GET", "/app.js"), ask(server, "GET", "/app.js", [f"Accept-Encoding: {accepted}"])
    has_brotli = "content-encoding" in ask(server, "GET", "/app.js", ["Accept-Encoding: br"]).headers
    wanted = CODINGS[accepted]
    if wanted == "br" and not has_brotli:
        wanted = "gzip" if "gzip" in accepted or "*" in accepted else None
    assert answer.headers.get("content-encoding") == wanted and answer.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    if wanted == "gzip":
        assert gzip.decompress(answer.body) == plain.body
    assert len(answer.body) < len(plain.body) if wanted else answer.body == plain.body
    assert (answer.headers["etag"] != plain.headers["etag"]) == bool(wanted)
    for tag, held in ((answer.headers["etag"], True), (plain.headers["etag"], not wanted)):
        again = ask(server, "GET", "/app.js", [f"Accept-Encoding: {accepted}", f"If-None-Match: {tag}"])
        assert (again.status == 304 and not again.body) if held else again.status == 200
        assert again.headers["etag"] == answer.headers["etag"] and again.headers["vary"] == "Accept-Encoding"


def test_metrics_text_is_well_formed(server):
    text = ask(server, "GET", "/metrics").body.decode()
    types = {}
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            _, _, name, kind = line.split()
            assert name not in types
            types[name] = kind
        elif not line.startswith("#"):
            name = line.split("{")[0].split()[0]
            base = name.rsplit("_", 1)[0] if name.endswith(("_bucket", "_sum", "_count")) else name
            assert base in types or name in types, line
            float(line.rsplit(" ", 1)[1])
    assert types["couplet:loop_lag_seconds"] == "histogram"


@pytest.mark.parametrize("flags", [["--log-format", "json"], ["--json"]])
def test_log_holds_no_prompt(start_server, flags):
    server = start_server(*flags)
    with connect(server) as s:
        s.sendall(completion(prompt="CANARY-PROMPT", max_tokens=2))
        read_answer(s)
    ask(server, "GET", "/nothing?CANARY-QUERY")
    wait_until(lambda: server.output().count('"request"') >= 2 or "nothing" in server.output())
    assert "CANARY" not in server.output()
    for line in server.output().splitlines():
        json.loads(line)
