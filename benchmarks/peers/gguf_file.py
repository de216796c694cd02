"""Write the weights of a pack as a GGUF file that llama.cpp reads.

Knows both namings; q and k are permuted because llama.cpp's rope turns neighbouring pairs and Hugging Face's halves.
Run as a script: `python -m benchmarks.peers.gguf_file PACK OUT.gguf`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open

from benchmarks.checkpoints import DiskReader
from rotary_batch.core import ExpertKey
from rotary_batch.engine.offload.slab import slab_views
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import DENSE_NAME, Manifest

BF16 = gguf.GGMLQuantizationType.BF16
TOP = {"embed": "token_embd", "norm": "output_norm", "head": "output"}
LAYER = {
    "attention_norm": "attn_norm",
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "moe_norm": "ffn_norm",
    "router": "ffn_gate_inp",
}


def write_gguf(pack_dir: Path, target: Path) -> Path:
    """Write a bf16 pack as GGUF, one tensor in memory at a time; once."""
    if target.is_file():
        return target
    manifest = Manifest.load(pack_dir)
    assert manifest.experts == "bf16", "peers start from the bf16 pack"
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "llama")
    _settings(writer, manifest.geometry)
    names = list(_names(manifest.geometry))
    for name, shape in names:
        kind = None if name.endswith("norm.weight") or "gate_inp" in name else BF16
        dtype = np.float32 if kind is None else np.uint8
        nbytes = int(np.prod(shape)) * (4 if kind is None else 2)
        writer.add_tensor_info(
            name, shape if kind is None else (*shape[:-1], shape[-1] * 2), np.dtype(dtype), nbytes, kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in _tensors(pack_dir, manifest):
        assert name == names.pop(0)[0]
        plain = name.endswith("norm.weight") or "gate_inp" in name
        writer.write_tensor_data(tensor.float().numpy() if plain else tensor.contiguous().view(torch.uint8).numpy())
    writer.close()
    return part.replace(target)


def _settings(writer: gguf.GGUFWriter, geometry: Geometry) -> None:
    writer.add_context_length(geometry.max_position)
    writer.add_embedding_length(geometry.hidden_size)
    writer.add_block_count(geometry.num_layers)
    writer.add_feed_forward_length(geometry.intermediate_size)
    writer.add_head_count(geometry.num_heads)
    writer.add_head_count_kv(geometry.num_kv_heads)
    writer.add_rope_dimension_count(geometry.head_dim)
    writer.add_rope_freq_base(geometry.rope_theta)
    writer.add_layer_norm_rms_eps(geometry.rms_norm_eps)
    writer.add_expert_count(geometry.num_experts)
    writer.add_expert_used_count(geometry.top_k)
    writer.add_vocab_size(geometry.vocab_size)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    tokens += [f"token{n}" for n in range(len(tokens), geometry.vocab_size)]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (geometry.vocab_size - len(kinds))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(n) for n in range(len(tokens))])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def _names(geometry: Geometry) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, middle, experts = geometry.hidden_size, geometry.intermediate_size, geometry.num_experts
    for name, shape in geometry.dense_shapes().items():
        yield _name(name), shape
    for layer in range(geometry.num_layers):
        yield f"blk.{layer}.ffn_gate_exps.weight", (experts, middle, hidden)
        yield f"blk.{layer}.ffn_up_exps.weight", (experts, middle, hidden)
        yield f"blk.{layer}.ffn_down_exps.weight", (experts, hidden, middle)


def _name(name: str) -> str:
    if name in TOP:
        return TOP[name] + ".weight"
    _, layer, part = name.split(".")
    return f"blk.{layer}.{LAYER[part]}.weight"


def _tensors(pack_dir: Path, manifest: Manifest) -> Iterator[tuple[str, torch.Tensor]]:
    geometry = manifest.geometry
    with safe_open(str(pack_dir / DENSE_NAME), "pt") as dense:
        for name in geometry.dense_shapes():
            tensor = dense.get_tensor(name)
            heads = {"q": geometry.num_heads, "k": geometry.num_kv_heads}.get(name.rpartition(".")[2])
            yield _name(name), _pairs(tensor, heads) if heads and name not in TOP else tensor
    with DiskReader(pack_dir, manifest) as read:
        for layer in range(geometry.num_layers):
            slabs = [
                slab_views(read(ExpertKey(layer, expert)), manifest, layer) for expert in range(geometry.num_experts)
            ]
            halves = [slab.gate_up[0].chunk(2) for slab in slabs]
            yield f"blk.{layer}.ffn_gate_exps.weight", torch.stack([gate for gate, _ in halves])
            yield f"blk.{layer}.ffn_up_exps.weight", torch.stack([up for _, up in halves])
            yield f"blk.{layer}.ffn_down_exps.weight", torch.stack([slab.down for slab in slabs])


def _pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


if __name__ == "__main__":
    write_gguf(Path(sys.argv[1]), Path(sys.argv[2]))
