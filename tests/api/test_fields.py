# SPDX-License-Identifier: MIT
"""Every request field of /openapi.json x hostile values. After each the golden answer is unchanged; nothing is answered 5xx; no error body holds a
path, an address or a key."""
import json
import re

import httpx
import pytest
from chat_model import make_chat_nano
from serving import Server

HOSTILE = [
    "null", "true", "false", "0", "-1", "1", "-0", "2", "20", "21", "257", "258", "259", "65536", "2147483647", "2147483648", "-2147483649", "4294967296",
    "9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "99999999999999999999", "1e19", "1e308", "-1e308", "1e309", "1e-400",
    "0.5", "1.5", "2.0000001", '""', '"1"', '"AI"', r'"\u0000"', r'"\ud800"', r'"\ud83d\ude00"', '"/etc/passwd"', '"../../x"', '"%s%n"', '"' + "A" * 100000 + '"',
    "[]", "[[]]", "[null]", "[0]", "[-1]", "[1e9]", '[""]', '["a",1]', "[[0],[1e300]]", "[" * 60 + "]" * 60, "[" * 5000 + "]" * 5000, "[" + "0," * 5000 + "0]",
    "{}", '{"0":0}', '{"-1":1}', '{"259":1}', '{"AI":1}', '{"0":1e300}', '{"0":1,"0":2}', '{"a":{"a":{"a":[]}}}', "NaN", "Infinity", "-", "0x10", "'a'",
    "{" + ",".join(f'"{i}":1' for i in range(301)) + "}", '{"include_usage":7}', '{"type":"json_object"}', '[{"role":"user","content":null}]', '[{"role":[],"content":{}}]',
]
BASE = {
    "/v1/completions": {"model": "nano", "prompt": "a", "max_tokens": 2},
    "/v1/chat/completions": {"model": "nano", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
    "/tokenize": {"model": "nano", "prompt": "a"},
    "/detokenize": {"model": "nano", "tokens": [65]},
    "/v1/inspect": {"model": "nano", "prompt": "a"},
}
KEY_HEADERS = {"Authorization": "Bearer sk-couplet-not-a-key-0123456789"}


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    with Server("--model", f"nano={make_chat_nano(tmp_path_factory.mktemp('chat') / 'nano')}") as running:
        with httpx.Client(base_url=running.url, timeout=60, headers={"content-type": "application/json", **KEY_HEADERS}) as client:
            client.running = running
            yield client


def golden(http):
    r = http.post("/v1/completions", json={"model": "nano", "prompt": ["golden", "answer"], "max_tokens": 4, "temperature": 0, "logprobs": 2, "echo": True})
    assert r.status_code == 200
    return json.dumps(r.json()["choices"])


def fields_of(description, path):
    name = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    return description["components"]["schemas"][name]["properties"]


def check_error(text):
    error = json.loads(text)["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"] and error["code"]
    assert "/" not in text and not re.search(r"0x[0-9a-f]|sk-", text), text


@pytest.mark.parametrize("path", list(BASE))
def test_hostile_values(http, path):
    before = golden(http)
    properties = fields_of(http.get("/openapi.json").json(), path)
    assert set(BASE[path]) <= set(properties)
    seen = set()
    for name in properties:
        for value in HOSTILE:
            rest = ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in BASE[path].items() if k != name)
            body = "{" + (rest + "," if rest else "") + json.dumps(name) + ":" + value + "}"
            r = http.post(path, content=body)
            seen.add(r.status_code)
            assert r.status_code in (200, 400, 404), (body[:300], r.text[:300])
            if r.status_code != 200:
                check_error(r.text)
        assert golden(http) == before, name
    assert {200, 400} <= seen


def test_bodies(http):
    before = golden(http)
    for body in (b"", b"{", b"[]", b"null", b"1", b'"a"', b"\xff\xfe", b'{"model":"nano","prompt":"\xff"}', b"{}{}", b'{"model":"nano","model":"nano"}',
                 b"[" * 1000000, b'{"a":' * 100000, b"[" + b"{}," * 300000 + b"1]", b'{"prompt":[' + b"[1]," * 100000 + b"[1]]}", b"\0" * 1000, b" " * 2000000,
                 b'{"model":"nano","prompt":"' + b"\\u0000" * 300000 + b'"}'):
        r = http.post("/v1/completions", content=body)
        assert r.status_code == 400, (body[:40], r.status_code, r.text[:200])
        check_error(r.text)
    assert golden(http) == before


def test_openapi_describes_what_is_there(http):
    d = http.get("/openapi.json").json()
    assert d["openapi"].startswith("3.1") and d["info"]["title"] == "couplet"
    for path, operations in d["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"] and "200" in operation["responses"]
            r = http.request(method.upper(), path.replace("{id}", "nano"), content=b"{}" if method == "post" else None)
            assert r.status_code != 405 and "no such path" not in r.text, (method, path, r.text)  # no such file, no such job: the path is there
    text = json.dumps(d)
    for reference in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert reference in d["components"]["schemas"]


def test_openapi_is_valid(http):
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(http.get("/openapi.json").json())


def test_the_bounds_are_the_documented_ones(http):
    for name, schema in fields_of(http.get("/openapi.json").json(), "/v1/completions").items():
        if "minimum" not in schema or name == "seed":
            continue
        step = 1 if "integer" in schema["type"] else 0.001
        for value, good in ((schema["minimum"], True), (schema["minimum"] - step, False), (schema["maximum"] + step, False)):
            r = http.post("/v1/completions", json={**BASE["/v1/completions"], name: value})
            assert (r.status_code == 200) == good, (name, value, r.text)
            if not good:
                assert (r.json()["error"]["code"], r.json()["error"]["param"]) == ("value_out_of_range", name)
