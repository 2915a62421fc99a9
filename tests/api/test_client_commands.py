# SPDX-License-Identifier: MIT
"""`couplet files` and `couplet jobs` against a real server, from the upload to the export; and against one of our own making that hangs up, lies
and sends archives that lead elsewhere."""
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from serving import COUPLET, Server

ROWS = "".join(json.dumps({"prompt": f"Question {i}: ", "completion": f"answer {i % 7}."}) + "\n" for i in range(24))


def couplet(*arguments, server=None, status=0, key=None, text=True):
    env = {k: v for k, v in os.environ.items() if not k.startswith("COUPLET_")}
    if server:
        env["COUPLET_SERVER"] = server if isinstance(server, str) else server.url
    if key:
        env["COUPLET_API_KEY"] = key
    done = subprocess.run([COUPLET, *arguments], capture_output=True, env=env, timeout=300)
    assert done.returncode == status, (arguments, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    assert b"Sanitizer" not in done.stderr
    out = done.stderr if status else done.stdout
    return out.decode() if text else out


@pytest.fixture(scope="module")
def real(nano):
    with Server("--model", str(nano)) as running:
        yield running


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text(ROWS)
    return path


def submit(real, rows, *options):
    return couplet("jobs", "submit", "--model", "nano", "--file", str(rows), *options, server=real).strip()


def status_of(real, job):
    return json.loads(couplet("jobs", "show", job, "--json", server=real))["status"]


def wait_for(real, job, *statuses):
    end = time.monotonic() + 300
    while time.monotonic() < end:
        if status_of(real, job) in statuses:
            return
        time.sleep(0.1)
    raise AssertionError(f"{job} is {status_of(real, job)}, not {statuses}")


def test_files(real, rows, tmp_path):
    file = couplet("files", "upload", str(rows), server=real).strip()
    assert re.fullmatch(r"file-\w+", file)
    assert couplet("files", "content", file, server=real) == ROWS
    assert couplet("files", "content", file, "--out", str(tmp_path / "back"), server=real) == "" and (tmp_path / "back").read_text() == ROWS
    said = json.loads(couplet("files", "show", file, "--json", server=real))
    assert said["id"] == file and said["bytes"] == len(ROWS) and said["filename"] == "rows.jsonl" and said["purpose"] == "fine-tune"
    shown = couplet("files", "show", file, server=real)
    assert re.search(r"^filename +rows.jsonl$", shown, re.M) and re.search(r"^created_at +20\d\d-\d\d-\d\dT", shown, re.M)
    listed = couplet("files", "list", server=real)
    assert file in listed and "rows.jsonl" in listed and couplet("files", "list", server=real.url + "/v1/") == listed
    assert json.loads(couplet("files", "list", "--json", "--limit", "1", server=real))["data"][0]["id"] == file
    other = json.loads(couplet("files", "upload", str(rows), "--purpose", "user_data", "--json", server=real))["id"]
    assert len(couplet("files", "list", "--limit", "1", server=real).splitlines()) == 1 and file in couplet("files", "list", "--after", other, server=real)
    assert other not in couplet("files", "list", "--purpose", "fine-tune", server=real)
    report = couplet("files", "report", file, "--model", "nano", server=real)
    assert re.search(r"^rows +24$", report, re.M) and "Question 0: [[answer 0." in report
    assert json.loads(couplet("files", "report", file, "--json", server=real))["rows"] == 24
    broken = tmp_path / "broken.jsonl"
    broken.write_text(ROWS + '{"prompt": "x"}\n')
    report = couplet("files", "report", couplet("files", "upload", str(broken), server=real).strip(), server=real)
    assert re.search(r"^usable +no$", report, re.M) and "line 25: " in report
    for one in (file, other):
        assert re.search(r"^deleted +yes$", couplet("files", "delete", one, server=real), re.M)
    assert "There is no such file." in couplet("files", "show", file, server=real, status=1)


def test_a_job_from_file_to_export(real, rows, tmp_path):
    run = subprocess.run([COUPLET, "jobs", "submit", "--server", real.url, "--model", "nano", "--file", str(rows), "--suffix", "first", "--epochs", "2",
                          "--batch-size", "4", "--lr", "1e-2", "--validation-split", "0.25", "--sample-prompt", "Question 1: ", "--metadata", "team=red", "--seed",
                          "7", "--lora-targets", "c_attn,c_proj", "--watch"], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    model, verdict, job = lines[-1], lines[-2], lines[0].split()[0]
    assert model.startswith("ft:nano:local:first:") and verdict.startswith("better: validation loss"), lines
    assert re.fullmatch(r"uploaded .*rows.jsonl as file-\w+\n", run.stderr)
    assert 1 == sum(bool(re.match(r"step 10/10  epoch 2.00  loss \d.*tokens/s  ETA 0:00:00$", line)) for line in lines), lines
    assert any(line.startswith('"Question 1: " -> "') for line in lines) and "\033" not in run.stdout
    said = json.loads(couplet("jobs", "show", job, "--json", server=real))
    assert said["fine_tuned_model"] == model and said["metadata"] == {"team": "red"} and said["seed"] == 7 and said["hyperparameters"]["batch_size"] == 4
    assert said["couplet"]["learning_rate"] == 0.01 and said["couplet"]["training_type"]["lora_trainable_modules"] == ["c_attn", "c_proj"]
    assert re.search(r"^couplet.training_type.lora_trainable_modules +c_attn, c_proj$", couplet("jobs", "show", job, server=real), re.M)
    assert re.search(rf"^{job} .* succeeded  step 10/10  nano -> {model}$", couplet("jobs", "list", server=real), re.M)
    assert json.loads(couplet("jobs", "list", "--limit", "1", "--json", server=real))["object"] == "list"
    for verb in ("logs", "events"):
        log = couplet("jobs", verb, job, server=real).splitlines()
        assert "Created fine-tuning job" in log[0] and log[-1].endswith("The job has successfully completed")
        assert sum("training loss" in line for line in log) == 10
    events = [json.loads(line) for line in couplet("jobs", "logs", job, "--json", server=real).splitlines()]
    assert [e["message"] for e in events] == [line.split(None, 2)[2] for line in log]
    watched = [json.loads(line) for line in couplet("jobs", "watch", job, "--json", server=real).splitlines()]
    assert [e["id"] for e in watched[:-1]] == [e["id"] for e in events] and watched[-1]["status"] == "succeeded"
    checkpoints = couplet("jobs", "checkpoints", job, server=real).splitlines()
    assert len(checkpoints) == 2 and checkpoints[0].startswith("step 10 ") and checkpoints[0].endswith(f"{model}:ckpt-step-10")
    for kind, wanted in (("peft", {"adapter_config.json", "adapter_model.safetensors"}), ("safetensors", {"config.json", "model.safetensors", "tokenizer.json"})):
        out = tmp_path / kind
        assert couplet("jobs", "export", job, "--format", kind, "--out", str(out) + "/", server=real).strip() == str(out) + "/"
        assert wanted <= {p.name for p in out.iterdir()}
        before = sorted(os.listdir(out))
        assert "is there already" in couplet("jobs", "export", job, "--format", kind, "--out", str(out), server=real, status=2)
        assert sorted(os.listdir(out)) == before
    (tmp_path / "empty").mkdir()
    couplet("jobs", "export", job, "--format", "peft", "--out", str(tmp_path / "empty"), server=real)
    said = json.loads(couplet("jobs", "export", job, "--format", "gguf", "--type", "f16", "--out", str(tmp_path / "m.gguf"), "--json", server=real))
    assert said["max_logit_difference"] < 0.05 and (tmp_path / "m.gguf").read_bytes()[:4] == b"GGUF"
    assert sorted(os.listdir(tmp_path)) == ["empty", "m.gguf", "peft", "safetensors"]
    text = [couplet("generate", "--model", str(tmp_path / name), "--temperature", "0", "--max-tokens", "8", "Question 2: ") for name in ("safetensors", "m.gguf")]
    assert text[0] == text[1]
    assert "'type' goes with format gguf" in couplet("jobs", "export", job, "--format", "peft", "--type", "f16", "--out", str(tmp_path / "x"), server=real, status=1)
    assert not (tmp_path / "x").exists()


def test_pause_resume_cancel_estimate(real, rows, tmp_path):
    job = submit(real, rows, "--steps", "100000", "--method", "full", "--train-on-inputs", "on", "--packing", "off")
    wait_for(real, job, "running")
    assert couplet("jobs", "pause", job, server=real).startswith(job)
    wait_for(real, job, "paused")
    assert couplet("jobs", "resume", job, server=real) == f"{job}  queued\n"
    assert json.loads(couplet("jobs", "cancel", job, "--json", server=real))["id"] == job
    wait_for(real, job, "cancelled")
    assert f"{job} is cancelled" in couplet("jobs", "watch", job, server=real, status=1)
    assert "not possible" in couplet("jobs", "resume", job, server=real, status=1)
    assert "Only a job that has succeeded" in couplet("jobs", "export", job, "--format", "gguf", "--out", str(tmp_path / "x"), server=real, status=1)
    assert os.listdir(tmp_path) == []
    said = couplet("jobs", "estimate", "--model", "nano", "--file", str(rows), "--epochs", "1", server=real)
    assert said.startswith("24 rows (longest ") and "3 updates in about 0:" in said and "MiB of memory" in said
    assert json.loads(couplet("jobs", "estimate", "--json", "--model", "nano", "--file", str(rows), server=real))["steps"] == 9


def test_a_job_that_fails(real, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(ROWS + "{}\n")
    words = couplet("jobs", "submit", "--model", "nano", "--file", str(bad), "--watch", server=real, status=1)
    assert re.search(r"ftjob-\w+ failed \(invalid_training_file\): .*line 25", words), words


def test_mistakes(real, rows, tmp_path):
    for arguments, words in (
            (("files",), "usage: couplet files COMMAND"), (("jobs", "dance"), "there is no command 'dance'"), (("files", "show"), "expected: couplet files show ID"),
            (("files", "list", "--limit", "0"), "--limit must be"), (("jobs", "list", "extra"), "unexpected argument"), (("jobs", "submit"), "--model is required"),
            (("jobs", "submit", "--model", "nano"), "--file is required"), (("jobs", "submit", "--method", "dpo"), "--method must be one of lora|full"),
            (("jobs", "submit", "--model", "nano", "--file", str(rows), "--suffix", b"\xff"), "--suffix is not valid UTF-8"),
            (("jobs", "estimate", "--watch"), "unknown option '--watch'"), (("jobs", "export", "x", "--format", "zip"), "--format must be one of"),
            (("files", "list", "--server", "ftp://x"), "--server is no http:// or https:// address")):
        assert words in couplet(*arguments, server=real, status=2), arguments
    for arguments, words in (
            (("files", "upload", str(tmp_path)), "is no file that can be read"), (("files", "upload", str(tmp_path / "none")), "is no file that can be read"),
            (("files", "upload", str(rows), "--purpose", "dance"), "purpose"), (("files", "show", "../../etc/passwd"), "There is no such"),
            (("files", "delete", "..%2f"), "There is no such"), (("files", "show", ""), "There is no such"), (("jobs", "watch", "ftjob-none"), "The job does not exist."),
            (("jobs", "logs", "a b?c#d"), "The job does not exist."), (("jobs", "submit", "--model", "none", "--file", str(rows)), "'model' names no model"),
            (("jobs", "submit", "--model", "nano", "--file", "file-none"), "'training_file' names no file."),
            (("files", "content", "file-none", "--out", str(tmp_path / "c")), "There is no such file."), (("files", "list", "--after", "file-x"), "after names nothing in this list")):
        assert words in couplet(*arguments, server=real, status=1), arguments
    assert os.listdir(tmp_path) == []
    for noun in ("files", "jobs"):
        for verb in re.findall(r"^  (\w+) ", couplet(noun, "--help"), re.M):
            assert f"usage: couplet {noun} {verb}" in couplet(noun, verb, "--help")


def test_no_server_and_wrong_key(nano):
    words = couplet("jobs", "list", server="http://127.0.0.1:9", status=1)
    assert "no server answers at http://127.0.0.1:9; start one with 'couplet serve --model PATH'" in words
    assert "no server answers" in couplet("jobs", "watch", "x", server="http://127.0.0.1:9/", status=1)
    with Server("--model", str(nano)) as guarded:
        key = guarded.add_key("train", "--scope", "train")
        assert couplet("files", "list", server=guarded, key=key) == ""
        for wrong in (None, "couplet-wrong"):
            words = couplet("files", "list", server=guarded, key=wrong, status=1)
            assert "COUPLET_API_KEY" in words and (wrong or key) not in words
        assert "line break" in couplet("files", "list", server=guarded, key=key + "\nX: y", status=1)
        infer = guarded.add_key("infer", "--scope", "infer")
        assert infer not in couplet("jobs", "list", server=guarded, key=infer, status=1)


class Terminal:
    """A command with a terminal for its standard output."""

    def __init__(self, *arguments):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(COUPLET, [COUPLET, *arguments])
        self.out = ""

    def read(self, until=None, seconds=300):
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and re.search(until, self.out)):
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:
                    data = b""
                if not data:
                    return self.out
                self.out += data.decode("utf-8", "replace")
        assert until and re.search(until, self.out), self.out
        return self.out

    def status(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_watch_on_a_terminal(real, rows):
    t = Terminal("jobs", "submit", "--server", real.url, "--model", "nano", "--file", str(rows), "--epochs", "1", "--validation-split", "0.25", "--watch",
                 "--sample-prompt", "Question")
    out = t.read()
    assert t.status() == 0 and "█" * 24 in out and "100%" in out and re.search("[▁▂▃▄▅▆▇█]+  loss", out) and '"Question" -> ' in out
    assert out.count("\033[?7l") == out.count("\033[?7h") > 0
    assert out.rstrip().splitlines()[-1].startswith("ft:nano:local:")
    t = Terminal("jobs", "submit", "--server", real.url, "--model", "nano", "--file", str(rows), "--steps", "100000", "--watch")
    t.read(until=r"step \d+/100000")
    os.write(t.fd, b"\x03")
    out = t.read()
    job = re.search(r"The job goes on. To watch it again: couplet jobs watch (ftjob-\w+)", out).group(1)
    assert t.status() == 1 and status_of(real, job) == "running"
    couplet("jobs", "cancel", job, server=real)


def test_the_server_dies_while_a_job_is_watched(nano, rows):
    with Server("--model", str(nano)) as running:
        job = submit(running, rows, "--epochs", "12", "--batch-size", "1", "--checkpoints", "50")
        watch = subprocess.Popen([COUPLET, "jobs", "watch", job, "--json", "--server", running.url], stdout=subprocess.PIPE, text=True)
        lines = [watch.stdout.readline() for _ in range(30)]
        running.process.kill()
        running.process.wait()
        running.start()
        lines += watch.stdout.read().splitlines()
        events = [json.loads(line) for line in lines]
        assert watch.wait(300) == 0 and events[-1]["status"] == "succeeded"
        ids = [e["id"] for e in events[:-1]]
        assert ids == [json.loads(line)["id"] for line in couplet("jobs", "logs", job, "--json", server=running).splitlines()]
        assert sorted(e["data"]["step"] for e in events[:-1] if e["data"] and "learning_rate" in e["data"]) == list(range(1, 289))


# ---- a server of our own making

def tar_of(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, kind, link in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"evil") if info.size else None)
    return out.getvalue()


def event(i, **data):
    return {"object": "fine_tuning.job.event", "id": f"ev-{i}", "created_at": 0, "level": "info", "message": f"Event {i} \x1b]0;owned\x07\x9b31m", "type": "message", "data": data}


class Liar(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), LiarHandler)
        self.url, self.resumed, self.body, self.cuts = f"http://127.0.0.1:{self.server_port}", [], b"", [2, 3, 5]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class LiarHandler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, body, status=200, kind="application/json", length=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if "/export" in self.path:
            self.answer(*self.server.body)
        elif "/events" in self.path:
            self.events()
        elif "/ftjob-html" in self.path:
            self.answer(b"<html>busy</html>", 502)
        elif "/ftjob-list" in self.path:
            self.answer(b"not JSON")
        else:
            job = {"id": "ftjob-1", "status": "succeeded", "model": "m", "fine_tuned_model": "ft:m\x1b[31m", "result_files": [7, "file-1"], "couplet": {"step": "x"}}
            self.answer(json.dumps(job).encode())

    def events(self):
        """Five events over four connections: each ends in the middle of an event."""
        last = self.headers.get("Last-Event-ID")
        self.server.resumed.append(last)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        start, end = int(last[3:]) + 1 if last else 1, self.server.cuts.pop(0) if self.server.cuts else 6
        out = "".join(f"id: ev-{i}\r\ndata: {json.dumps(event(i, step=i, total_steps=5, train_loss=5.0 - i, learning_rate=1, tokens=i, tokens_per_second=1) if i % 2 else event(i))}"
                      f"\r\n\r\n: ping\n\n" for i in range(start, min(end, 6)))
        out += "data: [DONE]\n\n" if end > 5 else f'id: ev-{end}\ndata: {{"object": "fine_tun'
        for i in range(0, len(out), 7):
            self.wfile.write(out[i : i + 7].encode())


@pytest.fixture
def liar():
    server = Liar()
    yield server
    server.shutdown()
    server.server_close()


def test_events_go_on_where_they_were_cut(liar):
    out = couplet("jobs", "watch", "ftjob-1", "--json", server=liar)
    assert [json.loads(line)["id"] for line in out.splitlines()] == [f"ev-{i}" for i in range(1, 6)] + ["ftjob-1"]
    assert liar.resumed == [None, "ev-1", "ev-2", "ev-4"]
    liar.cuts = []
    words = couplet("jobs", "watch", "ftjob-1", server=liar)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", words) and "Event 2" in words and "step 5/5" in words


def test_answers_that_make_no_sense(liar):
    assert "answers 502, and not as a couplet server would" in couplet("jobs", "show", "ftjob-html", server=liar, status=1)
    assert "not JSON" in couplet("jobs", "show", "ftjob-list", server=liar, status=1)


@pytest.mark.parametrize("body,words", [
    (tar_of(("../evil", tarfile.REGTYPE, "")), "is refused"), (tar_of(("/tmp/couplet-evil", tarfile.REGTYPE, "")), "is refused"),
    (tar_of(("m/a", tarfile.REGTYPE, ""), ("m/../../evil", tarfile.REGTYPE, "")), "is refused"), (tar_of(("m/link", tarfile.SYMTYPE, "/etc")), "is refused"),
    (tar_of(("m/a", tarfile.REGTYPE, ""), ("m/a", tarfile.REGTYPE, "")), "twice"), (tar_of(("m/a", tarfile.REGTYPE, ""))[:600], "cut off"),
    (b"", "cut off"), (bytes(1024), "empty"), (b"x" * 2048, "damaged")])
def test_hostile_archives_leave_nothing(liar, tmp_path, body, words):
    (tmp_path / "in").mkdir()
    liar.body = (body, 200, "application/x-tar")
    assert words in couplet("jobs", "export", "ftjob-1", "--format", "peft", "--out", str(tmp_path / "in" / "out"), server=liar, status=1)
    assert os.listdir(tmp_path / "in") == [] and os.listdir(tmp_path) == ["in"] and not os.path.exists("/tmp/couplet-evil")


def test_downloads_that_end_early_leave_nothing(liar, tmp_path):
    liar.body = (b"GGUF", 200, "application/octet-stream", 1000)
    for kind in ("gguf", "peft"):
        words = couplet("jobs", "export", "ftjob-1", "--format", kind, "--out", str(tmp_path / "out"), server=liar, status=1)
        assert "the connection to" in words and os.listdir(tmp_path) == []


def test_an_interrupted_download_leaves_nothing(tmp_path):
    class Slow(LiarHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"GGUF")
            time.sleep(30)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    run = subprocess.Popen([COUPLET, "jobs", "export", "x", "--format", "gguf", "--out", str(tmp_path / "m.gguf"), "--server", f"http://127.0.0.1:{server.server_port}"],
                           stderr=subprocess.PIPE)
    end = time.monotonic() + 30
    while not os.listdir(tmp_path) and time.monotonic() < end:
        time.sleep(0.01)
    run.send_signal(signal.SIGINT)
    assert b"interrupted; nothing was kept" in run.communicate(timeout=30)[1] and run.returncode == 1 and os.listdir(tmp_path) == []
    server.shutdown()
