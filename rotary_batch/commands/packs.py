"""The pack that a command uses: the embedded one, the one that is named, or the one of an earlier index."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.hub import not_on_disk
from rotary_batch.config import Settings, cache_dir
from rotary_batch.errors import ModelError
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.work.rows import RepositoryRow

EMBEDDED = Path(__file__).parent.parent / "embedded"


def find_pack(settings: Settings, progress: Callable[[int, int], None] | None = None) -> Path:
    """The embedded pack, `--model PACK`, or `--model CHECKPOINT` packed into the cache.

    `progress` gets (experts packed, experts to pack).  If it raises, packing stops, and the next call continues it.
    Raises ModelError.
    """
    model = _folder(settings)
    if (model / MANIFEST_NAME).is_file():
        return model
    from rotary_batch.engine.packs.pack import pack_into_cache  # only packing needs torch

    return pack_into_cache(model, _cache(), experts=settings.experts, progress=progress)


def described_pack(settings: Settings) -> tuple[Path, Manifest]:
    """The pack that `find_pack` would return, and its manifest, or one like it when the pack is not made yet.

    Nothing is packed.  Raises ModelError.
    """
    model = _folder(settings)
    if not (model / MANIFEST_NAME).is_file():
        from rotary_batch.engine.packs.checkpoint import (  # headers only, without torch
            cached_pack,
            open_checkpoint,
            unpacked_manifest,
        )

        checkpoint = open_checkpoint(model)
        pack = cached_pack(checkpoint, _cache(), settings.experts)
        if not (pack / MANIFEST_NAME).is_file():
            return pack, unpacked_manifest(checkpoint, settings.experts)
        model = pack
    return model, Manifest.load(model)


def _folder(settings: Settings) -> Path:
    """The folder that is named, a pack or a checkpoint.  Raises ModelError, also for experts of another format."""
    model = model_folder(settings.model or EMBEDDED)
    if (model / MANIFEST_NAME).is_file():
        experts = Manifest.load(model).experts
        if settings.experts not in {None, experts}:
            raise ModelError(f"{model}: its experts are {experts}, not {settings.experts}; pack the checkpoint again")
    return model


def model_folder(model: Path) -> Path:
    """The same path, if it is a GGUF file, or the folder of a pack or of a checkpoint.  Raises ModelError."""
    if model.suffix == ".gguf" and model.is_file():
        return model
    if not model.is_dir():
        raise ModelError(not_on_disk(model, os.environ))
    if not any((model / name).exists() for name in (MANIFEST_NAME, "config.json")) and not any(model.glob("*.gguf")):
        files = f"no {MANIFEST_NAME}, no config.json and no GGUF file"
        raise ModelError(f"{model}: neither a pack nor a checkpoint, since it has {files}; name another folder")
    return model


def _cache() -> Path:
    """Where packs of checkpoints are made."""
    return cache_dir(os.environ) / "packs"


def indexed_pack(row: RepositoryRow) -> Path:
    """The pack that a repository was indexed with.  Raises ModelError when it no longer exists."""
    pack = Path(row.pack_dir)
    if (pack / MANIFEST_NAME).is_file():
        return pack
    if row.model_name == Manifest.load(EMBEDDED).name:  # that one moves with the program
        return EMBEDDED
    raise ModelError(f"{pack}: {row.root} was indexed with this model, and it is gone; name one with --model")


def keeping_model_and_job(own: RepositorySettings, row: RepositoryRow | None) -> RepositorySettings:
    """A repository keeps the model and the job that it was indexed with until others are named."""
    if row is None:
        return own
    settings = replace(own.settings, job=own.settings.job or row.job)
    if settings.model is None:
        settings = replace(settings, model=indexed_pack(row))
    return own._replace(settings=settings)
