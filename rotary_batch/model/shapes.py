"""Model shapes by name, for benchmarks that need no download.

`small`, `medium` and `fine` are made for machines without a GPU.  The others have the sizes of the models that they are
named after.  Those of Mixtral and Qwen3 have Mixtral's operations, the others their own but for scaled rotations.
"""

from __future__ import annotations

from dataclasses import replace

from rotary_batch.errors import UsageError
from rotary_batch.model.geometry import DELTA, FULL, WINDOW, Geometry


def _geometry(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, experts: int = 8) -> Geometry:
    return Geometry(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=hidden // heads,
        num_experts=experts,
        top_k=2,
        vocab_size=32000,
        rope_theta=1e6,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        max_position=4096,
        sliding_window=None,
        dtype="BF16",
        eos_ids=(),
    )


def _gpt_oss(layers: int, experts: int) -> Geometry:
    return replace(
        _geometry(2880, layers, 40, 8, 2880, experts),
        num_heads=64,
        head_dim=64,
        top_k=4,
        vocab_size=201088,
        scoring="topk_softmax",
        router_bias=True,
        expert_bias=True,
        swiglu_limit=7.0,
        attention_bias="qkvo",
        attention_sinks=True,
        sliding_window=128,
        attention_kinds=(WINDOW, FULL) * (layers // 2),
    )


SHAPES = {
    "small": _geometry(1024, 8, 16, 4, 3584),  # 1.6 GB in bf16
    "medium": _geometry(2048, 16, 16, 4, 7168),  # 11.5 GB in bf16
    "fine": _geometry(1024, 8, 16, 4, 512, experts=64),  # 1.8 GB in bf16, in small experts of 3 MB
    "mixtral-8x7b": _geometry(4096, 32, 32, 8, 14336),
    "mixtral-8x22b": _geometry(6144, 56, 48, 8, 16384),
    "qwen3-30b-a3b": replace(
        _geometry(2048, 48, 32, 4, 768, experts=128), head_dim=128, top_k=8, vocab_size=151936
    ),  # 6,144 experts of 9.4 MB in bf16
    "qwen3.6-35b-a3b": replace(
        _geometry(2048, 40, 16, 2, 512, experts=256),
        head_dim=256,
        rotary_dim=64,
        top_k=8,
        vocab_size=248320,
        shared_intermediate_size=512,
        shared_gate=True,
        attention_kinds=(DELTA, DELTA, DELTA, FULL) * 10,
        delta_conv=4,
        delta_key_heads=16,
        delta_value_heads=32,
        delta_key_dim=128,
        delta_value_dim=128,
        qk_norm="head",
        output_gate=True,
        zero_centred_norm=True,
    ),  # 10,240 experts of 6.3 MB in bf16, and a state of 66 MB for each sequence
    "gpt-oss-20b": _gpt_oss(24, 32),  # 768 experts of 49.8 MB in bf16
    "gpt-oss-120b": _gpt_oss(36, 128),  # 4,608 of them
    "glm-4.5-air": replace(
        _geometry(4096, 46, 96, 8, 1408, experts=128),
        head_dim=128,
        rotary_dim=64,
        top_k=8,
        vocab_size=151552,
        scoring="sigmoid",
        choice_bias=True,
        attention_bias="qkv",
        shared_intermediate_size=1408,
        dense_layers=(0,),
        dense_intermediate_size=10944,
    ),  # 5,760 experts of 34.6 MB in bf16
}


def shape(name: str) -> Geometry:
    """A shape by its name.  Raises UsageError."""
    if name not in SHAPES:
        raise UsageError(f"--shape {name!r}: choose one of {', '.join(SHAPES)}")
    return SHAPES[name]
