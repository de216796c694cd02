"""A low-rank adapter as PEFT saves it, merged into a checkpoint.

Every matrix that it names becomes W + scale * B A, in bf16: the weights that the adapter was trained to make.  The
format is PEFT's `adapter_config.json` and `adapter_model.safetensors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.checkpoint import Checkpoint, MergedAdapter, open_checkpoint
from rotary_batch.engine.packs.safetensors_file import read_header
from rotary_batch.engine.packs.tensors import Expert, LowRank, Source, TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.families import family_of
from rotary_batch.model.families.names import expert_spellings, joined_parts, joined_spellings, plain_name, spellings
from rotary_batch.model.families.rotation import rotating_rows
from rotary_batch.model.manifest import pack_fields, pack_formats
from rotary_batch.model.tables import Table, parse_object, read_regular, shown

CONFIG_NAME = "adapter_config.json"
TENSORS_NAME = "adapter_model.safetensors"
MAX_RANK = 4096
_MAX_CONFIG_NBYTES = 2**20
_REMEDY = "merge it with PEFT's merge_and_unload, and pack the model that this saves"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_FLOATS = ("F32", "BF16", "F16")
# What changes the formula of the merge, and the values that do not.
_PLAIN_VALUES: Mapping[str, tuple[Any, ...]] = {
    "use_dora": (False,),
    "fan_in_fan_out": (False,),
    "bias": ("none",),
    "modules_to_save": ([],),
    "trainable_token_indices": ([],),
    "target_parameters": ([],),
    "alpha_pattern": ({},),
    "rank_pattern": ({},),
    "layer_replication": ([],),
    "alora_invocation_tokens": ([],),
}
_PLAIN_STARTS = (True, False, "gaussian", "orthogonal", "eva", None)  # the others change the weights below


class _Pair(NamedTuple):
    """The two matrices of one module."""

    a: TensorPlace  # [rank, columns]
    b: TensorPlace  # [rows, rank]


class Adapted(NamedTuple):
    """A checkpoint and the adapter to merge into it."""

    base: Path
    adapter: Path  # the folder that PEFT saved


def open_model(model: Path | Adapted) -> Checkpoint:
    """Read the headers of a checkpoint, and of its adapter if it has one.  Raises ModelError."""
    if isinstance(model, Path):
        return open_checkpoint(model)
    return with_adapter(open_checkpoint(model.base), model.adapter)


def with_adapter(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """The checkpoint with an adapter merged into it.

    Raises ModelError for an adapter that is not plain LoRA, or has a module that the model does not.
    """
    adapter = _Adapter(checkpoint, folder)
    dense = {name: adapter.dense(name, source) for name, source in checkpoint.dense.items()}
    experts = {key: adapter.expert(key, expert) for key, expert in checkpoint.experts.items()}
    adapter.require_all_used()
    return replace(
        checkpoint,
        geometry=replace(checkpoint.geometry, dtype=_plain_type(checkpoint, experts)),
        dense=dense,
        experts=experts,
        adapter=MergedAdapter(folder.resolve().name, adapter.config, pack_fields(folder), pack_formats(folder)),
    )


def _plain_type(checkpoint: Checkpoint, experts: Mapping[ExpertKey, Expert]) -> str:
    """The type of plain experts, which must be one.  Raises ModelError."""
    matrices = (source for expert in experts.values() for name, source in expert.items() if not name.endswith(".bias"))
    types = {source.dtype for source in matrices if source.stored_as == "bf16"}
    if len(types) > 1:
        raise ModelError(
            f"{checkpoint.path}: experts in {' and '.join(sorted(types))} with the adapter, which has only some of "
            f"them; one type is supported; {_REMEDY}"
        )
    return types.pop() if types else checkpoint.geometry.dtype


class _Adapter:
    """The pairs of an adapter by the names of the tensors that they change, and which were used."""

    def __init__(self, checkpoint: Checkpoint, folder: Path) -> None:
        self._checkpoint = checkpoint
        self._geometry = checkpoint.geometry
        self._path = folder / TENSORS_NAME
        config_path = folder / CONFIG_NAME
        self.config = read_regular(config_path, _MAX_CONFIG_NBYTES, _REMEDY)
        self._settings = parse_object(self.config, config_path, _REMEDY)
        _require_plain(config_path, self._settings)
        self._alpha = Table(self._settings, config_path, _REMEDY).positive("lora_alpha")
        self._pairs = dict(_pairs(self._path))
        self._unused = dict.fromkeys(self._pairs)
        model = Table(parse_object(checkpoint.config, checkpoint.path, _REMEDY), checkpoint.path, _REMEDY)
        self._has_adjacent_pairs = family_of(model).adjacent_pairs

    def dense(self, name: str, source: Source) -> Source:
        """A dense tensor with what the adapter adds to it."""
        if name.endswith(".bias") or len(source.shape) != 2:
            return source
        order = rotating_rows(name, self._geometry) if self._has_adjacent_pairs else None
        if found := self._find(spellings(name)):
            return self._merged(source, [self._low_rank(found, source.shape, order=order)])
        for theirs, at in joined_spellings(name):
            if found := self._find(iter([theirs])):
                layer = name.split(".", 2)[1]
                shapes = self._geometry.dense_shapes()
                rows = [shapes[f"layers.{layer}.{part}"][0] for part in joined_parts(theirs)]
                part = sum(rows[:at]), sum(rows[: at + 1])
                return self._merged(
                    source, [self._low_rank(found, (sum(rows), source.shape[1]), rows=part, order=order)]
                )
        return source

    def expert(self, key: ExpertKey, expert: Expert) -> Expert:
        """An expert, or a slice of a dense layer, with what the adapter adds to its matrices."""
        added: dict[str, list[LowRank]] = {}
        for half in ("gate", "up", "down"):
            if one := self._of_expert(key, half):
                name = half if half in expert else "gate_up"
                at = self._geometry.intermediate_size if name == "gate_up" and half == "up" else 0
                added.setdefault(name, []).append(one._replace(at=at))
        return {name: self._merged(source, added.get(name, [])) for name, source in expert.items()}

    def _of_expert(self, key: ExpertKey, half: str) -> LowRank | None:
        middle, hidden = self._geometry.intermediate_size, self._geometry.hidden_size
        if self._geometry.has_router:
            found = self._find(expert_spellings(*key, half))
            return self._low_rank(found, (hidden, middle) if half == "down" else (middle, hidden)) if found else None
        found = self._find(spellings(f"layers.{key.layer}.ffn.{half}"))
        if found is None:
            return None
        whole, part = middle * self._geometry.num_experts, (key.expert * middle, (key.expert + 1) * middle)
        if half == "down":
            return self._low_rank(found, (hidden, whole), columns=part)
        return self._low_rank(found, (whole, hidden), rows=part)

    def _find(self, names: Iterator[str]) -> str | None:
        return next((name for name in names if name in self._pairs), None)

    def _low_rank(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        rows: tuple[int, int] | None = None,
        columns: tuple[int, int] | None = None,
        order: tuple[int, int, int] | None = None,
    ) -> LowRank:
        """What is added to some rows and columns of a matrix.  Raises ModelError when it is another model's."""
        pair = self._pairs[name]
        self._unused.pop(name, None)
        found = (pair.b.shape[0], pair.a.shape[1])
        if found != shape:
            raise ModelError(
                f"{self._path}: module {shown(name.removesuffix('.weight'))} is for a matrix {list(found)}; that of "
                f"{self._checkpoint.name} is {list(shape)}; name the model that the adapter was trained for"
            )
        rank = pair.a.shape[0]
        scale = self._alpha / (math.sqrt(rank) if self._settings.get("use_rslora") else rank)
        return LowRank(pair.a, pair.b, scale, rows or (0, shape[0]), columns or (0, shape[1]), order)

    def _merged(self, source: Source, added: list[LowRank]) -> Source:
        if not added:
            return source
        plain = source.dtype if source.stored_as == "bf16" else "BF16"
        places = (*source.places, *(place for one in added for place in (one.a, one.b)))
        return Source(source.shape, places, recipe="adapted", arguments=(source, plain, tuple(added)))

    def require_all_used(self) -> None:
        """Raise ModelError for a module that the model does not have, or that cannot be changed."""
        if name := next(iter(self._unused), None):
            raise ModelError(
                f"{self._path}: module {shown(name.removesuffix('.weight'))} is not one that can be changed in "
                f"{self._checkpoint.name}; {_REMEDY}"
            )


def _require_plain(path: Path, settings: Mapping[str, Any]) -> None:
    if settings.get("peft_type") != "LORA":
        raise ModelError(f"{path}: peft_type is {shown(settings.get('peft_type'))}, not LORA; {_REMEDY}")
    if settings.get("init_lora_weights") not in _PLAIN_STARTS:
        raise ModelError(
            f"{path}: init_lora_weights is {shown(settings['init_lora_weights'])}, which changes the weights below it "
            f"too; {_REMEDY}"
        )
    for name, plain in _PLAIN_VALUES.items():
        if settings.get(name) not in (None, *plain):
            raise ModelError(f"{path}: {name} is {shown(settings[name])}; only plain LoRA is supported; {_REMEDY}")


def _pairs(path: Path) -> Iterator[tuple[str, _Pair]]:
    """(name of the tensor that is changed, its pair).  Raises ModelError."""
    tensors = read_header(path)
    for name, place in tensors.items():
        module, half = name[: -len(_A)], name[-len(_A) :]
        if half not in (_A, _B) or place.dtype not in _FLOATS or len(place.shape) != 2:
            raise ModelError(f"{path}: tensor {shown(name)} is not a matrix of a LoRA of a linear layer; {_REMEDY}")
        other = module + (_B if half == _A else _A)
        if other not in tensors:
            raise ModelError(f"{path}: tensor {shown(name)} has no {shown(other)}; fetch the adapter again")
        if half == _A:
            pair = _Pair(place, tensors[other])
            if len(pair.b.shape) != 2 or pair.b.shape[1] != place.shape[0] or not 0 < place.shape[0] <= MAX_RANK:
                raise ModelError(
                    f"{path}: module {shown(module)}: {list(place.shape)} and {list(pair.b.shape)} are not a pair; "
                    "fetch the adapter again"
                )
            yield plain_name(module.removeprefix(_PREFIX)) + ".weight", pair
