"""Random checkpoints of named shapes, written one tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rotary_batch.model.tokens import write_byte_tokenizer
from rotary_batch.testing import TINY_CONFIG, tensor_shapes

SMALL: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "num_local_experts": 8,
    "max_position_embeddings": 4096,
    "eos_token_id": None,
}


def write_checkpoint(folder: Path, **shape: Any) -> Path:
    """One shard a layer of random bf16 weights, so that writing takes the memory of one layer."""
    folder.mkdir(parents=True, exist_ok=True)
    table = TINY_CONFIG | {"rope_theta": 1e6, "torch_dtype": "bfloat16"} | shape
    (folder / "config.json").write_text(json.dumps(table))
    write_byte_tokenizer(folder)
    shards: dict[str, list[str]] = {}
    shapes = tensor_shapes(table)
    for name in shapes:
        part = name.split(".")[2] if ".layers." in name else "rest"
        shards.setdefault(f"model-{part}.safetensors", []).append(name)
    for file, names in shards.items():
        scale = 0.5 / table["hidden_size"] ** 0.5
        save_file({n: (torch.randn(shapes[n]) * scale).to(torch.bfloat16) for n in names}, str(folder / file))
    weight_map = {name: file for file, names in shards.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def machine() -> str:
    """One line on where a figure was measured."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line).split()[1]
    return f"{len(names)} x {names[0]}, {int(memory) / 1e6:.0f} GB RAM, torch {torch.__version__}, {torch.get_num_threads()} threads"
