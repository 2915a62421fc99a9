# SPDX-License-Identifier: MIT
"""Hostile HTTP framing by raw sockets: exactly one answer, the right status, and a closed connection where the framing cannot be
trusted. The first eight are what libmicrohttpd 0.9.75 lets through by itself."""
import json
import time

import pytest
from wire import answers_until_close, ask, completion, connect, metrics, parse, read_answer, read_to_end, request_bytes

JSON = "Content-Type: application/json"
SMUGGLED = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(*headers, body=b"", path="/v1/completions", host="Host: localhost"):
    lines = [f"POST {path} HTTP/1.1"] + ([host] if host else []) + [JSON] + list(headers)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def get(*headers, path="/health", host="Host: localhost", version="HTTP/1.1"):
    lines = [f"GET {path} {version}"] + ([host] if host else []) + list(headers)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


REFUSED = {
    # what could smuggle a second request
    "two-content-lengths": (post("Content-Length: 3", "Content-Length: 40", body=b"{} " + SMUGGLED), 400),
    "two-equal-content-lengths": (post("Content-Length: 2", "Content-Length: 2", body=b"{}"), 400),
    "content-length-list": (post("Content-Length: 2, 2", body=b"{}"), 400),
    "length-and-chunked": (post("Content-Length: 6", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), 400),
    "chunked-and-length": (post("Transfer-Encoding: chunked", "Content-Length: 6", body=b"0\r\n\r\n" + SMUGGLED), 400),
    "xchunked": (post("Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED), 400),
    "gzip-chunked": (post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 400),
    "identity": (post("Transfer-Encoding: identity", body=SMUGGLED), 400),
    "two-codings": (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "two-hosts": (get("Host: evil.example"), 400),
    "two-equal-hosts": (get("Host: localhost"), 400),
    "length-2^64-1": (post("Content-Length: 18446744073709551615", body=SMUGGLED), 400),
    "length-2^64": (post("Content-Length: 18446744073709551616", body=b""), 413),
    "length-2^63": (post("Content-Length: 9223372036854775808", body=b""), 400),
    "length-negative": (post("Content-Length: -1", body=SMUGGLED), 400),
    "length-plus": (post("Content-Length: +5", body=SMUGGLED), 400),
    "length-hex": (post("Content-Length: 0x5", body=SMUGGLED), 400),
    "length-letters": (post("Content-Length: 5x", body=SMUGGLED), 400),
    "length-empty": (post("Content-Length:", body=SMUGGLED), 400),
    "chunk-size-negative": (post("Transfer-Encoding: chunked", body=b"-1\r\n" + SMUGGLED), 400),
    "chunk-size-letters": (post("Transfer-Encoding: chunked", body=b"zz\r\n" + SMUGGLED), 400),
    "chunk-size-overflow": (post("Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\n"), 413),
    "chunk-without-end": (post("Transfer-Encoding: chunked", body=b"2\r\n{}XX" + SMUGGLED), 400),
    # bytes that other parsers read differently
    "nul-in-value": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\0b\r\n\r\n", 400),
    "nul-ends-value": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\0\r\n\r\n", 400),
    "nul-in-host": (b"GET /health HTTP/1.1\r\nHost: localhost\0.evil.example\r\n\r\n", 400),
    "nul-in-last-header": (b"GET /health HTTP/1.1\r\nX-A: b\r\nHost: localhost\r\nX-B: \0\0\r\n\r\n", 400),
    "nul-in-target": (b"GET /health\0x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "nul-in-query": (b"GET /health?a=\0b HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "encoded-nul": (get(path="/health%00"), 400),
    "encoded-nul-in-query": (get(path="/health?a=%00"), 400),
    "bad-percent": (get(path="/health%zz"), 400),
    "cut-percent": (get(path="/health%4"), 400),
    "control-in-value": (get("X-A: a\x01b"), 400),
    "delete-in-value": (get("X-A: a\x7fb"), 400),
    "bare-cr-in-value": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: a\rb\r\n\r\n", 400),
    "bare-lf": (b"GET /health HTTP/1.1\nHost: localhost\n\n", 400),
    "one-bare-lf": (b"GET /health HTTP/1.1\r\nX-A: a\nHost: localhost\r\n\r\n", 400),
    "folded-header": (get("X-A: a\r\n b"), 400),
    "space-before-colon": (b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n", 400),
    "space-in-name": (get("X A: b"), 400),
    "no-colon": (get("nonsense"), 400),
    "empty-name": (get(": b"), 400),
    "raw-utf8-in-target": ("GET /é HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(), 400),
    # what the protocol does not know
    "no-host": (get(host=None), 400),
    "http-9.9": (get(version="HTTP/9.9"), 505),
    "chunked-in-1.0": (b"POST /v1/completions HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, 400),
    "two-authorizations": (get("Authorization: Bearer a", "Authorization: Bearer b"), 400),
    "two-content-types": (post(JSON, "Content-Length: 2", body=b"{}"), 400),
    "two-origins": (get("Origin: http://localhost", "Origin: http://evil.example"), 400),
    # too much
    "header-70k": (get("X-A: " + "a" * 70_000), 431),
    "headers-5000": (get(*[f"X-{i}: a" for i in range(5000)]), 431),
    "target-70k": (get(path="/" + "a" * 70_000), 414),
    "body-too-long": (post("Content-Length: 2097153", body=b"{" + b" " * 2_097_152), 413),
    "body-gzip": (post("Content-Encoding: gzip", "Content-Length: 2", body=b"{}"), 415),
    "body-as-text": (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 415),
    "body-as-form": (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: 2\r\n\r\n{}", 415),
    "body-without-type": (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 415),
    "expect-junk": (post("Expect: junk", "Content-Length: 2", body=b"{}"), 417),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_one_answer(server, name):
    request, status = REFUSED[name]
    answers = answers_until_close(server, request)
    assert [a.status for a in answers] == [status]
    if answers[0].headers.get("content-type") == "application/json":
        error = answers[0].error()
        assert set(error) == {"message", "type", "param", "code"} and error["message"] and isinstance(error["code"], str)
    assert ask(server, "GET", "/health").status == 200


@pytest.mark.parametrize("request_bytes_", [b"\x16\x03\x01\x02\x00\x01\x00", b"\0" * 100, b"hello\r\n\r\n", b"\r\n\r\n\r\nGET", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_garbage_ends_the_connection_or_waits(server, request_bytes_):
    with connect(server) as s:
        s.sendall(request_bytes_)
        s.shutdown(1)
        data = read_to_end(s)
    assert data == b"" or parse(data)[0].status in (400, 505)


def test_path_not_found_is_json_and_keeps_the_connection(server):
    with connect(server) as s:
        s.sendall(request_bytes("GET", "/nothing/here"))
        answer, rest = read_answer(s)
        assert answer.status == 404 and answer.error()["type"] == "invalid_request_error"
        s.sendall(request_bytes("GET", "/health"))
        assert read_answer(s, rest)[0].status == 200


@pytest.mark.parametrize("method,path,allow", [("GET", "/v1/completions", "POST"), ("DELETE", "/health", "GET, HEAD"), ("OPTIONS", "/v1/completions", "POST"), ("POST", "/", "GET, HEAD")])
def test_other_methods_are_405_with_allow(server, method, path, allow):
    answer = ask(server, method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allow)
    assert not any(h.startswith("access-control") for h in answer.headers)


def test_head_has_no_body(server):
    with connect(server) as s:
        s.sendall(request_bytes("HEAD", "/health") + request_bytes("GET", "/health"))
        answer, rest = read_answer(s, head=True)
        assert (answer.status, answer.headers["content-length"]) == (200, "15")
        assert read_answer(s, rest)[0].body == b'{"status":"ok"}'


def test_pipelined_requests_are_answered_in_order(server):
    with connect(server) as s:
        s.sendall(completion(max_tokens=2) + request_bytes("GET", "/health") + completion(max_tokens=3))
        rest, kinds = b"", []
        for _ in range(3):
            answer, rest = read_answer(s, rest)
            kinds.append(answer.json().get("usage", {}).get("completion_tokens"))
        assert kinds == [2, None, 3]


def test_chunked_body_is_read(server):
    body = json.dumps({"model": "nano", "prompt": "Hello", "max_tokens": 2, "temperature": 0}).encode()
    head = post("Transfer-Encoding: chunked")
    chunks = b"".join(b"1\r\n" + body[i : i + 1] + b"\r\n" for i in range(len(body))) + b"0\r\n\r\n"
    with connect(server) as s:
        s.sendall(head + chunks)
        assert read_answer(s)[0].json()["usage"]["completion_tokens"] == 2


def test_chunked_body_over_the_limit_is_413(server):
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with connect(server) as s:
        s.sendall(post("Transfer-Encoding: chunked") + chunk * 40 + b"0\r\n\r\n")
        answer = read_answer(s)[0]
    assert (answer.status, answer.error()["code"]) == (413, "payload_too_large")


def test_endless_chunked_body_is_cut(server):
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with connect(server) as s, pytest.raises((BrokenPipeError, ConnectionResetError)):
        s.sendall(post("Transfer-Encoding: chunked"))
        end = time.monotonic() + 30
        while time.monotonic() < end:
            s.sendall(chunk)
    assert ask(server, "GET", "/health").status == 200


@pytest.mark.parametrize("body", [2_097_153, 50_000_000])
def test_oversize_answer_arrives_while_the_body_is_still_sent(server, body):
    with connect(server) as s:
        s.sendall(post(f"Content-Length: {body}", body=b" " * 1_000_000))
        answer = read_answer(s)[0]
    assert (answer.status, answer.headers["connection"]) == (413, "close")


def test_body_at_the_limit_is_read(server):
    body = b'{"model":"nano","prompt":"Hello","max_tokens":1' + b" " * (2_097_152 - 48) + b"}"
    assert len(body) == 2_097_152
    answer = ask(server, "POST", "/v1/completions", [JSON], body)
    assert answer.status == 200


def test_expect_100_continue(server):
    body = b'{"model":"nano","prompt":"Hello","max_tokens":1}'
    with connect(server) as s:
        s.sendall(post("Expect: 100-continue", f"Content-Length: {len(body)}"))
        interim, rest = read_answer(s)
        assert interim.status == 100
        s.sendall(body)
        assert read_answer(s, rest)[0].status == 200
    with connect(server) as s:
        s.sendall(post("Expect: 100-continue", "Content-Length: 50000000"))
        assert read_answer(s)[0].status == 413  # and no 100 before it


def test_one_byte_at_a_time(server):
    with connect(server) as s:
        for byte in completion(max_tokens=1):
            s.send(bytes([byte]))
        assert read_answer(s)[0].status == 200


def test_million_one_byte_chunks_cost_no_stack(server):
    chunks = b"1\r\n \r\n" * 100_000
    with connect(server, 60) as s:
        s.sendall(post("Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n")
        assert read_answer(s)[0].status == 400  # blanks are no JSON


def test_http_1_0(server):
    with connect(server) as s:
        s.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert parse(read_to_end(s))[0].body == b'{"status":"ok"}'
    with connect(server) as s:
        s.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert parse(read_to_end(s))[0].status == 403


def test_request_id_is_echoed_when_plain(server):
    assert ask(server, "GET", "/health", ["X-Request-Id: abc-1.2_3"]).headers["x-request-id"] == "abc-1.2_3"
    for bad in ("a b", "a\tb", "x" * 65, 'a"b', ""):
        assert ask(server, "GET", "/health", [f"X-Request-Id: {bad}"]).headers["x-request-id"].startswith("req-")


def test_nothing_is_left_behind(server):
    """After all of the above: no connection, request or body is still counted, but for this one."""
    end = time.monotonic() + 10
    while True:
        m = metrics(server)
        left = {k: m[f"couplet:http_{k}"] for k in ("connections", "requests_in_flight", "body_bytes")}
        if left == {"connections": 1, "requests_in_flight": 1, "body_bytes": 0}:
            return
        assert time.monotonic() < end, left
