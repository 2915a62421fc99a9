#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a small model with random weights as a Hugging Face directory, with nothing but the standard library.

The same options give the same bytes on every machine: weights are sums of three uniform numbers (mean 0, the wanted standard deviation), which
needs no mathematical library. The tokenizer has the 256 bytes and <|endoftext|>; the rest of --vocab is unused rows of the embedding.

    make_nano.py [--arch gpt2|llama] [--layers N] [--heads N] [--kv-heads N] [--width N] [--ctx N] [--vocab N] [--seed N] [--scale X] OUT
"""
import argparse
import array
import json
import os
import random
import struct
import sys


def byte_alphabet():
    """GPT-2's printable letter for each byte, in the order of its ids (encoder.py, bytes_to_unicode)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + n) for n in range(len(rest))]


def gpt2_shapes(o):
    """Tensor name -> (shape, mean), in the order in which they are drawn and stored."""
    c, f = o.width, 4 * o.width
    shapes = {"transformer.wte.weight": ((o.vocab, c), 0), "transformer.wpe.weight": ((o.ctx, c), 0)}
    for n in range(o.layers):
        p = f"transformer.h.{n}."
        for norm in ("ln_1", "ln_2"):
            shapes[f"{p}{norm}.weight"], shapes[f"{p}{norm}.bias"] = ((c,), 1), ((c,), 0)
        for name, n_in, n_out in (("attn.c_attn", c, 3 * c), ("attn.c_proj", c, c), ("mlp.c_fc", c, f), ("mlp.c_proj", f, c)):
            shapes[f"{p}{name}.weight"], shapes[f"{p}{name}.bias"] = ((n_in, n_out), 0), ((n_out,), 0)
    shapes["transformer.ln_f.weight"], shapes["transformer.ln_f.bias"] = ((c,), 1), ((c,), 0)
    return shapes


def llama_shapes(o):
    c, hs = o.width, o.width // o.heads
    f = (c * 8 // 3 + 31) // 32 * 32
    shapes = {"model.embed_tokens.weight": ((o.vocab, c), 0)}
    for n in range(o.layers):
        p = f"model.layers.{n}."
        shapes[p + "input_layernorm.weight"] = ((c,), 1)
        for name, rows in (("q", o.heads * hs), ("k", o.kv_heads * hs), ("v", o.kv_heads * hs)):
            shapes[f"{p}self_attn.{name}_proj.weight"] = ((rows, c), 0)
        shapes[p + "self_attn.o_proj.weight"] = ((c, o.heads * hs), 0)
        shapes[p + "post_attention_layernorm.weight"] = ((c,), 1)
        shapes[p + "mlp.gate_proj.weight"], shapes[p + "mlp.up_proj.weight"] = ((f, c), 0), ((f, c), 0)
        shapes[p + "mlp.down_proj.weight"] = ((c, f), 0)
    shapes["model.norm.weight"] = ((c,), 1)
    return shapes


def config_of(o, shapes):
    common = {"vocab_size": o.vocab, "bos_token_id": 256, "eos_token_id": 256, "tie_word_embeddings": True, "torch_dtype": "float32"}
    if o.arch == "gpt2":
        return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
                "n_layer": o.layers, "n_head": o.heads, "n_embd": o.width, "n_inner": None, "n_positions": o.ctx, **common}
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "num_hidden_layers": o.layers, "num_attention_heads": o.heads, "num_key_value_heads": o.kv_heads, "hidden_size": o.width,
            "head_dim": o.width // o.heads, "intermediate_size": shapes["model.layers.0.mlp.up_proj.weight"][0][0],
            "max_position_embeddings": o.ctx, "attention_bias": False, "mlp_bias": False, "rope_scaling": None, **common}


def write_safetensors(path, shapes, seed, scale):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, _) in shapes.items():
        size = 4
        for n in shape:
            size *= n
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    uniform = random.Random(seed).random
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for name, (shape, mean) in shapes.items():
            begin, end = header[name]["data_offsets"]
            values = array.array("f", [mean + 2 * scale * (uniform() + uniform() + uniform() - 1.5) for _ in range((end - begin) // 4)])
            if sys.byteorder == "big":
                values.byteswap()
            values.tofile(out)


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, indent=1)
        out.write("\n")


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--arch", choices=("gpt2", "llama"), default="gpt2")
    for name, default in (("layers", 4), ("heads", 4), ("kv-heads", 0), ("width", 128), ("ctx", 256), ("vocab", 1024), ("seed", 1)):
        a.add_argument("--" + name, type=int, default=default)
    a.add_argument("--scale", type=float, default=0.08, help="standard deviation of the weights")
    a.add_argument("out")
    o = a.parse_args()
    o.kv_heads = o.kv_heads or max(1, o.heads // 2)
    if o.width % o.heads or o.heads % o.kv_heads or o.vocab < 257:
        a.error("width must be a multiple of heads, heads of kv-heads, and vocab at least 257")
    os.makedirs(o.out, exist_ok=True)
    shapes = gpt2_shapes(o) if o.arch == "gpt2" else llama_shapes(o)
    write_safetensors(os.path.join(o.out, "model.safetensors"), shapes, o.seed, o.scale)
    write_json(os.path.join(o.out, "config.json"), config_of(o, shapes))
    write_json(os.path.join(o.out, "vocab.json"), {t: n for n, t in enumerate([*byte_alphabet(), "<|endoftext|>"])})
    with open(os.path.join(o.out, "merges.txt"), "w", encoding="utf-8") as out:
        out.write("#version: 0.2\n")


if __name__ == "__main__":
    main()
