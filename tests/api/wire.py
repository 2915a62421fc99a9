# SPDX-License-Identifier: MIT
"""HTTP/1.1 by hand, for what no decent client would send, and looking at a server from outside. Standard library only."""
import json
import re
import socket
import time
import urllib.request


def wait_until(condition, seconds=60, what="condition"):
    """Polls until condition() is true, and returns its value; fails after `seconds`, which are many: who waits for what comes loses none."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.005)


def connect(server, timeout=60, receive_buffer=None):
    s = socket.socket()
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    s.settimeout(timeout)
    s.connect(("127.0.0.1", server.port))
    return s


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def error(self):
        return self.json()["error"]

    def __repr__(self):
        return f"<{self.status} {self.body[:120]!r}>"


def parse(data, head=False):
    """(answer, rest), or None while the answer is not whole. Bodies by Content-Length or chunks; without either up to the end."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    lines = data[:end].decode("latin-1").split("\r\n")
    status = int(lines[0].split()[1])
    headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
    rest = data[end + 4 :]
    if head or status in (204, 304) or status < 200:
        return Answer(status, headers, b""), rest
    if "content-length" in headers:
        n = int(headers["content-length"])
        return (Answer(status, headers, rest[:n]), rest[n:]) if len(rest) >= n else None
    if headers.get("transfer-encoding") != "chunked":
        return Answer(status, headers, rest), b""
    body = b""
    while True:
        size, found, rest = rest.partition(b"\r\n")
        if not found:
            return None
        n = int(size, 16)
        if len(rest) < n + 2:
            return None
        body, rest = body + rest[:n], rest[n + 2 :]
        if n == 0:
            return Answer(status, headers, body), rest


def read_answer(s, data=b"", head=False):
    """One answer from a connection that stays open: (answer, bytes that came behind it)."""
    while True:
        done = parse(data, head)
        if done:
            return done
        more = s.recv(65536)
        assert more, f"closed in the middle of an answer: {data[:200]!r}"
        data += more


def read_to_end(s):
    """Everything until the server closes. A reset after the answer counts as the end."""
    data = b""
    while True:
        try:
            more = s.recv(65536)
        except ConnectionResetError:
            return data
        if not more:
            return data
        data += more


def answers_until_close(server, request, timeout=20):
    """Sends bytes and returns all answers until the server closes; fails when it does not."""
    with connect(server, timeout) as s:
        try:
            s.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass
        data = read_to_end(s)
    answers = []
    while data:
        done = parse(data)
        assert done, f"cut answer: {data[:200]!r}"
        answers.append(done[0])
        data = done[1]
    return answers


def request_bytes(method, path, headers=(), body=b"", host="localhost"):
    lines = [f"{method} {path} HTTP/1.1"] + ([f"Host: {host}"] if host is not None else []) + list(headers)
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def ask(server, method, path, headers=(), body=b"", host="localhost"):
    """One request on a connection of its own."""
    with connect(server) as s:
        s.sendall(request_bytes(method, path, headers, body, host))
        return read_answer(s, head=method == "HEAD")[0]


def completion(**fields):
    """A POST of /v1/completions for the model "nano"."""
    body = json.dumps({"model": "nano", "prompt": "Hello", "max_tokens": 4, "temperature": 0, **fields}).encode()
    return request_bytes("POST", "/v1/completions", ["Content-Type: application/json"], body)


def metrics(server):
    """Every sample of /metrics: name with labels -> value."""
    with urllib.request.urlopen(server.url + "/metrics", timeout=60) as reply:
        text = reply.read().decode()
    return {m[1]: float(m[2]) for m in re.finditer(r"^([a-zA-Z_:][^ ]*) (\S+)$", text, re.M)}
