#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the models and expected.json beside this file: tiny random models and what transformers computes with them.

    python make_parity.py          (needs torch, transformers, safetensors; CPU, one thread, eager attention, float32)

gpt2        tied head, transformers 5 style config.json
llama       untied head, attention_bias, grouped heads, llama3 rope scaling, transformers 5 style
llama_bf16  bfloat16, tied, mlp_bias, head_dim apart from hidden/heads, linear rope scaling, transformers 4 style config, three shards with an index;
            expected values are float32 arithmetic on the widened weights
Layout of expected.json: MODEL -> config, n_params, tied, [rope_inv_freq, head_dim], inference -> [{input_ids, last_logits,
last_logits_max_abs_diff_vs_float64, next_token_logprobs, greedy_20, greedy_top1_minus_top2}].
"""
import json
import os
import shutil

import torch
import transformers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 3
PROMPTS = (17, 26)  # tokens; 26 + 20 stays inside the smallest context


def randomize(model, generator):
    """Every parameter random, biases and norms too: a zero bias would hide a lost one."""
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            is_norm = "ln_" in name or "norm" in name
            p.copy_(1 + 0.1 * noise if is_norm and name.endswith("weight") else 0.1 * noise)


def inference(model, double, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
        wide = double(torch.tensor([ids])).logits[0, -1]
        logprobs = torch.log_softmax(logits, -1)
        out, gaps = list(ids), []
        for _ in range(20):
            top = model(torch.tensor([out])).logits[0, -1].topk(2)
            gaps.append((top.values[0] - top.values[1]).item())
            out.append(top.indices[0].item())
    assert min(gaps) > 1e-3, "a near tie: choose another seed"
    return {
        "input_ids": ids,
        "last_logits": logits[-1].tolist(),
        "last_logits_max_abs_diff_vs_float64": (logits[-1].double() - wide).abs().max().item(),
        "next_token_logprobs": [logprobs[t, ids[t + 1]].item() for t in range(len(ids) - 1)],
        "greedy_20": out[len(ids):],
        "greedy_top1_minus_top2": gaps,
    }


def expected(model, generator):
    model.eval()
    double = type(model)(model.config).double().eval()
    double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    vocab = model.config.vocab_size
    e = {"config": model.config.to_dict(), "n_params": sum(p.numel() for p in model.parameters()), "tied": model.config.tie_word_embeddings}
    if model.config.model_type == "llama":
        e["rope_inv_freq"], e["head_dim"] = model.model.rotary_emb.inv_freq.tolist(), model.config.head_dim
    e["inference"] = [inference(model, double, torch.randint(0, vocab, (n,), generator=generator).tolist()) for n in PROMPTS]
    return e


def save(model, name, **kwargs):
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(path, **kwargs)
    generation = os.path.join(path, "generation_config.json")
    if os.path.exists(generation):
        os.remove(generation)
    return path


def config_as_version_4(path):
    with open(os.path.join(path, "config.json")) as f:
        c = json.load(f)
    rope = c.pop("rope_parameters")
    c["rope_theta"], c["rope_scaling"] = rope["rope_theta"], {"type": rope["rope_type"], "factor": rope["factor"]}
    c["torch_dtype"], c["transformers_version"] = c.pop("dtype"), "4.46.0"
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(c, f, indent=2)
        f.write("\n")


def main():
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(SEED)
    eager = {"attn_implementation": "eager"}
    result = {"set": "golden", "seed": SEED, "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}

    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=301, n_positions=48, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
                                      attn_pdrop=0.0, bos_token_id=256, eos_token_id=256, **eager))
    randomize(gpt2, g)
    save(gpt2, "gpt2")
    result["gpt2"] = expected(gpt2, g)

    llama3 = {"rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 32}
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=277, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                         num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, attention_bias=True,
                                         tie_word_embeddings=False, rope_parameters=llama3, bos_token_id=256, eos_token_id=256, **eager))
    randomize(llama, g)
    save(llama, "llama")
    result["llama"] = expected(llama, g)

    linear = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    bf16 = LlamaForCausalLM(LlamaConfig(vocab_size=301, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                        num_key_value_heads=1, head_dim=12, max_position_embeddings=128, rms_norm_eps=1e-6, mlp_bias=True,
                                        tie_word_embeddings=True, rope_parameters=linear, bos_token_id=256, eos_token_id=256, **eager))
    randomize(bf16, g)
    bf16.to(torch.bfloat16)
    config_as_version_4(save(bf16, "llama_bf16", max_shard_size="25KB"))
    # Read back as users do: .to(bfloat16) has rounded the module's rotary frequencies too, which no checkpoint holds.
    bf16 = LlamaForCausalLM.from_pretrained(os.path.join(HERE, "llama_bf16"), dtype=torch.float32, attn_implementation="eager")
    result["llama_bf16"] = {"inference": expected(bf16, g)["inference"]}

    with open(os.path.join(HERE, "expected.json"), "w") as f:
        json.dump(result, f)
        f.write("\n")


if __name__ == "__main__":
    main()
