#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the files beside this one: one tiny random GPT-2 in every format that couplet opens, and files that it must refuse.

    python make_formats.py hf        (needs torch, transformers, safetensors, gguf)
    python make_formats.py tf        (needs tensorflow; after hf, whose weights it reads)

hf/             Hugging Face directory: tied head
hf.gguf         the same, f32
tf/, tf_split/  OpenAI's layout: TensorFlow checkpoint by tf.compat.v1.train.Saver under OpenAI's names; tf_split in two shards, with Adam's slots
pth/hf.pth      state_dict() of GPT2LMHeadModel beside a config.json; zip64.pth: the same in a zip64 archive
pth/seed.pth    the names of rasbt's and the seed's GPTModel, {"model_state_dict", "optimizer_state_dict", "best_loss", ...}; W_query.weight is stored as a transposed view
bare/seed.pth   the same without query/key/value bias, with an output head of its own, f16, and rasbt's configuration as config.json
wide/wide.pth   width 64, no config.json; every weight is one number expanded by strides of zero
evil.pth        pickle calls posix.system; legacy.pth: torch's format before 1.6
"""
import json
import os
import shutil
import struct
import sys
import zipfile
import zlib

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
V, T, C, L, NH = 19, 10, 8, 2, 2


def path(*parts):
    p = os.path.join(HERE, *parts)
    os.makedirs(os.path.dirname(p), exist_ok=True)
    return p


def make_hf():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(5)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=T, n_embd=C, n_layer=L, n_head=NH, bos_token_id=0, eos_token_id=0))
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape)
            p.copy_(1 + 0.1 * noise if "ln_" in name and name.endswith("weight") else 0.3 * noise)
    model.save_pretrained(path("hf", ""), safe_serialization=True)
    os.remove(path("hf", "generation_config.json"))
    return model


def seed_names(sd, bias=True):
    """A GPT-2 state dict under the names of rasbt's GPTModel: nn.Linear is (out, in), query, key and value apart."""
    import torch
    g = {k.removeprefix("transformer."): v for k, v in sd.items()}
    out = {"tok_emb.weight": g["wte.weight"], "pos_emb.weight": g["wpe.weight"]}
    for n in range(L):
        a, b = f"h.{n}.", f"trf_blocks.{n}."
        out[b + "att.mask"] = torch.triu(torch.ones(T, T), diagonal=1)
        for k, part in enumerate(("W_query", "W_key", "W_value")):
            w = g[a + "attn.c_attn.weight"][:, k * C:(k + 1) * C].T  # (out, in), a view that torch.save keeps as one
            out[f"{b}att.{part}.weight"] = w if part == "W_query" else w.contiguous()
            if bias:
                out[f"{b}att.{part}.bias"] = g[a + "attn.c_attn.bias"][k * C:(k + 1) * C].clone()
        for ours, theirs in (("att.out_proj", "attn.c_proj"), ("ff.layers.0", "mlp.c_fc"), ("ff.layers.2", "mlp.c_proj")):
            out[b + ours + ".weight"] = g[a + theirs + ".weight"].T.contiguous()
            out[b + ours + ".bias"] = g[a + theirs + ".bias"]
        for ours, theirs in (("norm1", "ln_1"), ("norm2", "ln_2")):
            out[b + ours + ".scale"], out[b + ours + ".shift"] = g[a + theirs + ".weight"], g[a + theirs + ".bias"]
    out["final_norm.scale"], out["final_norm.shift"] = g["ln_f.weight"], g["ln_f.bias"]
    out["out_head.weight"] = sd["lm_head.weight"].clone()
    return out


def make_pth(model):
    import collections
    import torch
    sd = model.state_dict()
    torch.save(sd, path("pth", "hf.pth"))
    zip64(path("pth", "hf.pth"), path("pth", "zip64.pth"))
    with open(path("pth", "config.json"), "w") as f:
        json.dump({"model_type": "gpt2", "n_embd": C, "n_head": NH, "n_layer": L, "n_positions": T, "vocab_size": V}, f)
    small = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(small.parameters(), lr=5e-4, weight_decay=0.1)
    small(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"model_state_dict": collections.OrderedDict(seed_names(sd)), "optimizer_state_dict": optimizer.state_dict(),
                "best_loss": torch.tensor(0.5), "epoch": 3, "big": 1 << 70, "losses": [1.5, None, True]}, path("pth", "seed.pth"))
    bare = {k: v.half() for k, v in seed_names(sd, bias=False).items()}
    bare["out_head.weight"] = bare["out_head.weight"] * 2
    torch.save({"module." + k: v for k, v in bare.items()}, path("bare", "seed.pth"), pickle_protocol=4)
    with open(path("bare", "config.json"), "w") as f:
        json.dump({"vocab_size": V, "context_length": T, "emb_dim": C, "n_heads": NH, "n_layers": L, "drop_rate": 0.1, "qkv_bias": False}, f)
    x, w = torch.tensor([0.5]), 64
    one = {"wte.weight": (3, w), "wpe.weight": (4, w), "ln_f.weight": (w,), "ln_f.bias": (w,)}
    for name, shape in (("ln_1.weight", (w,)), ("ln_1.bias", (w,)), ("ln_2.weight", (w,)), ("ln_2.bias", (w,)), ("attn.c_attn.weight", (w, 3 * w)),
                        ("attn.c_attn.bias", (3 * w,)), ("attn.c_proj.weight", (w, w)), ("attn.c_proj.bias", (w,)), ("mlp.c_fc.weight", (w, 4 * w)),
                        ("mlp.c_fc.bias", (4 * w,)), ("mlp.c_proj.weight", (4 * w, w)), ("mlp.c_proj.bias", (w,))):
        one["h.0." + name] = shape
    torch.save({k: x.expand(s) for k, s in one.items()}, path("wide", "wide.pth"))

    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/couplet-was-here",)
    torch.save({"wte.weight": sd["transformer.wte.weight"], "x": Evil()}, path("evil.pth"))
    torch.save({"wte.weight": torch.zeros(2)}, path("legacy.pth"), _use_new_zipfile_serialization=False)


def zip64(source, target):
    """The same archive as torch writes it past 4 GiB: every size and offset in zip64 fields."""
    out, central, none = b"", b"", 0xFFFFFFFF
    with zipfile.ZipFile(source) as z:
        for name in z.namelist():
            data, n, at = z.read(name), name.encode(), len(out)
            crc, size = zlib.crc32(data), len(data)
            extra = struct.pack("<HHQQ", 1, 16, size, size)
            out += struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, crc, none, none, len(n), len(extra)) + n + extra + data
            extra = struct.pack("<HH3sHHQQQ", 0x7777, 3, b"abc", 1, 24, size, size, at)
            central += struct.pack("<4s6H3I5H2I", b"PK\1\2", 45, 45, 0, 0, 0, 0, crc, none, none, len(n), len(extra), 0, 0, 0, 0, none) + n + extra
        count = len(z.namelist())
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), len(out))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(out) + len(central), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, none, none, 4) + b"note"
    with open(target, "wb") as f:
        f.write(out + central + end64 + locator + end)


def make_gguf(model):
    import gguf
    w = gguf.GGUFWriter(path("hf.gguf"), "gpt2")
    w.add_block_count(L), w.add_context_length(T), w.add_embedding_length(C), w.add_feed_forward_length(4 * C)
    w.add_head_count(NH), w.add_layer_norm_eps(1e-5)
    names = {"attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down", "ln_1": "attn_norm", "ln_2": "ffn_norm",
             "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
    for k, v in model.state_dict().items():
        if k == "lm_head.weight":
            continue
        stem, kind = k.removeprefix("transformer.").rsplit(".", 1)
        v = v.numpy()
        if stem.startswith("h."):
            _, n, stem = stem.split(".", 2)
            w.add_tensor(f"blk.{n}.{names[stem]}.{kind}", np.ascontiguousarray(v.T) if v.ndim == 2 else v)
        else:
            w.add_tensor(f"{names[stem]}.{kind}", v)
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file()
    w.close()


def read_safetensors(file):
    data = open(file, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {k: np.frombuffer(data[8 + n + e["data_offsets"][0]:8 + n + e["data_offsets"][1]], "<f4").reshape(e["shape"]) for k, e in header.items()}


def make_tf():
    import tensorflow as tf
    tf.compat.v1.disable_eager_execution()
    weights = {}
    for k, v in read_safetensors(path("hf", "model.safetensors")).items():
        parts = k.removeprefix("transformer.").split(".")
        if parts[0] == "h":
            parts[:2] = ["h" + parts[1]]
        last = parts.pop()
        if parts[0] not in ("wte", "wpe"):
            norm = parts[-1].startswith("ln_")
            parts.append("b" if last == "bias" else "g" if norm else "w")
            v = v[None] if last == "weight" and not norm else v
        weights["model/" + "/".join(parts)] = v
    for name, split in (("tf", False), ("tf_split", True)):
        shutil.rmtree(path(name, ""), ignore_errors=True)
        config = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
        with tf.Graph().as_default(), tf.compat.v1.Session(config=config) as session:
            variables = []
            for i, (k, v) in enumerate(weights.items()):  # a sharded Saver writes one file for each device
                with tf.device(f"/cpu:{i % 2 if split else 0}"):
                    variables.append(tf.compat.v1.get_variable(k, initializer=tf.constant(v)))
            if split:
                variables += [tf.compat.v1.get_variable("model/wte/Adam", initializer=tf.zeros(3)), tf.compat.v1.get_variable("global_step", initializer=7)]
            session.run(tf.compat.v1.global_variables_initializer())
            tf.compat.v1.train.Saver(variables, sharded=split, save_relative_paths=True).save(session, path(name, "model.ckpt"), write_meta_graph=False)
        with open(path(name, "hparams.json"), "w") as f:
            json.dump({"n_vocab": V, "n_ctx": T, "n_embd": C, "n_head": NH, "n_layer": L}, f)


if __name__ == "__main__":
    if sys.argv[1:] == ["hf"]:
        gpt2 = make_hf()
        make_pth(gpt2)
        make_gguf(gpt2)
    else:
        make_tf()
