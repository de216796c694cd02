"""GGUF files of random blocks at the layer shapes of well-known models, cut to a few layers and a small vocabulary.

Weights of random blocks have a standard deviation of about 0.02, as trained ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import numpy.typing as npt
from tokenizers.pre_tokenizers import ByteLevel

from rotary_batch.model.ggml_types import BLOCK_TYPES

VOCABULARY = 2048
Tensors = dict[str, tuple[tuple[int, ...], str]]  # name -> shape, type


class Model(NamedTuple):
    """A model to write."""

    architecture: str
    keys: dict[str, Any]
    tensors: Tensors


def _attention(block: str, hidden: int, sizes: tuple[int, int, int], kind: str, value_kind: str) -> Tensors:
    """Query rows (with their gate, where there is one), rows of k and of v, and columns of the output."""
    q, kv, out = sizes
    return {
        f"{block}.attn_norm.weight": ((hidden,), "F32"),
        f"{block}.attn_q.weight": ((q, hidden), kind),
        f"{block}.attn_k.weight": ((kv, hidden), kind),
        f"{block}.attn_v.weight": ((kv, hidden), value_kind),
        f"{block}.attn_output.weight": ((hidden, out), kind),
    }


def _experts(block: str, hidden: int, experts: int, width: int, kinds: tuple[str, str]) -> Tensors:
    return {
        f"{block}.ffn_gate_inp.weight": ((experts, hidden), "F32"),
        f"{block}.ffn_gate_exps.weight": ((experts, width, hidden), kinds[0]),
        f"{block}.ffn_up_exps.weight": ((experts, width, hidden), kinds[0]),
        f"{block}.ffn_down_exps.weight": ((experts, hidden, width), kinds[1]),
    }


def _ends(hidden: int, embed: str, head: str) -> Tensors:
    return {
        "token_embd.weight": ((VOCABULARY, hidden), embed),
        "output_norm.weight": ((hidden,), "F32"),
        "output.weight": ((VOCABULARY, hidden), head),
    }


def _keys(layers: int, hidden: int, heads: tuple[int, int, int], experts: tuple[int, int, int]) -> dict[str, Any]:
    return {
        "block_count": layers,
        "context_length": 4096,
        "embedding_length": hidden,
        "feed_forward_length": experts[2],
        "attention.head_count": heads[0],
        "attention.head_count_kv": heads[1],
        "attention.key_length": heads[2],
        "attention.value_length": heads[2],
        "attention.layer_norm_rms_epsilon": 1e-6,
        "expert_count": experts[0],
        "expert_used_count": experts[1],
        "expert_feed_forward_length": experts[2],
    }


def qwen3_30b_a3b(layers: int = 2) -> Model:
    """Q4_K; down of every second layer is Q6_K, as is v there and the head."""
    tensors = _ends(2048, "Q4_K", "Q6_K")
    for layer in range(layers):
        block, larger = f"blk.{layer}", "Q4_K" if layer % 2 else "Q6_K"
        tensors |= _attention(block, 2048, (4096, 512, 4096), "Q4_K", larger)
        tensors |= {f"{block}.attn_{name}_norm.weight": ((128,), "F32") for name in "qk"}
        tensors |= {f"{block}.ffn_norm.weight": ((2048,), "F32")}
        tensors |= _experts(block, 2048, 128, 768, ("Q4_K", larger))
    return Model("qwen3moe", _keys(layers, 2048, (32, 4, 128), (128, 8, 768)) | {"rope.freq_base": 1e6}, tensors)


def gpt_oss_20b(layers: int = 2) -> Model:
    """MXFP4 experts, the rest Q8_0."""
    tensors = _ends(2880, "Q8_0", "Q8_0")
    for layer in range(layers):
        block = f"blk.{layer}"
        tensors |= _attention(block, 2880, (4096, 512, 4096), "Q8_0", "Q8_0")
        rows = {"attn_q": (4096,), "attn_k": (512,), "attn_v": (512,), "attn_output": (2880,), "ffn_gate_inp": (32,)}
        rows |= {f"ffn_{name}_exps": (32, 2880) for name in ("gate", "up", "down")}
        tensors |= {f"{block}.{name}.bias": (shape, "F32") for name, shape in rows.items()}
        tensors |= {
            f"{block}.attn_sinks.weight": ((64,), "F32"),
            f"{block}.post_attention_norm.weight": ((2880,), "F32"),
        }
        tensors |= _experts(block, 2880, 32, 2880, ("MXFP4", "MXFP4"))
    keys = _keys(layers, 2880, (64, 8, 64), (32, 4, 2880)) | {
        "attention.sliding_window": 128,
        "rope.freq_base": 150000.0,
    }
    scaling = {"type": "yarn", "factor": 32.0, "original_context_length": 4096}
    return Model("gpt-oss", keys | {f"rope.scaling.{name}": value for name, value in scaling.items()}, tensors)


def qwen36_35b_a3b(layers: int = 4) -> Model:
    """Q4_K; Gated DeltaNet in 3 of 4 layers, and a shared expert."""
    tensors = _ends(2048, "Q4_K", "Q6_K")
    for layer in range(layers):
        block = f"blk.{layer}"
        tensors |= _delta_net(block) if (layer + 1) % 4 else _attention(block, 2048, (8192, 512, 4096), "Q4_K", "Q4_K")
        if (layer + 1) % 4 == 0:
            tensors |= {f"{block}.attn_{name}_norm.weight": ((256,), "F32") for name in "qk"}
        tensors |= {f"{block}.post_attention_norm.weight": ((2048,), "F32")}
        tensors |= _experts(block, 2048, 256, 512, ("Q4_K", "Q4_K"))
        tensors |= {f"{block}.ffn_gate_inp_shexp.weight": ((2048,), "F32")}
        tensors |= {f"{block}.ffn_{name}_shexp.weight": ((512, 2048), "Q4_K") for name in ("gate", "up")}
        tensors |= {f"{block}.ffn_down_shexp.weight": ((2048, 512), "Q4_K")}
    keys = _keys(layers, 2048, (16, 2, 256), (256, 8, 512)) | {"rope.freq_base": 1e7, "rope.dimension_count": 64}
    keys |= {"rope.dimension_sections": [11, 11, 10, 0], "expert_shared_feed_forward_length": 512}
    ssm = {"conv_kernel": 4, "state_size": 128, "group_count": 16, "time_step_rank": 32, "inner_size": 4096}
    keys |= {f"ssm.{name}": value for name, value in ssm.items()} | {"full_attention_interval": 4}
    return Model("qwen35moe", keys, tensors)


def _delta_net(block: str) -> Tensors:
    return {
        f"{block}.attn_norm.weight": ((2048,), "F32"),
        f"{block}.attn_qkv.weight": ((8192, 2048), "Q4_K"),
        f"{block}.attn_gate.weight": ((4096, 2048), "Q4_K"),
        f"{block}.ssm_conv1d.weight": ((8192, 4), "F32"),
        f"{block}.ssm_dt.bias": ((32,), "F32"),
        f"{block}.ssm_a": ((32,), "F32"),
        f"{block}.ssm_beta.weight": ((32, 2048), "F32"),
        f"{block}.ssm_alpha.weight": ((32, 2048), "F32"),
        f"{block}.ssm_norm.weight": ((128,), "F32"),
        f"{block}.ssm_out.weight": ((2048, 4096), "Q4_K"),
    }


MODELS: dict[str, Callable[[], Model]] = {
    "Qwen3-30B-A3B": qwen3_30b_a3b,
    "gpt-oss-20b": gpt_oss_20b,
    "Qwen3.6-35B-A3B": qwen36_35b_a3b,
}


def write(name: str, path: Path) -> Path:
    """Write a model, one tensor in memory at a time; once."""
    if path.is_file():
        return path
    model, rng = MODELS[name](), np.random.default_rng(0)
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, model.architecture)
    for key, value in _all_keys(model):
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}.get(
            type(value), writer.add_array
        )
        add(key, value)
    for tensor, (shape, kind) in model.tensors.items():
        nbytes = BLOCK_TYPES[kind].row_nbytes(shape[-1])
        plain = kind == "F32"
        dims, dtype = (shape, np.float32) if plain else ((*shape[:-1], nbytes), np.uint8)
        count = nbytes * int(np.prod(shape[:-1], dtype=np.int64))
        writer.add_tensor_info(tensor, dims, np.dtype(dtype), count, None if plain else gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, (shape, kind) in model.tensors.items():
        writer.write_tensor_data(_values(tensor, shape, kind, rng))
    writer.close()
    return part.replace(path)


def _all_keys(model: Model) -> Iterator[tuple[str, Any]]:
    for name, value in model.keys.items():
        yield f"{model.architecture}.{name}", value
    tokens = sorted(ByteLevel.alphabet())
    tokens += ["ab", *(f"<|{number}|>" for number in range(len(tokens) + 1, VOCABULARY))]
    yield "tokenizer.ggml.model", "gpt2"
    yield "tokenizer.ggml.pre", "gpt-2"
    yield "tokenizer.ggml.tokens", tokens
    yield "tokenizer.ggml.token_type", [1] * 257 + [3] * (VOCABULARY - 257)
    yield "tokenizer.ggml.merges", ["a b"]
    yield "tokenizer.ggml.eos_token_id", 300


def _values(name: str, shape: tuple[int, ...], kind: str, rng: np.random.Generator) -> npt.NDArray[Any]:
    if kind == "F32":
        noise = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith("ssm_a"):
            return -np.exp(noise)
        return 1 + noise / 10 if "norm" in name else noise * np.float32(0.02)
    nbytes, rows = BLOCK_TYPES[kind].row_nbytes(shape[-1]), int(np.prod(shape[:-1], dtype=np.int64))
    blocks = np.frombuffer(rng.bytes(rows * nbytes), np.uint8).copy().reshape(-1, BLOCK_TYPES[kind].nbytes)
    _scale(blocks, kind)
    return blocks.reshape(*shape[:-1], nbytes)


def _scale(blocks: npt.NDArray[np.uint8], kind: str) -> None:
    """Set the scales of random blocks."""

    def half(value: float) -> npt.NDArray[np.uint8]:
        return np.array([value], np.float16).view(np.uint8)

    if kind == "Q4_K":
        blocks[:, 0:2], blocks[:, 2:4] = half(1e-4), half(7.5e-4)
    elif kind == "Q6_K":
        blocks[:, 192:208] &= 15
        blocks[:, 208:210] = half(1.4e-4)
    elif kind == "Q8_0":
        blocks[:, 0:2] = half(2.7e-4)
    else:
        assert kind == "MXFP4", kind
        blocks[:, 0] = 120
