# SPDX-License-Identifier: MIT
"""`couplet pull` against a small hub on this machine: whole, taken up after a cut, wrong bytes, names that do not exist or may not be seen.

The hub answers as the real one does: a listing with size and lfs.sha256, large files by redirect to a second host that must not see the token."""
import hashlib
import json
import os
import subprocess
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serving import COUPLET, make_nano

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "someone/nano"


class Hub:
    """files: name -> bytes. cut: name -> how many bytes an answer may bring before the connection ends (once per entry of the list)."""

    def __init__(self, files):
        self.files, self.large, self.cut, self.token, self.ranges = dict(files), {n for n in files if n.endswith(".safetensors")}, {}, None, True
        self.log, self.hashes, self.extra, self.sizes = [], {}, [], {}
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), self.handler(store)) for store in (False, True)]
        for s in self.servers:
            threading.Thread(target=s.serve_forever, args=(0.02,), daemon=True).start()
        self.url, self.store = (f"http://{host}:{s.server_port}" for host, s in zip(("127.0.0.1", "localhost"), self.servers))

    def listing(self):
        out = [{"rfilename": n} for n in self.extra]
        for name, data in self.files.items():
            sibling = {"rfilename": name, "size": self.sizes.get(name, len(data)), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
            if name in self.large:
                sibling["lfs"] = {"sha256": self.hashes.get(name) or hashlib.sha256(data).hexdigest(), "size": sibling["size"], "pointerSize": 134}
            out.append(sibling)
        return {"id": MODEL, "sha": COMMIT, "private": False, "tags": ["a"], "siblings": out}

    def handler(hub, store):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body=b"", **headers):
                self.send_response(status)
                for k, v in headers.items():
                    self.send_header(k.replace("_", "-"), v)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                return body

            def do_GET(self):
                path = urllib.parse.unquote(self.path)
                hub.log.append((path, self.headers.get("Range"), self.headers.get("Authorization"), store))
                if store:
                    return self.send_file(path.removeprefix("/blob/"))
                if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self.wfile.write(self.answer(401, b"Invalid username or password."))
                elif path.startswith(f"/api/models/{MODEL}/revision/main?"):
                    self.wfile.write(self.answer(200, json.dumps(hub.listing()).encode(), Content_Type="application/json"))
                elif not path.startswith(f"/{MODEL}/resolve/{COMMIT}/") or path.rsplit("/", 1)[1] not in hub.files:
                    self.wfile.write(self.answer(404, b"Entry not found"))
                elif (name := path.split("/", 5)[5]) in hub.large:
                    self.wfile.write(self.answer(302, b"Found", Location=f"{hub.store}/blob/{name}"))
                else:
                    self.send_file(name)

            def send_file(self, name):
                data, begin = hub.files[name], 0
                if hub.ranges and (wanted := self.headers.get("Range")):
                    begin = int(wanted.removeprefix("bytes=").rstrip("-"))
                    body = self.answer(206, data[begin:], Content_Range=f"bytes {begin}-{len(data) - 1}/{len(data)}")
                else:
                    body = self.answer(200, data)
                cuts = hub.cut.get(name)
                if cuts:
                    self.wfile.write(body[:cuts.pop(0)])
                    self.close_connection = True
                else:
                    self.wfile.write(body)
        return Handler

    def asked(self, name):
        return [(span, token) for path, span, token, store in self.log if path.endswith("/" + name) and (store or name not in self.large)]

    def close(self):
        for s in self.servers:
            s.shutdown()
            s.server_close()


@pytest.fixture(scope="module")
def nano_files(tmp_path_factory):
    folder = make_nano(tmp_path_factory.mktemp("hub"), "--layers", "1", "--width", "64")
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def hub(nano_files):
    h = Hub(nano_files | {"README.md": b"# nano", "pytorch_model.bin": b"PK", "onnx.json": b"{}"})
    yield h
    h.close()


def pull(hub, *arguments, cwd, token=None):
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")} | {"HF_ENDPOINT": hub.url + "/"}
    env.pop("HF_TOKEN", None)
    if token:
        env["HF_TOKEN"] = token
    return subprocess.run([COUPLET, "pull", *arguments], capture_output=True, text=True, cwd=cwd, env=env, timeout=120)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_whole(hub, nano_files, tmp_path):
    hub.token = "hf_secret"
    done = pull(hub, MODEL, "--json", cwd=tmp_path, token="hf_secret")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["commit"] == COMMIT and answer["directory"] == "models/nano" and all(f["fetched"] for f in answer["files"])
    out = tmp_path / "models" / "nano"
    assert names(out) == sorted(nano_files) and all((out / n).read_bytes() == data for n, data in nano_files.items())
    assert hub.asked("model.safetensors") == [(None, None)], "the store is another host: it must not see the token"
    generated = subprocess.run([COUPLET, "generate", "--model", str(out), "--max-tokens", "2", "a"], capture_output=True, timeout=60)
    assert generated.returncode == 0
    hub.log.clear()
    again = pull(hub, MODEL, "--json", cwd=tmp_path, token="hf_secret")
    assert again.returncode == 0 and not any(f["fetched"] for f in json.loads(again.stdout)["files"]) and len(hub.log) == 1


def test_all_and_out(hub, nano_files, tmp_path):
    assert pull(hub, MODEL, "--all", "--out", "there", cwd=tmp_path).returncode == 0
    assert names(tmp_path / "there") == sorted(hub.files)


def test_shards(hub, nano_files, tmp_path):
    for k in (1, 2):
        hub.files[f"model-0000{k}-of-00002.safetensors"] = b"x" * k
    hub.files["model.safetensors.index.json"] = b"{}"
    assert pull(hub, MODEL, "--out", "a", cwd=tmp_path).returncode == 0
    assert names(tmp_path / "a") == sorted(nano_files), "one whole file: no shards"
    del hub.files["model.safetensors"]
    assert pull(hub, MODEL, "--out", "b", cwd=tmp_path).returncode == 0
    assert {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"} <= set(names(tmp_path / "b"))


def test_cut_connections_are_taken_up(hub, nano_files, tmp_path):
    hub.cut["model.safetensors"] = [1000, 5000]
    hub.cut["tokenizer.json" if "tokenizer.json" in nano_files else "vocab.json"] = [10]
    assert pull(hub, MODEL, "--out", "m", cwd=tmp_path).returncode == 0
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == nano_files["model.safetensors"]
    assert [span for span, _ in hub.asked("model.safetensors")] == [None, "bytes=1000-", "bytes=6000-"]


def test_resumes_in_a_later_run(hub, nano_files, tmp_path):
    out, weights = tmp_path / "m", nano_files["model.safetensors"]
    hub.cut["model.safetensors"] = [3000] + 4 * [0]
    failed = pull(hub, MODEL, "--out", "m", cwd=tmp_path)
    assert failed.returncode == 1 and "ended early" in failed.stderr and "model.safetensors" not in names(out)
    assert (out / "model.safetensors.part").read_bytes() == weights[:3000]
    hub.log.clear()
    assert pull(hub, MODEL, "--out", "m", cwd=tmp_path).returncode == 0
    assert [span for span, _ in hub.asked("model.safetensors")] == ["bytes=3000-"] and (out / "model.safetensors").read_bytes() == weights


def test_server_without_ranges(hub, nano_files, tmp_path):
    hub.ranges, hub.cut["model.safetensors"] = False, [2000]
    assert pull(hub, MODEL, "--out", "m", cwd=tmp_path).returncode == 0
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == nano_files["model.safetensors"]


@pytest.mark.parametrize("stale", [False, True])
def test_wrong_hash(hub, tmp_path, stale):
    out = tmp_path / "m"
    out.mkdir()
    if stale:  # an older file's beginning: noticed at the end
        (out / "model.safetensors.part").write_bytes(b"older bytes")
    else:
        hub.hashes["model.safetensors"] = "0" * 64
    done = pull(hub, MODEL, "--out", "m", cwd=tmp_path)
    assert done.returncode == 1 and "was removed" in done.stderr
    assert "model.safetensors" not in names(out) and "model.safetensors.part" not in names(out)
    if stale:
        assert pull(hub, MODEL, "--out", "m", cwd=tmp_path).returncode == 0


def test_more_bytes_than_listed(hub, tmp_path):
    hub.sizes["model.safetensors"] = 100
    done = pull(hub, MODEL, "--out", "m", cwd=tmp_path)
    assert done.returncode == 1 and "other bytes" in done.stderr and not list((tmp_path / "m").glob("model.safetensors*"))


@pytest.mark.parametrize("name", ["../up.json", "/etc/x.json", "a/../../b.json", "a//b", "", "a/./b", "..\\b", "x\n"])
def test_file_names_that_lead_outside(hub, tmp_path, name):
    hub.extra.append(name)
    done = pull(hub, MODEL, "--all", "--out", "m", cwd=tmp_path)
    assert done.returncode == 1 and "refused" in done.stderr and names(tmp_path) == []


def test_refusals(hub, tmp_path):
    done = pull(hub, "someone/else", cwd=tmp_path)
    assert done.returncode == 1 and "the hub has no such revision of someone/else" in done.stderr
    done = pull(hub, MODEL, "--revision", "v2", cwd=tmp_path)
    assert done.returncode == 1 and "no such revision" in done.stderr
    hub.token = "right"
    for token in (None, "wrong"):
        done = pull(hub, MODEL, cwd=tmp_path, token=token)
        assert done.returncode == 1 and "HF_TOKEN" in done.stderr and "401" in done.stderr
    hub.token = None
    del hub.files["model.safetensors"]
    done = pull(hub, MODEL, cwd=tmp_path)
    assert done.returncode == 1 and "no safetensors weights" in done.stderr
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "a/..", "a b", "/a", "a/", ".hidden", "a%2fb"])
def test_bad_names_are_usage(hub, tmp_path, name):
    done = pull(hub, name, cwd=tmp_path)
    assert done.returncode == 2 and "expected a model's name" in done.stderr and not hub.log


def test_no_hub(hub, tmp_path):
    hub.close()
    done = pull(hub, MODEL, cwd=tmp_path)
    assert done.returncode == 1 and "cannot be reached" in done.stderr
