"""Packs random codes as the formats' own writers do, number by number, and says what weights they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from rotary_batch.engine.packs.safetensors_file import read_header
from rotary_batch.engine.packs.tensors import TensorPlace
from rotary_batch.model.tables import Table
from rotary_batch.model.tokens import write_byte_tokenizer

AWQ_COLUMNS = (0, 2, 4, 6, 1, 3, 5, 7)


def written(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, TensorPlace]:
    """The places of tensors in a real safetensors file."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(path))
    return read_header(path)


def config(**values) -> Table:
    return Table(values, "config.json: quantization_config", "fetch the file again")


def words(numbers: torch.Tensor, bits: int) -> torch.Tensor:
    """Non-negative numbers [R, C] in 32-bit words [R, ceil(C * bits / 32)], the first in the lowest bits."""
    per_word, columns = 32 // bits, numbers.shape[1]
    rows = []
    for row in numbers.tolist():
        starts = range(0, columns, per_word)
        packed = [sum(n << (bits * place) for place, n in enumerate(row[start : start + per_word])) for start in starts]
        rows.append([word - 2**32 if word >= 2**31 else word for word in packed])
    return torch.tensor(rows, dtype=torch.int32)


class Random:
    """Codes [N, K], scales [N, G] and zero points [N, G] of one matrix; `weights` is what they stand for."""

    def __init__(
        self,
        shape: tuple[int, int],
        group: int,
        *,
        bits: int = 4,
        dtype: torch.dtype = torch.float16,
        is_symmetric: bool = False,
        is_ordered: bool = False,
        seed: int = 0,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        rows, columns = shape
        groups = -(-columns // group)
        self.bits = bits
        self.codes = torch.randint(0, 2**bits, shape, generator=generator)
        self.scale = ((torch.rand(rows, groups, generator=generator) * 0.3 + 0.02) / 2**bits).to(dtype)
        self.zeros = torch.randint(1, 2**bits, (rows, groups), generator=generator)
        if is_symmetric:
            self.zeros.fill_(2 ** (bits - 1))
        self.g_idx = torch.arange(columns) // group
        if is_ordered:
            self.g_idx = self.g_idx[torch.randperm(columns, generator=generator)]

    @property
    def weights(self) -> torch.Tensor:
        """scale * (code - zero point) in float64: exact."""
        return self.scale.double()[:, self.g_idx] * (self.codes - self.zeros[:, self.g_idx])

    def gptq(self, name: str, version: int = 1) -> dict[str, torch.Tensor]:
        stored_zeros = self.zeros - int(version == 1)
        return {
            f"{name}.qweight": words(self.codes, self.bits).T,
            f"{name}.qzeros": words(stored_zeros.T, self.bits),
            f"{name}.scales": self.scale.T,
            f"{name}.g_idx": self.g_idx.int(),
        }

    def awq(self, name: str) -> dict[str, torch.Tensor]:
        def interleaved(numbers: torch.Tensor) -> torch.Tensor:
            return words(numbers.view(len(numbers), -1, 8)[..., AWQ_COLUMNS].flatten(1), 4)

        return {
            f"{name}.qweight": interleaved(self.codes.T.contiguous()),
            f"{name}.qzeros": interleaved(self.zeros.T.contiguous()),
            f"{name}.scales": self.scale.T,
        }

    def packed(self, name: str) -> dict[str, torch.Tensor]:
        """pack-quantized of compressed-tensors."""
        tensors = {
            f"{name}.weight_packed": words(self.codes, self.bits),
            f"{name}.weight_scale": self.scale,
            f"{name}.weight_shape": torch.tensor(self.codes.shape),
        }
        if (self.zeros != 2 ** (self.bits - 1)).any():
            tensors[f"{name}.weight_zero_point"] = words(self.zeros.T.contiguous(), self.bits).T
        if (self.g_idx.diff() < 0).any():
            tensors[f"{name}.weight_g_idx"] = self.g_idx.int()
        return tensors


TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 320,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e4,
    "tie_word_embeddings": False,
    "max_position_embeddings": 1024,
    "hidden_act": "silu",
    "bos_token_id": 256,
    "eos_token_id": 257,
    "torch_dtype": "float32",
}
CONFIGS = {
    "mixtral": {"architectures": ["MixtralForCausalLM"], "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 96,
        "norm_topk_prob": True,
    },
    "llama": {"architectures": ["LlamaForCausalLM"]},
}
EXPERTS = {"mixtral": ("block_sparse_moe", "w1", "w3", "w2"), "qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj")}


def matrix_shapes(family: str) -> dict[str, tuple[int, int]]:
    """Every linear module of a tiny model, and its shape."""
    hidden, middle = TINY["hidden_size"], TINY["intermediate_size"]
    shapes: dict[str, tuple[int, int]] = {}
    for layer in range(TINY["num_hidden_layers"]):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.self_attn.{name}_proj": (rows, 64) for name, rows in (("q", 64), ("k", 32), ("v", 32))}
        shapes[f"{stem}.self_attn.o_proj"] = (hidden, 64)
        if family == "llama":
            stems, (gate, up, down) = [f"{stem}.mlp"], EXPERTS["qwen3_moe"][1:]
        else:
            module, gate, up, down = EXPERTS[family]
            shapes[f"{stem}.{module}.gate"] = (4, hidden)
            stems = [f"{stem}.{module}.experts.{expert}" for expert in range(4)]
        for one in stems:
            shapes |= {
                f"{one}.{gate}": (middle, hidden),
                f"{one}.{up}": (middle, hidden),
                f"{one}.{down}": (hidden, middle),
            }
    return shapes


def other_tensors(family: str) -> dict[str, torch.Tensor]:
    """Embeddings, head and norms."""
    generator = torch.Generator().manual_seed(9)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens": (320, 64), "lm_head": (320, 64), "model.norm": (64,)}
    for layer in range(TINY["num_hidden_layers"]):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.input_layernorm": (64,), f"{stem}.post_attention_layernorm": (64,)}
        if family == "qwen3_moe":
            shapes |= {f"{stem}.self_attn.q_norm": (16,), f"{stem}.self_attn.k_norm": (16,)}
    return {
        f"{name}.weight": torch.randn(shape, generator=generator) * 0.2 + (len(shape) == 1)
        for name, shape in shapes.items()
    }


def write_checkpoint(folder: Path, family: str, tensors: Mapping[str, torch.Tensor], **quantisation) -> Path:
    """A tiny checkpoint of a family, plain without `quantisation`."""
    folder.mkdir()
    table = TINY | CONFIGS[family] | ({"quantization_config": quantisation} if quantisation else {})
    (folder / "config.json").write_text(json.dumps(table))
    write_byte_tokenizer(folder)
    written(folder / "model.safetensors", other_tensors(family) | tensors)
    return folder
