"""The pack that the settings name: that of the default model, a folder, or the pack of a checkpoint in the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from rotary_batch.commands.default_model import default_model
from rotary_batch.commands.hub import not_on_disk
from rotary_batch.commands.pack_places import Wanted, note_pack, noted_pack
from rotary_batch.config import Settings, cache_dir
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest

if TYPE_CHECKING:
    from rotary_batch.engine.packs.adapter import Adapted


def find_pack(settings: Settings, progress: Callable[[int, int], None] | None = None) -> Path:
    """The pack of the default model, `--model PACK`, or `--model CHECKPOINT` packed into the cache.

    `progress` gets (experts packed, experts to pack).  If it raises, packing stops, and the next call continues it.
    Raises ModelError.
    """
    model, pack = _model(settings), pack_folder(settings)
    if (pack / MANIFEST_NAME).is_file():  # which is written last
        return pack
    from rotary_batch.engine.packs.pack import pack_into_cache  # only packing needs torch
    from rotary_batch.engine.self_check import self_check

    pack = pack_into_cache(model, packs_cache(), self_check, settings.experts, progress)
    note_pack(pack, _wanted(model, settings))
    return pack


def described_pack(settings: Settings) -> tuple[Path, Manifest]:
    """The pack that `find_pack` would return, and its manifest, or one like it when the pack is not made yet.

    Nothing is packed.  Raises ModelError.
    """
    model, pack = _model(settings), pack_folder(settings)
    if (pack / MANIFEST_NAME).is_file():
        return pack, Manifest.load(pack)
    from rotary_batch.engine.packs.adapter import open_model  # headers only, without torch
    from rotary_batch.engine.packs.checkpoint import unpacked_manifest

    return pack, unpacked_manifest(open_model(model), settings.experts)


def pack_folder(settings: Settings) -> Path:
    """Where the pack is that `find_pack` would return, made or not.  Raises ModelError."""
    model = _model(settings)
    if _is_pack(model):
        return model
    noted = noted_pack(packs_cache(), _wanted(model, settings))
    if noted is not None and (noted / MANIFEST_NAME).is_file():
        return noted
    from rotary_batch.engine.packs.adapter import open_model  # headers only, without torch
    from rotary_batch.engine.packs.checkpoint import cached_pack

    return cached_pack(open_model(model), packs_cache(), settings.experts)


def _wanted(model: Path | Adapted, settings: Settings) -> Wanted:
    base, *adapter = [model] if isinstance(model, Path) else model
    return Wanted(base, [base if base.is_dir() else base.parent, *adapter], settings.experts)


def _model(settings: Settings) -> Path | Adapted:
    """What is named, or the default.  Raises ModelError, also for experts of another format than the pack's."""
    model = default_model() if settings.model is None else model_folder(settings.model)
    if settings.experts is not None and _is_pack(model):
        experts = Manifest.load(model).experts
        if settings.experts != experts:
            raise ModelError(f"{model}: its experts are {experts}, not {settings.experts}; pack the checkpoint again")
    return model


def _is_pack(model: Path | Adapted) -> TypeGuard[Path]:
    return isinstance(model, Path) and (model / MANIFEST_NAME).is_file()


def model_folder(model: Path) -> Path:
    """The same path, if it is a GGUF file, or the folder of a pack or of a checkpoint.  Raises ModelError."""
    if model.suffix == ".gguf" and model.is_file():
        return model
    if not model.is_dir():
        raise ModelError(not_on_disk(model, os.environ))
    if not any((model / name).exists() for name in (MANIFEST_NAME, "config.json")) and not any(model.glob("*.gguf")):
        if (model / "adapter_config.json").exists():
            raise ModelError(f"{model}: a LoRA adapter, not a model; merge it: model pack MODEL PACK --adapter {model}")
        files = f"no {MANIFEST_NAME}, no config.json and no GGUF file"
        raise ModelError(f"{model}: neither a pack nor a checkpoint, since it has {files}; name another folder")
    return model


def packs_cache() -> Path:
    """Where packs of checkpoints are made."""
    return cache_dir(os.environ) / "packs"
