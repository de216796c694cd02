"""The manifest of a pack: what is in it, where, and the digests that prove it.

Knows JSON and byte ranges; knows nothing of torch.  It is written last, so a pack with a manifest is whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.slabs import SlabLayout, slab_layout

MANIFEST_NAME = "manifest.json"
EXPERTS_NAME = "experts.safetensors"
DENSE_NAME = "dense.safetensors"
FORMAT = "rotary-batch pack 1"
EXACT_MAX_NBYTES = 10**9  # packs up to this default to exact numerics


class SlabPlace(NamedTuple):
    """Where one slab lies in experts.safetensors, tail padding included."""

    offset: int
    nbytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A pack, described."""

    name: str
    geometry: Geometry
    experts: str  # how slabs are stored (model/slabs.py): bf16 = the checkpoint's own bits
    dense: str = "bf16"  # how attention, embeddings and head are stored: bf16 = the checkpoint's own bits, or int8
    slabs: Mapping[ExpertKey, SlabPlace]
    dense_sha256: str
    tokenizer_sha256: str
    demonstration: bool = False
    context_tokens: int
    chunk_tokens: int | None = None  # the largest chunk that the model can make sense of
    min_mean_logprob: float | None = None  # prose below this confidence is not shown

    @property
    def slab_nbytes(self) -> int:
        """Bytes of one slot of the ring."""
        return max(place.nbytes for place in self.slabs.values())

    @property
    def layout(self) -> SlabLayout:
        """What lies where in a slab."""
        return slab_layout(self.geometry, self.experts)

    @property
    def experts_nbytes(self) -> int:
        """Bytes of all slabs."""
        return sum(place.nbytes for place in self.slabs.values())

    @property
    def weights_digest(self) -> str:
        """One digest of every weight; part of each result's key."""
        parts = [
            self.dense_sha256,
            *(f"{key.layer} {key.expert} {p.sha256}" for key, p in sorted(self.slabs.items())),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def default_numerics(self) -> str:
        """Exact for small packs, fast for large ones."""
        return "exact" if self.experts_nbytes <= EXACT_MAX_NBYTES else "fast"

    def save(self, pack_dir: Path) -> None:
        """Write it in one piece."""
        slabs = [[key.layer, key.expert, *place] for key, place in sorted(self.slabs.items())]
        table = {"format": FORMAT, **{name: getattr(self, name) for name in _PLAIN}}
        table |= {"geometry": self.geometry.as_dict(), "slabs": slabs}
        temporary = pack_dir / (MANIFEST_NAME + ".tmp")
        temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        temporary.replace(pack_dir / MANIFEST_NAME)

    @classmethod
    def load(cls, pack_dir: Path) -> Manifest:
        """Read and check it.  Raises ModelError."""
        path = pack_dir / MANIFEST_NAME
        try:
            table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if table.get("format") != FORMAT:
                raise ModelError(
                    f"{path}: format {table.get('format')!r}, this version reads {FORMAT!r}; pack the model again"
                )
            slabs = {ExpertKey(layer, expert): SlabPlace(*place) for layer, expert, *place in table["slabs"]}
            geometry = Geometry.from_dict(table["geometry"])
            return cls(geometry=geometry, slabs=slabs, **{name: table[name] for name in _PLAIN})
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}; this is not a pack, make one with `model pack`") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path}: damaged manifest: {error}; pack the model again") from error


_PLAIN = (
    "name", "experts", "dense", "dense_sha256", "tokenizer_sha256", "demonstration", "context_tokens", "chunk_tokens",
    "min_mean_logprob",
)  # fmt: skip
