"""Models by name, without a file of them: known_models.toml has their shapes, licences and formats.

Parameters, bytes and memory are computed from the shapes, so no number is stated twice.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rotary_batch.model.families import FAMILIES
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import ORIGINAL, Manifest, SlabPlace
from rotary_batch.model.slabs import PAGE_NBYTES

BITS = {  # of one weight of an expert, scales included
    "bf16": 16.0,
    "Q8_0": 8.5,
    "fp8": 8.002,  # a float32 scale for 128 x 128 weights
    "Q4_K_M": 4.84,  # Q4_K; half of the down projections are Q6_K
    "mxfp4": 4.25,
}
_STORED = {
    "bf16": "bf16",
    "Q8_0": "ggml:Q8_0",
    "fp8": "fp8:128x128",
    "Q4_K_M": "ggml:Q4_K",
    "mxfp4": "ggml:MXFP4",
}
_DOWN = {"Q4_K_M": "ggml:Q6_K"}  # in every second layer
_ALIKE: dict[str, Any] = {  # what decides no size
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "dtype": "BF16",
    "eos_ids": (),
    "tie_word_embeddings": False,
    "sliding_window": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """One model that people have on disk."""

    name: str
    repository: str  # on Hugging Face
    licence: str
    architecture: str  # as config.json names it
    formats: tuple[str, ...]  # of the experts in its usual files, the smallest last
    geometry: Geometry

    @property
    def is_opened(self) -> bool:
        """Whether this version has the model's family."""
        return any(self.architecture in family.architectures for family in FAMILIES)

    @property
    def num_params(self) -> int:
        """All parameters."""
        return self.dense_params + sum(1 for _ in self.geometry.expert_keys()) * self._expert_params

    @property
    def num_active_params(self) -> int:
        """Parameters that one token passes: of embeddings that are not the head too, only its own row."""
        geometry = self.geometry
        unused = 0 if geometry.tie_word_embeddings else geometry.vocab_size * geometry.hidden_size
        chosen = len(geometry.moe_layers) * geometry.top_k * self._expert_params
        return self.dense_params - unused + chosen

    @property
    def dense_params(self) -> int:
        """Everything but the experts that a router chooses from."""
        return sum(math.prod(shape) for shape in self.geometry.dense_shapes().values())

    @property
    def _expert_params(self) -> int:
        """Of one expert, its biases included."""
        return self.geometry.expert_params + sum(self.geometry.expert_bias_sizes.values())

    def expert_nbytes(self, stored_as: str) -> int:
        """Bytes of one expert in one of the formats of `BITS`; biases are float32."""
        biases_nbytes = 4 * sum(self.geometry.expert_bias_sizes.values())
        return round(self.geometry.expert_params * BITS[stored_as] / 8) + biases_nbytes

    def manifest(self, stored_as: str) -> Manifest:
        """What a pack of it would be, in one of the formats of `BITS`: sizes, without digests."""
        nbytes = -(-self.expert_nbytes(stored_as) // PAGE_NBYTES) * PAGE_NBYTES
        keys = enumerate(self.geometry.expert_keys())
        return Manifest(
            name=self.name,
            geometry=self.geometry,
            experts="bf16" if stored_as == "bf16" else ORIGINAL,
            layer_formats={layer: _matrices(stored_as, layer) for layer in self.geometry.moe_layers},
            slabs={key: SlabPlace(place * nbytes, nbytes, "") for place, key in keys},
            dense_sha256="",
            tokenizer_sha256="",
            context_tokens=self.geometry.max_position,
        )


def _matrices(stored_as: str, layer: int) -> dict[str, str]:
    """How a layer's matrices are stored in one of the formats of `BITS`."""
    down = _DOWN.get(stored_as, _STORED[stored_as]) if layer % 2 else _STORED[stored_as]
    return {"gate_up": _STORED[stored_as], "down": down}


@cache
def known_models() -> Mapping[str, KnownModel]:
    """All of them by name."""
    table = tomllib.loads((Path(__file__).parent / "known_models.toml").read_text(encoding="utf-8"))
    return {name: _read(name, **entry) for name, entry in table.items()}


def _read(name: str, formats: list[str], geometry: dict[str, Any], **texts: str) -> KnownModel:
    pattern, num_layers = geometry.pop("attention_pattern", []), geometry["num_layers"]
    kinds = tuple(pattern[layer % len(pattern)] for layer in range(num_layers)) if pattern else ()
    switches = {key: tuple(value) if isinstance(value, list) else value for key, value in geometry.items()}
    described = Geometry(**_ALIKE | switches | {"attention_kinds": kinds})
    return KnownModel(name=name, formats=tuple(formats), geometry=described, **texts)
