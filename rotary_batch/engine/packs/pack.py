"""Turn a checkpoint into a pack: one file of page-aligned slabs, one of the dense part, a manifest."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.adapter import Adapted, open_model
from rotary_batch.engine.packs.checkpoint import Checkpoint, cached_pack
from rotary_batch.engine.packs.journal import Journal, locked_journal
from rotary_batch.engine.packs.tensors import pieces
from rotary_batch.engine.packs.writer import (
    PART_SUFFIX,
    Packing,
    Progress,
    file_sha256,
    sha256_of,
    slab_bytes,
    write_dense,
    write_experts,
)
from rotary_batch.errors import ModelError, StorageError
from rotary_batch.model.chat_rendering import FILE_NAME as RENDERING_NAME
from rotary_batch.model.gguf_tokenizer import tokenizer_files
from rotary_batch.model.manifest import (
    DENSE_FORMATS,
    DENSE_NAME,
    EXPERTS_NAME,
    MANIFEST_NAME,
    MAX_NOTES,
    ORIGINAL,
    Manifest,
    SlabPlace,
)
from rotary_batch.model.tokens import TOKENIZER_FILES, Tokenizer

_SOURCE_NAME = "source.txt"
Check = Callable[[Checkpoint, Path, Manifest], None]  # of a pack without a manifest


def pack(
    src: Path | Adapted,
    dst: Path,
    *,
    experts: str | None = None,
    dense: str | None = None,
    progress: Progress | None = None,
    extra: dict[str, Any] | None = None,
    check: Check | None = None,
) -> Manifest:
    """Pack the checkpoint `src`, its adapter merged, into the folder `dst`.

    `extra` are manifest fields of a demonstration model.
    `check` raises ModelError for a pack that must not be used; it has no manifest yet then.

    `experts` is bf16 (the checkpoint's own bits), int8 or int4; None = the checkpoint's own bits, also where they are
    quantised.  `dense` is bf16 (the checkpoint's own bits) or int8; None is bf16, unless an adapter's author says int8.
    Raises ModelError for a bad checkpoint or a `dst` that has another pack, StorageError for a full disk, BusyError.
    """
    packing = _checked_packing(src, dst, experts, dense)
    if (dst / MANIFEST_NAME).is_file():
        return _existing(packing)
    with _disk_errors(dst):
        dst.mkdir(parents=True, exist_ok=True)
        _require_space(packing)
        with locked_journal(dst) as journal:
            if (dst / MANIFEST_NAME).is_file():  # another process has finished since the check above
                journal.remove()
                return _existing(packing)
            manifest = _write(packing, journal, progress or (lambda _done, _total: None), extra or {})
            if check is not None:
                check(packing.checkpoint, dst, manifest)
            manifest.save(dst)
            journal.remove()
            return manifest


def _checked_packing(src: Path | Adapted, dst: Path, experts: str | None, dense: str | None) -> Packing:
    """Everything that can be refused is refused here, before anything is written."""
    if dense not in (None, *DENSE_FORMATS):
        raise ModelError(f"--dense {dense!r}: this version packs {', '.join(DENSE_FORMATS)}")
    if dst.exists() and dst.resolve() in {path.resolve() for path in (src if isinstance(src, Adapted) else (src,))}:
        raise ModelError(f"{dst}: source and destination are the same folder; name another destination")
    checkpoint = open_model(src)
    packing = Packing(checkpoint, dst, checkpoint.experts_format(experts), dense or checkpoint.dense_format)
    assert packing.layouts(), "computing the layouts raises for an impossible format"
    _small_files(checkpoint)
    return packing


def _small_files(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The configuration and the tokenizer, which is read first: ModelError when it cannot be."""
    if checkpoint.gguf_keys is None:
        Tokenizer.load(checkpoint.path)
        paths = {name: checkpoint.path / name for name in TOKENIZER_FILES}
        texts = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    else:
        built = tokenizer_files(checkpoint.gguf_keys, checkpoint.path).by_name()
        texts = {name: text.encode() for name, text in built.items()}
    return {"config.json": checkpoint.config} | texts


def _write(packing: Packing, journal: Journal, progress: Progress, extra: dict[str, Any]) -> Manifest:
    checkpoint, dst = packing.checkpoint, packing.dst
    if journal.digest != packing.digest:
        for name in (EXPERTS_NAME, EXPERTS_NAME + PART_SUFFIX):
            (dst / name).unlink(missing_ok=True)
        journal.start(packing.digest)
    slabs = write_experts(packing, journal, progress)
    dense_sha256 = write_dense(packing)
    for name, data in _small_files(checkpoint).items():
        (dst / name).write_bytes(data)
    tokenizer = Tokenizer.load(dst)
    tokenizer.keep_rendering(dst)
    manifest = _manifest(packing, slabs, dense_sha256, tokenizer.digest, extra)
    (dst / _SOURCE_NAME).write_text(packing.digest + "\n")
    _sync(*(path for path in dst.iterdir() if path.is_file()), dst)
    return manifest


def pack_into_cache(
    src: Path | Adapted, cache: Path, check: Check, experts: str | None = None, progress: Progress | None = None
) -> Path:
    """The pack of a checkpoint below `cache`; made on first use."""
    dst = cached_pack(open_model(src), cache, experts)
    pack(src, dst, experts=experts, progress=progress, check=check)
    return dst


def verify(pack_dir: Path, progress: Progress | None = None) -> list[str]:
    """Read every byte of a pack; the names of files and slabs with a wrong digest."""
    manifest = Manifest.load(pack_dir)
    damaged = [] if file_sha256(pack_dir / DENSE_NAME) == manifest.dense_sha256 else [DENSE_NAME]
    tokenizer = Tokenizer.load(pack_dir)
    if tokenizer.digest != manifest.tokenizer_sha256:
        damaged.append("tokenizer.json")
    if not tokenizer.renders_as_kept:
        damaged.append(RENDERING_NAME)
    for done, (key, place) in enumerate(sorted(manifest.slabs.items()), 1):
        if sha256_of(pieces(slab_bytes(pack_dir / EXPERTS_NAME, place))) != place.sha256:
            damaged.append(f"{EXPERTS_NAME}: layer {key.layer} expert {key.expert}")
        if progress:
            progress(done, len(manifest.slabs))
    return damaged


def _existing(packing: Packing) -> Manifest:
    source = packing.dst / _SOURCE_NAME
    digest = source.read_text().strip() if source.is_file() else ""
    if digest == packing.digest:
        return Manifest.load(packing.dst)
    what = "of another checkpoint" if digest.split()[:1] != [packing.checkpoint.digest] else f"as {digest[65:]}"
    raise ModelError(f"{packing.dst}: already holds a pack {what}; name another folder or delete this one")


def _manifest(
    packing: Packing, slabs: dict[ExpertKey, SlabPlace], dense_sha256: str, tokenizer_sha256: str, extra: dict[str, Any]
) -> Manifest:
    checkpoint = packing.checkpoint
    return Manifest(
        geometry=checkpoint.geometry,
        experts=packing.experts,
        dense=packing.dense,
        layer_formats=checkpoint.layer_formats if packing.experts == ORIGINAL else {},
        dense_formats=checkpoint.dense_formats,
        left_out=checkpoint.notes[:MAX_NOTES],
        slabs=slabs,
        dense_sha256=dense_sha256,
        tokenizer_sha256=tokenizer_sha256,
        **{**checkpoint.manifest_fields, **extra},
    )


def _require_space(packing: Packing) -> None:
    checkpoint, dst = packing.checkpoint, packing.dst
    part = dst / (EXPERTS_NAME + PART_SUFFIX)
    have = shutil.disk_usage(dst).free + (part.stat().st_blocks * 512 if part.is_file() else 0)
    layouts = packing.layouts()
    experts_nbytes = sum(layouts[key.layer].nbytes for key in checkpoint.experts)
    need = experts_nbytes + sum(source.nbytes for source in checkpoint.dense.values())
    if have < need:
        raise StorageError(f"{dst}: packing needs {need:,} bytes, {have:,} are free; free {need - have:,} bytes")


def _sync(*paths: Path) -> None:
    """Sync files and folders: after a power cut a manifest must not exist without what it describes."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(dst: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = (
            " (what is written so far is kept; free some space and run it again)" if error.errno == errno.ENOSPC else ""
        )
        raise StorageError(f"{dst}: {error.strerror}{full}") from error
