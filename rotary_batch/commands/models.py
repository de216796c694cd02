"""`model info`: what a pack holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rotary_batch.model.manifest import Manifest


def info(pack_dir: Path) -> dict[str, Any]:
    """What a pack holds.  Raises ModelError."""
    manifest = Manifest.load(pack_dir)
    geometry = manifest.geometry
    return {
        "name": manifest.name,
        "path": str(pack_dir),
        "experts": manifest.experts,
        "dtype": geometry.dtype,
        "layers": geometry.num_layers,
        "experts_per_layer": geometry.num_experts,
        "top_k": geometry.top_k,
        "hidden_size": geometry.hidden_size,
        "intermediate_size": geometry.intermediate_size,
        "vocab_size": geometry.vocab_size,
        "context_tokens": manifest.context_tokens,
        "slab_nbytes": manifest.slab_nbytes,
        "experts_nbytes": manifest.experts_nbytes,
        "numerics": manifest.default_numerics,
        "demonstration": manifest.demonstration,
        "min_mean_logprob": manifest.min_mean_logprob,
        "weights_digest": manifest.weights_digest,
    }
