# SPDX-License-Identifier: MIT
"""`couplet tokenize`: its streams, its messages, its exit codes, on the golden vocabularies of tests/golden/tokenizer."""
import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "tokenizer"
BINARY = os.environ.get("COUPLET", str(ROOT / "build" / "server" / "couplet"))


def tokenize(*arguments, data=b"", vocabulary="gpt2"):
    return subprocess.run([BINARY, "tokenize", "--model", str(GOLDEN / vocabulary), *arguments], input=data, capture_output=True, timeout=60)


@pytest.mark.parametrize("vocabulary", ["gpt2", "smollm", "llama3"])
def test_jsonl_equals_golden(vocabulary):
    lines = [json.loads(line) for line in open(GOLDEN / vocabulary / "vectors.jsonl", encoding="utf-8")]
    data = "".join(json.dumps({k: line[k] for k in ("text", "special") if k in line}) + "\n" for line in lines)
    done = tokenize("--jsonl", data=data.encode(), vocabulary=vocabulary)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [json.loads(line)["ids"] for line in done.stdout.splitlines()] == [line["ids"] for line in lines]


def test_plain_and_back():
    text = "It's 2024:\r\n\tcafé 中文 <|endoftext|>\n".encode() + b"\xff\x00\xe2\x82 end\n"
    ids = tokenize(data=text)
    assert ids.returncode == 0 and ids.stdout.endswith(b"\n") and ids.stdout.count(b"\n") == 1
    assert tokenize("--decode", data=ids.stdout).stdout == text
    assert tokenize("--json", data=text).stdout == b'{"ids":[' + ids.stdout.strip().replace(b" ", b",") + b"]}\n"
    assert b"0" not in ids.stdout.split(b" ")  # <|endoftext|> is id 0 here, and plain text never holds it
    assert tokenize().stdout == b"\n"


def test_file_argument(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"one two")
    assert tokenize(str(path)).stdout == tokenize(data=b"one two").stdout == tokenize("-", data=b"one two").stdout


def test_jsonl_both_ways():
    done = tokenize("--jsonl", data=b'{"text":"a\\u0000b"}\n\n{"text":"<|endoftext|>","special":true}')
    first, second = (json.loads(line)["ids"] for line in done.stdout.splitlines())
    assert second == [0]
    back = tokenize("--jsonl", "--decode", data=b"\n".join(json.dumps({"ids": ids}).encode() for ids in (first, second)))
    assert [json.loads(line)["text"] for line in back.stdout.splitlines()] == ["a\0b", "<|endoftext|>"]


def test_jsonl_answers_before_the_next_line():
    command = [BINARY, "tokenize", "--model", str(GOLDEN / "gpt2"), "--jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for _ in range(3):
            process.stdin.write(b'{"text":"x"}\n')
            process.stdin.flush()
            assert len(json.loads(process.stdout.readline())["ids"]) == 1
        process.stdin.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize("arguments, data, code, says", [
    (("--jsonl",), b'{"text":"a"}\n{"text":', 1, "line 2: "),
    (("--jsonl",), b'{"text":"a"}\n\n{"txt":"a"}\n', 1, 'line 3: no "text"'),
    (("--jsonl",), b'{"text":1}\n', 1, "line 1: "),
    (("--jsonl", "--decode"), b'{"ids":[0,99999]}\n', 1, "line 1: token id 99999"),
    (("--decode",), b"1 x 2", 1, '"x" is not a token id'),
    (("--decode",), b"4294967296", 1, "is not a token id"),
    (("--decode",), b"1 99999", 1, "token id 99999"),
    (("/nonexistent/file",), b"", 1, "/nonexistent/file"),
    (("--nonsense",), b"", 2, "--nonsense"),
    (("one", "two"), b"", 2, "two"),
])
def test_mistakes(arguments, data, code, says):
    done = tokenize(*arguments, data=data)
    assert done.returncode == code
    assert done.stderr.startswith(b"couplet tokenize: ") and says in done.stderr.decode()


def test_usage():
    assert subprocess.run([BINARY, "tokenize"], capture_output=True).returncode == 2
    done = subprocess.run([BINARY, "tokenize", "--help"], capture_output=True)
    assert done.returncode == 0 and b"--jsonl" in done.stdout
    done = subprocess.run([BINARY, "tokenize", "--model", "/nonexistent"], capture_output=True)
    assert done.returncode == 1 and done.stdout == b""
