# SPDX-License-Identifier: MIT
"""LoRA adapters as PEFT stores them, with random factors."""
import json

import numpy as np
from safetensors.numpy import save_file


def make_adapter(folder, targets, base=None, rank=4, alpha=8, seed=7, **settings):
    """PEFT's files with random factors for {module: (n_in, n_out)}."""
    folder.mkdir()
    random = np.random.default_rng(seed)
    tensors = {}
    for module, (n_in, n_out) in targets.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = random.standard_normal((rank, n_in), np.float32) / 4
        tensors[f"base_model.model.{module}.lora_B.weight"] = random.standard_normal((n_out, rank), np.float32) / 4
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "bias": "none", "fan_in_fan_out": True,
              "target_modules": sorted({m.rsplit(".", 1)[1] for m in targets}), "base_model_name_or_path": base, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors
