"""A checkpoint on disk, under our own names: a folder as Hugging Face publishes it, or a GGUF file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.folder_checkpoint import open_folder
from rotary_batch.engine.packs.gguf import gguf_at, model_name
from rotary_batch.engine.packs.gguf_checkpoint import open_gguf
from rotary_batch.engine.packs.gguf_head import Value
from rotary_batch.engine.packs.quantised.method import CONFIG_NAMES
from rotary_batch.engine.packs.tensors import Expert, Source, TensorPlace
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import ORIGINAL, Manifest, PackFormats, SlabPlace, stored_in
from rotary_batch.model.slabs import expert_layout


class MergedAdapter(NamedTuple):
    """An adapter that is merged into the tensors of a checkpoint."""

    name: str
    config: bytes
    fields: Mapping[str, Any]  # of the manifest of a pack
    formats: PackFormats  # that its author packs it in


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in which every tensor exists with the right shape."""

    path: Path  # the folder, or the first part of a GGUF file
    config: bytes  # its config.json
    geometry: Geometry
    dense: dict[str, Source]  # by our own names
    experts: dict[ExpertKey, Expert]
    notes: tuple[str, ...] = ()  # what of the files is left out
    gguf_keys: Mapping[str, Value] | None = None  # they hold the tokenizer of a GGUF file
    adapter: MergedAdapter | None = None

    @property
    def name(self) -> str:
        """What people call it: the name of the folder, or of the file."""
        name = self.path.resolve().name if self.gguf_keys is None else model_name(self.path)
        return name if self.adapter is None else self.adapter.fields.get("name", f"{name}+{self.adapter.name}")

    @property
    def digest(self) -> str:
        """Identifies the source: config, tensor places, and the size and time of every file."""
        files = sorted({place.path for place in self._places()})
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        configs = [self.path / name for name in CONFIG_NAMES]
        config = self.config + b"".join(path.read_bytes() for path in configs if path.is_file())
        if self.adapter is not None:
            config += self.adapter.config + repr(self.adapter.fields).encode()
        return hashlib.sha256(config + repr(stats).encode()).hexdigest()

    def _places(self) -> Iterator[TensorPlace]:
        for source in (*self.dense.values(), *(part for expert in self.experts.values() for part in expert.values())):
            yield from source.places

    @property
    def layer_formats(self) -> dict[int, dict[str, str]]:
        """How the checkpoint stores each matrix of an expert, by layer."""
        first = {key.layer: expert for key, expert in self.experts.items() if key.expert == 0}
        return {
            layer: {name: source.stored_as for name, source in expert.items() if not name.endswith(".bias")}
            for layer, expert in first.items()
        }

    @property
    def dense_formats(self) -> dict[str, str]:
        """The dense tensors that the checkpoint stores quantised, and how."""
        return {name: source.stored_as for name, source in self.dense.items() if source.stored_as != "bf16"}

    @property
    def manifest_fields(self) -> Mapping[str, Any]:
        """What the manifest of a pack says besides the tensors."""
        fields = {"name": self.name, "context_tokens": self.geometry.max_position}
        return fields | dict(self.adapter.fields if self.adapter else {})

    @property
    def is_plain(self) -> bool:
        """Whether nothing is quantised."""
        return self._has_plain_experts and not self.dense_formats

    @property
    def _has_plain_experts(self) -> bool:
        kinds = {(name, kind) for formats in self.layer_formats.values() for name, kind in formats.items()}
        return kinds == {("gate_up", "bf16"), ("down", "bf16")}

    def experts_format(self, wanted: str | None) -> str:
        """How a pack stores the experts.  Raises ModelError: what is quantised is not quantised again."""
        wanted = wanted or (self.adapter.formats.experts if self.adapter else None)
        if self.is_plain:
            return wanted or "bf16"
        if wanted is None or wanted == ORIGINAL:
            return ORIGINAL
        if not self._has_plain_experts:
            raise ModelError(
                f"{self.path}: its weights are quantised, and are kept as they are; leave out --experts {wanted}"
            )
        return wanted

    @property
    def dense_format(self) -> str:
        """How a pack stores the dense part, when nobody says."""
        return self.adapter.formats.dense if self.adapter else "bf16"


def open_checkpoint(path: Path) -> Checkpoint:
    """Read the headers of a checkpoint: a folder, or a GGUF file.  Raises ModelError naming the file and the fact."""
    gguf = gguf_at(path)
    if gguf is None:
        folder = open_folder(path)
        return Checkpoint(path, *folder)
    model = open_gguf(gguf)
    return Checkpoint(model.path, model.config, model.geometry, model.dense, model.experts, model.notes, model.keys)


def cached_pack(checkpoint: Checkpoint, cache: Path, experts: str | None) -> Path:
    """Where the pack of a checkpoint is below `cache`, once it is made.  Raises ModelError."""
    return cache / f"{checkpoint.name}-{checkpoint.digest[:12]}-{checkpoint.experts_format(experts)}"


def unpacked_manifest(checkpoint: Checkpoint, experts: str | None) -> Manifest:
    """What is known of a pack before it is made: everything but digests.  Raises ModelError."""
    geometry, experts = checkpoint.geometry, checkpoint.experts_format(experts)
    layer_formats = checkpoint.layer_formats if experts == ORIGINAL else {}
    sizes = {
        layer: expert_layout(geometry, stored_in(geometry, experts, layer_formats, layer)).nbytes
        for layer in geometry.moe_layers
    }
    slabs, offset = {}, 0
    for key in geometry.expert_keys():
        slabs[key] = SlabPlace(offset, sizes[key.layer], "")
        offset += sizes[key.layer]
    return Manifest(
        geometry=geometry,
        experts=experts,
        dense=checkpoint.dense_format,
        layer_formats=layer_formats,
        dense_formats=checkpoint.dense_formats,
        left_out=checkpoint.notes,
        slabs=slabs,
        dense_sha256="",
        tokenizer_sha256="",
        **checkpoint.manifest_fields,
    )
