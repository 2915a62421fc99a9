#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the models, gradients and expected.json beside this file: tiny random models and what PyTorch's training computes with them.

    python make_train.py           (needs torch, transformers, peft, safetensors; CPU, one thread, eager attention, float32)

gpt2    tied head; LoRA on c_attn
llama   untied head, grouped heads, no biases; LoRA on every linear layer
Layout: MODEL/ as save_pretrained writes it, MODEL_grads.safetensors (gradient of `loss`), MODEL_after_10_steps.safetensors, MODEL_lora_init/ and
MODEL_lora_final/ (peft), and in expected.json: MODEL -> batch {input_ids, target_ids, masked_target_ids}, loss, masked_loss, grad_global_l2,
masked_grad_global_l2, adamw_10 and lora_10 {loss_before_each_step, grad_norm_before_clip, loss_after_last_step}.
"""
import json
import os
import shutil

import peft
import torch
import transformers
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
SEED, VOCAB, ROWS, LENGTH = 5, 211, 3, 24
LR, BETAS, EPS, DECAY, CLIP, STEPS = 1e-3, (0.9, 0.95), 1e-8, 0.1, 1.0, 10


def randomize(model, generator):
    """Every parameter random, biases and norms too: a zero bias would hide a lost one."""
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            is_norm = "ln_" in name or "norm" in name
            p.copy_(1 + 0.1 * noise if is_norm and name.endswith("weight") else 0.1 * noise)


def loss_of(model, ids, targets):
    logits = model(torch.tensor(ids)).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=-100)


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def global_norm(model):
    return torch.stack([p.grad.norm() for p in trained(model)]).norm().item()


def adamw(model, ids, targets):
    groups = [{"params": [p for p in trained(model) if p.dim() >= 2], "weight_decay": DECAY},
              {"params": [p for p in trained(model) if p.dim() < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, ids, targets)
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.nn.utils.clip_grad_norm_(trained(model), CLIP).item())
        optimizer.step()
    return {"loss_before_each_step": losses, "grad_norm_before_clip": norms, "loss_after_last_step": loss_of(model, ids, targets).item()}


def write_tensors(tensors, name):
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, os.path.join(HERE, name))


def save_adapter(model, name):
    path = os.path.join(HERE, name)
    shutil.rmtree(path, ignore_errors=True)
    model.save_pretrained(path)
    os.remove(os.path.join(path, "README.md"))


def expected(name, model, reload, targets, generator):
    model.save_pretrained(os.path.join(HERE, name))
    generation = os.path.join(HERE, name, "generation_config.json")
    if os.path.exists(generation):
        os.remove(generation)
    tokens = torch.randint(0, VOCAB, (ROWS, LENGTH + 1), generator=generator).tolist()
    ids, following = [r[:-1] for r in tokens], [r[1:] for r in tokens]
    masked = [[-100 if (i + 3 * r) % 5 < 2 else t for i, t in enumerate(row)] for r, row in enumerate(following)]
    e = {"batch": {"input_ids": ids, "target_ids": following, "masked_target_ids": masked}}
    for prefix, t in (("masked_", masked), ("", following)):
        model.zero_grad()
        loss = loss_of(model, ids, t)
        loss.backward()
        e[prefix + "loss"], e[prefix + "grad_global_l2"] = loss.item(), global_norm(model)
    write_tensors({k: p.grad for k, p in model.named_parameters()}, name + "_grads.safetensors")
    e["adamw_10"] = adamw(model, ids, following)
    write_tensors(dict(model.named_parameters()), name + "_after_10_steps.safetensors")

    torch.manual_seed(SEED)
    lora = peft.get_peft_model(reload(os.path.join(HERE, name)), peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=targets, fan_in_fan_out=name == "gpt2", task_type="CAUSAL_LM"))
    lora.peft_config["default"].base_model_name_or_path = name
    save_adapter(lora, name + "_lora_init")
    e["lora_10"] = adamw(lora, ids, following)
    save_adapter(lora, name + "_lora_final")
    return e


def main():
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(SEED)
    eager = {"attn_implementation": "eager"}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=48, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
                                      attn_pdrop=0.0, bos_token_id=210, eos_token_id=210, **eager))
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                         num_key_value_heads=2, max_position_embeddings=48, rms_norm_eps=1e-5, tie_word_embeddings=False,
                                         bos_token_id=210, eos_token_id=210, **eager))
    randomize(gpt2, g)
    randomize(llama, g)
    result = {"set": "train", "seed": SEED, "versions": {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}}
    result["gpt2"] = expected("gpt2", gpt2, lambda p: GPT2LMHeadModel.from_pretrained(p, **eager), ["c_attn"], g)
    result["llama"] = expected("llama", llama, lambda p: LlamaForCausalLM.from_pretrained(p, **eager), "all-linear", g)
    with open(os.path.join(HERE, "expected.json"), "w") as f:
        json.dump(result, f)
        f.write("\n")


if __name__ == "__main__":
    main()
