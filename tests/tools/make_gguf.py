#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Converts a small Hugging Face model directory (one safetensors file, GPT-2 or Llama) to GGUF as llama.cpp's converter would.

    make_gguf.py [--type f32|f16|bf16|q8_0|q4_0|q4_1|q6_k] [--byte-vocab] HF_DIR OUT.gguf          (needs numpy, gguf, safetensors)

Matrices get the type, or F16 where a row is no multiple of its block; vectors stay F32. --byte-vocab adds the 256-byte vocabulary of make_nano.py.
"""
import argparse
import json
import math
import os

import gguf
import numpy as np
from safetensors.numpy import load_file

from make_nano import byte_alphabet

T = gguf.GGMLQuantizationType
GPT2 = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up",
        "mlp.c_proj": "ffn_down"}
LLAMA = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down"}
TOP = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", "lm_head": "output",
       "model.embed_tokens": "token_embd", "model.norm": "output_norm"}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem in TOP:
        return f"{TOP[stem]}.{kind}"
    parts = stem.split(".", 3)
    return f"blk.{parts[2]}.{(GPT2 if parts[0] == 'transformer' else LLAMA)[parts[3]]}.{kind}"


def permute(w, n_head):
    """llama.cpp's LlamaModel.permute: rows of each head from halves to pairs."""
    return np.ascontiguousarray(w.reshape(n_head, 2, w.shape[0] // n_head // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape))


def quantize_q6_k(x):
    """A plain one (PyPI gguf has none): one scale for 16 weights, none of llama.cpp's search."""
    x = x.reshape(-1, 16, 16)
    scale = np.abs(x).max(-1) / 31
    d = (scale.max(-1, keepdims=True) / 127).astype(np.float16).astype(np.float32)
    sc = np.divide(scale, d, out=np.zeros_like(scale), where=d > 0).round().clip(0, 127)
    step = (d * sc)[..., None]
    q = np.divide(x, step, out=np.zeros_like(x), where=step > 0).round().clip(-32, 31).astype(np.int8) + 32
    q = q.reshape(-1, 2, 4, 32).astype(np.uint8)
    ql = np.concatenate([(q[:, :, 0] & 15) | (q[:, :, 2] << 4 & 0xF0), (q[:, :, 1] & 15) | (q[:, :, 3] << 4 & 0xF0)], -1).reshape(len(x), -1)
    qh = sum((q[:, :, k] >> 4) << (2 * k) for k in range(4)).astype(np.uint8).reshape(len(x), -1)
    return np.concatenate([ql, qh, sc.astype(np.int8).view(np.uint8), d.astype(np.float16).view(np.uint8)], -1)


def add_tensor(writer, name, w, qtype):
    if w.ndim == 1:
        qtype = T.F32
    elif w.shape[-1] % gguf.GGML_QUANT_SIZES[qtype][0]:
        qtype = T.F16
    w = np.ascontiguousarray(w, dtype=np.float32)
    if qtype in (T.F32, T.F16):
        writer.add_tensor(name, w.astype(np.float32 if qtype == T.F32 else np.float16))
    elif qtype == T.Q6_K:
        writer.add_tensor(name, quantize_q6_k(w).reshape(w.shape[0], -1), raw_dtype=qtype)
    else:
        writer.add_tensor(name, gguf.quants.quantize(w, qtype), raw_dtype=qtype)


def rope_divisors(base, head_dim, rope):
    """llama.cpp's rope_freqs.weight for rope_type llama3."""
    out = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * base ** (i / head_dim)
        low, high, old = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
        smooth = (old / wavelength - low) / (high - low)
        out.append(1 if wavelength < old / high else rope["factor"] if wavelength > old / low else 1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(out, np.float32)


def write_gpt2(writer, c, tensors, qtype):
    writer.add_context_length(c["n_positions"])
    writer.add_block_count(c["n_layer"])
    writer.add_embedding_length(c["n_embd"])
    writer.add_feed_forward_length(c.get("n_inner") or 4 * c["n_embd"])
    writer.add_head_count(c["n_head"])
    writer.add_layer_norm_eps(c["layer_norm_epsilon"])
    for name, w in tensors.items():
        conv1d = w.ndim == 2 and (".attn." in name or ".mlp." in name)
        add_tensor(writer, gguf_name(name), w.T if conv1d else w, qtype)


def write_llama(writer, c, tensors, qtype):
    rope = c.get("rope_parameters") or {**(c.get("rope_scaling") or {}), "rope_theta": c["rope_theta"]}
    kind = rope.get("rope_type", rope.get("type", "default"))
    head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    writer.add_context_length(c["max_position_embeddings"])
    writer.add_block_count(c["num_hidden_layers"])
    writer.add_embedding_length(c["hidden_size"])
    writer.add_feed_forward_length(c["intermediate_size"])
    writer.add_head_count(c["num_attention_heads"])
    writer.add_head_count_kv(c["num_key_value_heads"])
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(c["rms_norm_eps"])
    writer.add_vocab_size(c["vocab_size"])
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif kind == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_divisors(rope["rope_theta"], head_dim, rope))
    heads = {"q_proj": c["num_attention_heads"], "k_proj": c["num_key_value_heads"]}
    for name, w in tensors.items():
        n = heads.get(name.split(".")[-2])
        add_tensor(writer, gguf_name(name), permute(w, n) if n else w, qtype)


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--type", choices=("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q6_k"), default="f16")
    a.add_argument("--byte-vocab", action="store_true")
    a.add_argument("hf_dir")
    a.add_argument("out")
    o = a.parse_args()
    with open(os.path.join(o.hf_dir, "config.json")) as f:
        c = json.load(f)
    tensors = load_file(os.path.join(o.hf_dir, "model.safetensors"))
    writer = gguf.GGUFWriter(o.out, c["model_type"])
    (write_gpt2 if c["model_type"] == "gpt2" else write_llama)(writer, c, tensors, T[o.type.upper()])
    if o.byte_vocab:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([*byte_alphabet(), "<|endoftext|>"])
        writer.add_token_types([gguf.TokenType.NORMAL] * 256 + [gguf.TokenType.CONTROL])
        writer.add_bos_token_id(256)
        writer.add_eos_token_id(256)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
