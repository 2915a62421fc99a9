# SPDX-License-Identifier: MIT
"""gpt2-nano with a tokenizer.json that has ChatML's special tokens, and a chat template."""
import json
import os
import subprocess
import sys
from pathlib import Path

from make_nano import byte_alphabet
from serving import ROOT

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
# SmolLM2-Instruct's: a system message of its own where the conversation has none.
SMOLLM = ("{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
          "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
          "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

LLAMA3 = ("{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + "
          "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
          "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
ZEPHYR = ("{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + eos_token }}\n"
          "{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
          "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
          "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}")
# couplet's own, for models trained on instructions (tokenizer/chat_template.c).
ALPACA = ("{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}{{ 'Below is an instruction that describes a task. "
          "Write a response that appropriately completes the request.' }}{% endif %}{% for message in messages %}"
          "{% if message['role'] == 'assistant' %}{{ '\n\n### Response:\n' + message['content'] + eos_token }}"
          "{% elif not (loop.first and message['role'] == 'system') %}{{ '\n\n### Instruction:\n' + message['content'] }}{% endif %}{% endfor %}"
          "{% if add_generation_prompt %}{{ '\n\n### Response:\n' }}{% endif %}")
LLAMA3_SPECIAL = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def make_chat_nano(folder, template=CHATML, special=SPECIAL, options=()):
    folder = Path(folder)
    subprocess.run([sys.executable, str(ROOT / "tests/tools/make_nano.py"), "--vocab", str(256 + len(special)), "--ctx", "512", *options, str(folder)], check=True)
    for name in ("vocab.json", "merges.txt"):
        os.remove(folder / name)
    added = [{"id": 256 + i, "content": s, "special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False} for i, s in enumerate(special)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    vocab = {t: n for n, t in enumerate([*byte_alphabet(), *special])}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None, "pre_tokenizer": byte_level,
        "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "GPT2Tokenizer", "bos_token": special[0], "eos_token": special[-1], "pad_token": special[0],
        "add_bos_token": False, "model_max_length": 512, "chat_template": template}))
    return folder
