# SPDX-License-Identifier: MIT
"""README, "Fine-tune on your text": its Python and its shell, run as printed but for the address, against a gpt2-nano that is served under the name
the README uses."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from serving import COUPLET, ROOT, Server

MODEL = "SmolLM2-135M-Instruct"
EXAMPLES = ROOT / "configs" / "examples"


def blocks(language):
    (section,) = re.findall(r"^## Fine-tune on your text$(.*?)^## ", (ROOT / "README.md").read_text(), re.M | re.S)
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder as a checkout is: configs/, work/, a `couplet` on the path; with an untrained nano whose vocabulary fits the examples."""
    home = tmp_path_factory.mktemp("home")
    (home / "bin").mkdir()
    (home / "work").mkdir()
    (home / "bin" / "couplet").symlink_to(Path(COUPLET).resolve())
    (home / "configs").symlink_to(ROOT / "configs")
    for arguments in (("tokenizer", "train", "--vocab-size", "1024", "--out", "tokenizer", EXAMPLES / "village.txt"),
                      ("train", "--init", "gpt2-nano", "--tokenizer", "tokenizer", "--data", EXAMPLES / "village.txt", "--steps", "2", "--out", "nano")):
        subprocess.run([COUPLET, *map(str, arguments)], cwd=home, check=True, capture_output=True, timeout=120)
    return home


@pytest.fixture(scope="module")
def running(home):
    with Server("--model", f"{MODEL}={home / 'nano'}") as server:
        yield server


def run(home, server, command):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COUPLET_")}
    environment.update(PATH=f"{home}/bin:{os.environ['PATH']}", COUPLET_SERVER=server.url)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python(home, running):
    pytest.importorskip("openai")
    (text,) = blocks("python")
    assert text.count("http://127.0.0.1:8080/") == 1
    out = run(home, running, [sys.executable, "-c", text.replace("http://127.0.0.1:8080", running.url)]).splitlines()
    assert out[0].startswith("Created fine-tuning job") and "The job has successfully completed" in out
    assert any(re.match(rf"ft:{MODEL}:local:answers:\w{{8}} ", line) for line in out)
    assert len(out) == len({line for line in out if line.startswith("Step ")}) + len([line for line in out if not line.startswith("Step ")]), "each event once"


def test_shell(home, running):
    (text,) = blocks("sh")
    out = run(home, running, ["bash", "-euc", text.replace("http://127.0.0.1:8080", running.url)])
    assert re.search(r"^better: validation loss ", out, re.M) and f"ft:{MODEL}:local::" in out and ":ckpt-step-" in out
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {p.name for p in (home / "work" / "adapter").iterdir()}
    assert (home / "work" / "answers.gguf").read_bytes()[:4] == b"GGUF"
    subprocess.run([COUPLET, "generate", "--model", str(home / "work" / "answers.gguf"), "--max-tokens", "2", "x"], check=True, capture_output=True, timeout=60)


def test_length():
    """About thirty lines in all."""
    assert sum(len(b.splitlines()) for b in blocks("python") + blocks("sh")) <= 32
