# SPDX-License-Identifier: MIT
"""`couplet tokenizer train`: the merges are those of HF tokenizers' own trainer, and what is written loads in HF tokenizers, in tiktoken and
in couplet with the same ids."""
import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
import tiktoken
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("COUPLET", str(ROOT / "build" / "server" / "couplet"))
FILES = ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")
END = "<|endoftext|>"
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
ODD = "Ünïcödé 中文文文 naïve 'quotes' it's IT'S we'll\r\n\r\n  two   spaces\tand\ttabs  \n\n\n1234567 x=-1;--\u00a0nbsp\u3000wide 🙂🙂 \x00 end<|endoftext|>"


@pytest.fixture(scope="module")
def text():
    """The project's own prose and code, and what they lack."""
    files = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "tokenizer").glob("*.c"))]
    parts = [path.read_text(encoding="utf-8") for path in files if path.name != "unicode_tables.c"]
    return "\n".join(parts) + ODD * 3 + "\n".join(parts[:2]).replace("\n", "\r\n")


@pytest.fixture
def text_file(text, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(text.encode())
    return path


def train(out, *arguments, **options):
    return subprocess.run([BINARY, "tokenizer", "train", "--out", str(out), *map(str, arguments)], capture_output=True, timeout=300, **options)


def trained(out, *arguments, **options):
    done = train(out, *arguments, **options)
    assert done.returncode == 0, done.stderr
    return done


def merges_of(path):
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[0].startswith("#version") and lines[-1] == ""
    return [tuple(line.split(" ")) for line in lines[1:-1]]


def couplet_ids(model, texts, special=False):
    data = "".join(json.dumps({"text": t, "special": special}) + "\n" for t in texts)
    done = subprocess.run([BINARY, "tokenize", "--model", str(model), "--jsonl"], input=data.encode(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["ids"] for line in done.stdout.splitlines()]


def byte_level(regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)


def pre_tokenizer(name):
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
    if name == "llama3":
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level(False)])
    return byte_level()


def hf_trained(text, size, pre="gpt2", special=(), **options):
    """(vocabulary, merges) of HF's trainer."""
    hf = Tokenizer(models.BPE())
    hf.pre_tokenizer = pre_tokenizer(pre)
    hf.train_from_iterator([text], trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=list(special),
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options))
    model = json.loads(hf.to_str())["model"]
    return model["vocab"], [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]


@pytest.mark.parametrize("pre", ["gpt2", "smollm", "llama3"])
def test_vocabulary_of_hf(text, text_file, tmp_path, pre):
    special = [END, "<|pad|>", "the", "e"]
    trained(tmp_path / "out", "--vocab-size", 3000, "--pre", pre, "--special-first", *(a for s in special for a in ("--special", s)), text_file)
    vocabulary, merges = hf_trained(text, 3000, pre, special)
    assert merges_of(tmp_path / "out" / "merges.txt") == merges
    assert json.loads((tmp_path / "out" / "vocab.json").read_text(encoding="utf-8")) == vocabulary
    assert len(vocabulary) == 3000


@pytest.mark.parametrize("frequency", [1, 2, 5])
def test_min_frequency_and_the_end_of_pairs(text, text_file, tmp_path, frequency):
    done = trained(tmp_path / "out", "--vocab-size", 500000, "--no-special", "--min-frequency", frequency, "--json", text_file)
    vocabulary, merges = hf_trained(text, 500000, min_frequency=frequency)
    assert merges_of(tmp_path / "out" / "merges.txt") == merges
    result = json.loads(done.stdout)
    assert (result["vocab_size"], result["merges"], result["special_tokens"]) == (len(vocabulary), len(merges), 0)
    assert result["bytes"] == len(text.encode()) and result["out"] == str(tmp_path / "out")
    assert f"{len(vocabulary)} ids instead of 500000" in done.stderr.decode()


@pytest.mark.parametrize("pre", ["gpt2", "smollm", "llama3"])
def test_three_readers_agree(text, text_file, tmp_path, monkeypatch, pre):
    """GPT-2's order of ids, which is the default: bytes, merges, special tokens."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # else tiktoken remembers files by their path
    out = tmp_path / "out"
    trained(out, "--vocab-size", 2000, "--pre", pre, "--special", END, "--special", "<|user|>", text_file)
    hf = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert hf.get_vocab_size() == 2000 and (hf.token_to_id(END), hf.token_to_id("<|user|>")) == (1998, 1999)
    samples = [text[i:i + 500] for i in range(0, 40000, 500)] + [ODD, "", " ", "<|user|>hi" + END, "\u017f'\u017f 12345"]
    ids = couplet_ids(out, samples, special=True)
    assert [hf.encode(s).ids for s in samples] == ids
    plain = couplet_ids(out, samples)
    hf.encode_special_tokens = True
    assert [hf.encode(s).ids for s in samples] == plain
    assert [hf.decode(i, skip_special_tokens=False) for i in ids] == samples
    if pre == "smollm":
        return  # tiktoken has no pattern for one digit first, then the rest on its own
    ranks = data_gym_to_mergeable_bpe_ranks(str(out / "merges.txt"), str(out / "vocab.json"))
    special = {END: 1998, "<|user|>": 1999}
    peer = tiktoken.Encoding("trained", pat_str=GPT2 if pre == "gpt2" else LLAMA3, mergeable_ranks=ranks, special_tokens=special, explicit_n_vocab=2000)
    assert [peer.encode(s, allowed_special="all") for s in samples] == ids
    assert [peer.encode_ordinary(s) for s in samples] == plain


def test_default_special_token(text_file, tmp_path):
    done = trained(tmp_path / "a" / "b", "--vocab-size", 300, text_file)
    assert done.stdout == b"" and b"300 ids: 256 bytes, 43 merges, 1 special tokens" in done.stderr
    assert sorted(os.listdir(tmp_path / "a" / "b")) == sorted(FILES)
    config = json.loads((tmp_path / "a" / "b" / "tokenizer_config.json").read_text())
    assert config["bos_token"] == config["eos_token"] == END and "model_max_length" not in config
    assert json.loads((tmp_path / "a" / "b" / "vocab.json").read_text(encoding="utf-8"))[END] == 299
    for arguments, ids in ((("--special-first",), [0]), (("--no-special",), couplet_ids(tmp_path / "a" / "b", [END])[0])):
        trained(tmp_path / "c", "--vocab-size", 300 - (arguments[0] == "--no-special"), *arguments, text_file)
        assert couplet_ids(tmp_path / "c", [END], special=True) == [ids]
    assert b"no <|endoftext|>" in trained(tmp_path / "d", "--vocab-size", 300, "--special", "<s>", text_file).stderr


def test_equal_texts_equal_files(text, text_file, tmp_path):
    """Threads, standard input, several files: the same bytes."""
    data = text.encode() * 30  # several parts for the threads
    text_file.write_bytes(data)
    middle = data.index(b"\n#", len(data) // 2)
    (tmp_path / "one").write_bytes(data[:middle])
    (tmp_path / "two").write_bytes(data[middle:])
    (tmp_path / "empty").write_bytes(b"")
    runs = {
        "alone": ("--threads", 1, text_file),
        "threads": ("--threads", 3, text_file),
        "stdin": ("-",),
        "files": (tmp_path / "one", tmp_path / "empty", tmp_path / "two"),
    }
    for name, arguments in runs.items():
        trained(tmp_path / name, "--vocab-size", 1500, *arguments, input=data if name == "stdin" else b"")
    for file in FILES:
        assert len({(tmp_path / name / file).read_bytes() for name in runs}) == 1, file


@pytest.mark.parametrize("arguments, data, code, says", [
    (("--vocab-size", "1000", "-"), b"", 1, "no text"),
    (("--vocab-size", "1000", "-"), b"abc \xff\xfe d", 1, "-: not UTF-8 at byte 4"),
    (("--vocab-size", "1000", "-"), "é".encode("latin-1"), 1, "byte 0"),
    (("--vocab-size", "1000", "/nonexistent/text"), b"", 1, "/nonexistent/text"),
    (("--vocab-size", "1000", "/tmp"), b"", 1, "/tmp"),
    (("--vocab-size", "300", "--special", "é", "-"), b"abc", 1, "other bytes"),
    (("--vocab-size", "1000"), b"", 2, "no text file"),
    (("-",), b"abc", 2, "--vocab-size"),
    (("--vocab-size", "256", "-"), b"abc", 2, "at least 257"),
    (("--vocab-size", "258", "--special", "a", "--special", "b", "--special", "c", "-"), b"abc", 2, "at least 259"),
    (("--vocab-size", "x", "-"), b"abc", 2, "--vocab-size"),
    (("--vocab-size", "-5", "-"), b"abc", 2, "--vocab-size"),
    (("--vocab-size", "99999999", "-"), b"abc", 2, "--vocab-size"),
    (("--vocab-size", "300", "--special", "", "-"), b"abc", 2, "--special"),
    (("--vocab-size", "300", "--special", b"\xff", "-"), b"abc", 2, "--special"),
    (("--vocab-size", "300", "--special", "x", "--no-special", "-"), b"abc", 2, "exclude"),
    (("--vocab-size", "300", "--pre", "words", "-"), b"abc", 2, "--pre"),
    (("--vocab-size", "300", "--threads", "0", "-"), b"abc", 2, "--threads"),
    (("--nonsense", "-"), b"abc", 2, "--nonsense"),
])
def test_mistakes(tmp_path, arguments, data, code, says):
    command = [os.fsencode(a) for a in (BINARY, "tokenizer", "train", "--out", str(tmp_path / "out"), *arguments)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(b"couplet tokenizer train: ") and says in done.stderr.decode()
    assert done.stdout == b"" and not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(text_file, tmp_path):
    def limit():  # the two smaller files fit, the larger ones do not
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
    out = tmp_path / "out"
    run = subprocess.run([BINARY, "tokenizer", "train", "--vocab-size", "400", "--out", out, text_file], capture_output=True, text=True, timeout=60,
                         preexec_fn=limit)
    assert run.returncode == 1 and "tokenizer.json: File too large" in run.stderr and list(out.iterdir()) == []


def test_out_is_a_file(text_file, tmp_path):
    done = train(text_file, "--vocab-size", 300, text_file)
    assert done.returncode == 1 and b"is a file" in done.stderr


def test_usage():
    done = subprocess.run([BINARY, "tokenizer", "train", "--help"], capture_output=True)
    assert done.returncode == 0 and b"--special-first" in done.stdout
    assert subprocess.run([BINARY, "tokenizer"], capture_output=True).returncode == 2
    assert subprocess.run([BINARY, "tokenizer", "draw"], capture_output=True).returncode == 2
    assert subprocess.run([BINARY, "tokenizer", "--help"], capture_output=True).returncode == 0
