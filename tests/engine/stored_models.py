"""A pack of random weights whose experts, output projections and head are stored in any format that a model's file has."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from rotary_batch.core import ExpertKey
from rotary_batch.engine.kernels.matrices import (
    Matrix,
    OrderedMatrix,
    parts_of,
)
from rotary_batch.engine.kernels.quant import matrix_from, quantise
from rotary_batch.engine.packs.writer import safetensors_header
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import DENSE_NAME, EXPERTS_NAME, ORIGINAL, Manifest, SlabPlace
from rotary_batch.model.shapes import SHAPES
from rotary_batch.model.slabs import expert_layout, expert_shapes, fp8_block, parse_stored_as
from rotary_batch.model.tokens import Tokenizer, write_byte_tokenizer
from tests.engine.matrices import fp8_matrix, ggml_matrix, int4_matrix, int8_group_matrix

SCALES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
SUFFIXES = {"scale": ".scale", "scale_zero": ".scale_zero", "order": ".order"}
TINY: Geometry = replace(
    SHAPES["small"],
    hidden_size=256,
    intermediate_size=256,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    num_experts=4,
    top_k=4,  # all: in other numerics a router may choose otherwise, and then nothing can be compared
    vocab_size=320,
)


def random_matrix(stored_as: str, rows: int, columns: int, seed: int) -> Matrix:
    """A matrix in a format of `model/slabs.py`."""
    stored, generator = parse_stored_as(stored_as), torch.Generator().manual_seed(seed)
    if not (stored.group or stored.kind in {"fp8", "ggml"}):
        weight = (torch.randn(rows, columns, generator=generator) / columns**0.5).bfloat16()
        return matrix_from(quantise(weight, stored_as), rows, stored_as)
    if stored.kind == "ggml":
        return ggml_matrix(stored.type_name, rows, columns, seed)
    if stored.kind == "fp8":
        return fp8_matrix(rows, columns, fp8_block(stored, rows, columns), seed)
    make = int4_matrix if stored.kind == "int4" else int8_group_matrix
    matrix = make(rows, columns, stored.group, SCALES[stored.scale_dtype], seed)
    return OrderedMatrix(matrix, torch.randperm(columns, generator=generator).int()) if stored.is_ordered else matrix


def stored_tensors(name: str, matrix: Matrix) -> dict[str, torch.Tensor]:
    """The tensors of a matrix by their names in a file."""
    return {name + SUFFIXES.get(part, ""): tensor.contiguous() for part, tensor in parts_of(matrix).items()}


def stored_pack(folder: Path, stored_as: Mapping[str, str], dense_stored_as: str, geometry: Geometry = TINY) -> Path:
    """`stored_as` says how each matrix of an expert is stored: gate_up and down, or gate, up and down."""
    folder.mkdir(parents=True)
    dense_formats = {f"layers.{layer}.o": dense_stored_as for layer in range(geometry.num_layers)}
    dense_formats["head"] = dense_stored_as
    _write_dense(folder, geometry, dense_formats)
    slabs = _write_slabs(folder, geometry, stored_as)
    write_byte_tokenizer(folder)
    Manifest(
        name=str(stored_as),
        geometry=geometry,
        experts=ORIGINAL,
        layer_formats=dict.fromkeys(geometry.moe_layers, stored_as),
        dense_formats=dense_formats,
        slabs=slabs,
        dense_sha256=hashlib.sha256((folder / DENSE_NAME).read_bytes()).hexdigest(),
        tokenizer_sha256=Tokenizer.load(folder).digest,
        context_tokens=geometry.max_position,
    ).save(folder)
    return folder


def _write_dense(folder: Path, geometry: Geometry, dense_formats: Mapping[str, str]) -> None:
    tensors = {}
    for seed, (name, shape) in enumerate(geometry.dense_shapes().items()):
        if len(shape) == 1:
            tensors[name] = torch.ones(shape, dtype=torch.bfloat16)
        else:
            matrix = random_matrix(dense_formats.get(name, "bf16"), *shape, seed)
            tensors |= stored_tensors(name, matrix)
    save_file(tensors, str(folder / DENSE_NAME))


def random_slab(geometry: Geometry, stored_as: Mapping[str, str], seed: int) -> torch.Tensor:
    """The bytes of an expert; its biases are as large as its products."""
    layout = expert_layout(geometry, stored_as)
    slab = torch.zeros(layout.nbytes, dtype=torch.uint8)
    tensors = {}
    for name, (rows, columns) in expert_shapes(geometry, stored_as).items():
        tensors |= stored_tensors(name, random_matrix(stored_as[name], rows, columns, seed))
    for name, size in geometry.expert_bias_sizes.items():
        tensors[f"{name}.bias"] = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    for name, tensor in tensors.items():
        part = layout.parts[name]
        slab[part.offset : part.offset + part.nbytes] = tensor.view(-1).view(torch.uint8)
    return slab


def _write_slabs(folder: Path, geometry: Geometry, stored_as: Mapping[str, str]) -> dict[ExpertKey, SlabPlace]:
    layout, keys = expert_layout(geometry, stored_as), list(geometry.expert_keys())
    header = safetensors_header({f"slab.{key}": ("U8", (layout.nbytes,), layout.nbytes) for key in range(len(keys))})
    places = {}
    with (folder / EXPERTS_NAME).open("wb") as file:
        file.write(header)
        for number, key in enumerate(keys):
            slab = random_slab(geometry, stored_as, 100 + number)
            content = slab.numpy().tobytes()
            places[key] = SlabPlace(file.tell(), layout.nbytes, hashlib.sha256(content).hexdigest())
            file.write(content)
    return places
