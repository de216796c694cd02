"""`models`, and `plan --model`: models by name that are not on disk, and what this machine would do with them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rotary_batch.commands.hub import not_on_disk
from rotary_batch.commands.packs import described_pack
from rotary_batch.commands.plan import forecast
from rotary_batch.config import Settings, did_you_mean
from rotary_batch.errors import ModelError, UnavailableError
from rotary_batch.model.footprint import Workload, footprint
from rotary_batch.model.known_models import KnownModel, known_models
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.memory_plan import LONGEST_TOKENS, minimum_nbytes

# What a forecast is for when there is no queue: the lengths of benchmarks.
STANDARD = Workload(num_items=10_000, prompt_tokens=600, new_tokens=100, longest_tokens=LONGEST_TOKENS)
_NOT_TOLD = ("model", "experts", "items", "items_by_deadline")  # of a forecast: said elsewhere


def listed(settings: Settings) -> list[dict[str, Any]]:
    """Every known model in the smallest of its usual formats."""
    return [
        _facts(model) | {"format": _format(model, model.formats[-1], settings)} for model in known_models().values()
    ]


def detailed(name: str, settings: Settings) -> dict[str, Any]:
    """One model in each of its usual formats.  Raises ModelError for an unknown name."""
    model = known(name)
    return _facts(model) | {"formats": [_format(model, stored_as, settings) for stored_as in model.formats]}


def known(name: str) -> KnownModel:
    """A model by its name or its repository.  Raises ModelError."""
    for model in known_models().values():
        if name.lower() in {model.name, model.repository.lower()}:
            return model
    advice = did_you_mean(name.lower(), known_models()) or "; `rotary-batch models` lists the known ones"
    raise ModelError(f"{name}: no such model{advice}")


def manifest_named(settings: Settings, model: Path) -> Manifest:
    """The manifest of a folder, or that of a known model in the smallest of its formats.  Raises ModelError."""
    if model.exists():
        return described_pack(replace(settings, model=model))[1]
    try:
        named = known(str(model))
    except ModelError as error:
        raise ModelError(f"{not_on_disk(model, os.environ)}; or name one that `rotary-batch models` lists") from error
    return named.manifest(named.formats[-1])


def _facts(model: KnownModel) -> dict[str, Any]:
    geometry = model.geometry
    return {
        "name": model.name,
        "repository": model.repository,
        "licence": model.licence,
        "params": model.num_params,
        "active_params": model.num_active_params,
        "context_tokens": geometry.max_position,
        "layers": geometry.num_layers,
        "experts_per_layer": geometry.num_experts,
        "top_k": geometry.top_k,
        "is_opened": model.is_opened,
        "download": _download(model),
    }


def _download(model: KnownModel) -> str:
    """The command that gets it; rotary-batch itself downloads nothing."""
    return shlex.join(["hf", "download", model.repository, "--local-dir", model.repository.rpartition("/")[2]])


def _format(model: KnownModel, stored_as: str, settings: Settings) -> dict[str, Any]:
    manifest = model.manifest(stored_as)
    sizes = footprint(manifest, settings.kv, 2, 2, settings.device)
    return {
        "experts": stored_as,
        "expert_nbytes": manifest.slab_nbytes,
        "experts_nbytes": manifest.experts_nbytes,
        "dense_nbytes": sizes.dense_nbytes,
        "kv_token_nbytes": sizes.kv_token_nbytes,
        "state_nbytes": sizes.state_nbytes,
        "least_device_memory": minimum_nbytes(sizes, LONGEST_TOKENS),
        "here": dict(_here(manifest, settings)),
    }


def _here(manifest: Manifest, settings: Settings) -> Iterator[tuple[str, Any]]:
    """What this machine would do with a standard queue; a reason when that is not known, or when it does not fit."""
    try:
        answer = forecast(manifest, settings, STANDARD, None)
    except UnavailableError as error:
        yield "does_not_fit", str(error)
        return
    yield from ((name, value) for name, value in answer.items() if name not in _NOT_TOLD)
