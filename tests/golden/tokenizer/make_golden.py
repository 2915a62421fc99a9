#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the tokenizer's golden set: three small vocabularies trained by HF `tokenizers`, and what it says about many texts.

    pip install tokenizers==0.23.* tiktoken==0.14.*
    python3 tests/golden/tokenizer/make_golden.py [--gpt2 DIR]

Writes gpt2/, smollm/ and llama3/ (tokenizer.json, vectors.jsonl), stream.jsonl (bytes.decode("utf-8", "replace") of Python),
and with --gpt2 DIR (encoder.json and vocab.bpe of GPT-2) gpt2_vectors.jsonl by tiktoken. Lines of vectors: {"text", "ids"[, "special": true]}.
Training text is Python's own documentation, so that nothing else is needed.
"""
import json
import pathlib
import random
import sys

from pydoc_data import topics
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = pathlib.Path(__file__).parent
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MULTILINGUAL = [
    "Das Mädchen aß süße Äpfel, während der Hund draußen blieb.",
    "Как быстро течёт река, когда тает снег!",
    "春の海ひねもすのたりのたりかな。学而时习之，不亦说乎？",
    "كلّ الطرق تؤدي إلى البحر ٣٤٥",
    "हम सब एक नदी के किनारे रहते हैं १२३",
    "I'm sure they've said we'll go; she'd don't 'tis 1234 567 3.14159\r\n\tdef f(x):\n        return x + 1\n\n\n",
]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im", "<|end"]

# Pieces from which random texts are put together: every class, every border of the regular expressions.
PIECES = [
    "a", "B", "word", " the", "Hello", "é", "ß", "ſ", "K", "ﬁ", "中", "文字", "ひ", "я", "ह", "ि", "ع", "𐐀", "𝔘", "e\u0301",
    "0", "7", "42", "12345", "²", "½", "Ⅷ", "٣", "१", "𝟗", "〇",
    " ", "  ", "     ", "\t", "\n", "\n\n", "\r\n", "\r", "\v", "\f", "\x1c", "\x85", "\u00a0", "\u1680", "\u2003", "\u2028", "\u202f",
    "\u205f", "\u3000", "\u200b", "\u180e", "\ufeff",
    "'", "''", "'s", "'S", "'t", "'re", "'RE", "'ve", "'Ve", "'m", "'ll", "'lL", "'d", "'D", "'ſ", "'l", "'r", "'v", " 's", "’s",
    ".", ",", "!!", "...", "(", ")", "_", "-", "#", "<", "|", "<|", "|>", "{", "//", "$", "€", "😀", "👩\u200d💻", "🇩🇪", "\ufe0f",
    "\0", "\x04", "\x7f", "\u0378", "\ue000", "\U0010ffff", "\ufffd",
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im", "<|end", "<|endoftext", "[tool]",
]


def train(pre, alphabet, specials, size):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    text = [topics.topics[k] for k in sorted(topics.topics)] + MULTILINGUAL * 20
    t.train_from_iterator(text, trainer)
    return t


def vocabularies():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()

    gpt2 = train(byte_level, alphabet, SPECIALS[:1], 1000)
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
    yield "gpt2", gpt2

    # As in SmolLM2: digits apart, some bytes have no token at all (no initial alphabet).
    smollm = train(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level]), [], SPECIALS, 1000)
    yield "smollm", smollm

    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated", False)
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    llama3 = train(pre_tokenizers.Sequence([split, level]), alphabet, [], 1000)
    llama3.add_special_tokens(SPECIALS)
    llama3.add_tokens([AddedToken("[tool]", normalized=False)])  # not special: matched in every text
    template = processors.TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1001)])
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    yield "llama3", llama3


def texts(n, seed):
    rng = random.Random(seed)
    out = [""] + PIECES
    for a in ["'s", "x", " ", "  ", "\n", "1", "!", "中"]:
        for b in ["'s", "x", " x", "  ", "\n", "1", "!", "中"]:
            out.append(a + b)
    out += MULTILINGUAL
    while len(out) < n:
        out.append("".join(rng.choices(PIECES, k=rng.randint(2, 14))))
    out += ["a" * 300, "ab" * 150, " " * 200 + "x", "\n" * 100, "7" * 200, "!" * 300, "中" * 120, "the" * 100, " \n" * 60 + "y"]
    return out


def dump(path, lines):
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for line in lines:
            f.write(json.dumps(line, ensure_ascii=True, separators=(",", ":")) + "\n")
    print(path.relative_to(HERE), path.stat().st_size, "bytes")


def vectors(t, n, seed):
    for text in texts(n, seed):
        t.encode_special_tokens = True
        yield {"text": text, "ids": t.encode(text, add_special_tokens=False).ids}
        if any(s in text for s in SPECIALS):
            t.encode_special_tokens = False
            yield {"text": text, "special": True, "ids": t.encode(text, add_special_tokens=False).ids}


def make_vocabularies():
    for name, t in vocabularies():
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        data = json.loads(t.to_str())
        if name == "llama3":
            data["model"]["ignore_merges"] = True
            t = Tokenizer.from_str(json.dumps(data))
        if name == "gpt2":  # the older form of merges, beside the newer one in the other two
            data["model"]["merges"] = [" ".join(m) for m in data["model"]["merges"]]
        (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
        dump(folder / "vectors.jsonl", vectors(t, 400, 7))
    files = HERE / "gpt2_files"
    files.mkdir(exist_ok=True)
    model = json.loads((HERE / "gpt2" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (files / "vocab.json").write_text(json.dumps(model["vocab"], separators=(",", ":")) + "\n")
    (files / "merges.txt").write_text("#version: 0.2\n" + "".join(m + "\n" for m in model["merges"]), encoding="utf-8")


def make_stream():
    rng = random.Random(11)
    leads = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
    lines = []
    for i in range(700):
        if i < 400:
            data = bytes(rng.choices(leads, k=rng.randint(1, 10)))
        else:  # valid text, cut or broken somewhere
            data = bytearray("".join(rng.choices("aé中😀\u07ff\ud7ff\ue000\U0010ffff", k=rng.randint(1, 6))).encode())
            if i % 3:
                data[rng.randrange(len(data))] = rng.choice(leads)
            data = bytes(data[: rng.randint(1, len(data))])
        lines.append({"hex": data.hex(), "text": data.decode("utf-8", "replace")})
    dump(HERE / "stream.jsonl", lines)


def make_gpt2(folder):
    import tiktoken

    ranks = {}
    decode = {c: b for b, c in zip(*bytes_to_unicode())}
    for text, rank in json.loads((folder / "encoder.json").read_text()).items():
        if text != "<|endoftext|>":
            ranks[bytes(decode[c] for c in text)] = rank
    e = tiktoken.Encoding("gpt2", pat_str=GPT2, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    lines = []
    for text in texts(330, 21):
        lines.append({"text": text, "ids": e.encode(text, disallowed_special=())})
        if "<|endoftext|>" in text:
            lines.append({"text": text, "special": True, "ids": e.encode(text, allowed_special="all")})
    dump(HERE / "gpt2_vectors.jsonl", lines)


def bytes_to_unicode():
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in own]
    return own + rest, [chr(b) for b in own] + [chr(256 + i) for i in range(len(rest))]


make_vocabularies()
make_stream()
if len(sys.argv) == 3 and sys.argv[1] == "--gpt2":
    make_gpt2(pathlib.Path(sys.argv[2]))
