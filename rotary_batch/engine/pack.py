"""Turn a checkpoint into a pack: one file of page-aligned slabs, one of the dense part, a manifest.

Knows the file layout (any safetensors reader opens both files); knows nothing of how slabs are used.
A killed run goes on at the first slab that its journal does not hold, and gives the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rotary_batch.core import ExpertKey
from rotary_batch.engine.checkpoint import Checkpoint, TensorPlace, open_checkpoint, pieces
from rotary_batch.errors import ModelError, StorageError
from rotary_batch.model.geometry import DTYPE_NBYTES
from rotary_batch.model.manifest import (
    DENSE_NAME,
    EXPERTS_NAME,
    MANIFEST_NAME,
    PAGE_NBYTES,
    Manifest,
    SlabPlace,
)  # fmt: skip
from rotary_batch.model.tokens import TOKENIZER_FILES, Tokenizer

FORMATS = ("bf16",)
SYNC_NBYTES = 64 * 2**20  # a slab enters the journal only after its bytes are on disk; one sync covers this much
_JOURNAL = "packing.journal"
_PART = ".part"
Progress = Callable[[int, int], None]


def pack(
    src: Path,
    dst: Path,
    *,
    experts: str = "bf16",
    progress: Progress | None = None,
    extra: dict[str, Any] | None = None,
) -> Manifest:
    """Pack the checkpoint `src` into the folder `dst`; `extra` are manifest fields of a demonstration model.

    Raises ModelError for a bad checkpoint or a `dst` that holds another pack, StorageError for a full disk.
    """
    if experts not in FORMATS:
        raise ModelError(f"--experts {experts!r}: this version packs {', '.join(FORMATS)}")
    if dst.exists() and src.resolve() == dst.resolve():
        raise ModelError(f"{dst}: source and destination are the same folder; name another destination")
    checkpoint = open_checkpoint(src)
    if (dst / MANIFEST_NAME).is_file():
        return _existing(dst, checkpoint)
    with _disk_errors(dst):
        dst.mkdir(parents=True, exist_ok=True)
        _require_space(dst, checkpoint)
        slabs = _write_experts(checkpoint, dst, progress or (lambda _done, _total: None))
        dense_sha256 = _write_dense(checkpoint, dst)
        for name in ("config.json", *TOKENIZER_FILES):
            if (src / name).is_file():
                shutil.copyfile(src / name, dst / name)
        manifest = _manifest(checkpoint, dst, slabs, dense_sha256, extra or {})
        (dst / "source.txt").write_text(checkpoint.digest + "\n")
        manifest.save(dst)
        (dst / _JOURNAL).unlink(missing_ok=True)
    return manifest


def pack_into_cache(src: Path, cache: Path, progress: Progress | None = None) -> Path:
    """The pack of a checkpoint below `cache`; made on first use."""
    dst = cache / f"{src.resolve().name}-{open_checkpoint(src).digest[:12]}-bf16"
    pack(src, dst, progress=progress)
    return dst


def verify(pack_dir: Path, progress: Progress | None = None) -> list[str]:
    """Read every byte of a pack again; the files and slabs whose digest is wrong."""
    manifest = Manifest.load(pack_dir)
    wrong = [] if _file_sha256(pack_dir / DENSE_NAME) == manifest.dense_sha256 else [DENSE_NAME]
    if Tokenizer.load(pack_dir).digest != manifest.tokenizer_sha256:
        wrong.append("tokenizer.json")
    for done, (key, place) in enumerate(sorted(manifest.slabs.items()), 1):
        run = TensorPlace(pack_dir / EXPERTS_NAME, place.offset, place.nbytes, "U8", (place.nbytes,))
        if _sha256(pieces(run)) != place.sha256:
            wrong.append(f"{EXPERTS_NAME}: layer {key.layer} expert {key.expert}")
        if progress:
            progress(done, len(manifest.slabs))
    return wrong


def _existing(dst: Path, checkpoint: Checkpoint) -> Manifest:
    source = dst / "source.txt"
    if not source.is_file() or source.read_text().strip() != checkpoint.digest:
        raise ModelError(f"{dst}: already holds a pack of another checkpoint; name another folder or delete this one")
    return Manifest.load(dst)


def _manifest(
    checkpoint: Checkpoint, dst: Path, slabs: dict[ExpertKey, SlabPlace], dense_sha256: str, extra: dict[str, Any]
) -> Manifest:
    fields: dict[str, Any] = {
        "name": checkpoint.model_dir.resolve().name,
        "context_tokens": checkpoint.geometry.max_position,
    } | extra
    digest = Tokenizer.load(dst).digest
    return Manifest(
        geometry=checkpoint.geometry,
        experts="bf16",
        slabs=slabs,
        dense_sha256=dense_sha256,
        tokenizer_sha256=digest,
        **fields,
    )


def _slab_nbytes(checkpoint: Checkpoint) -> int:
    used = checkpoint.geometry.expert_params * DTYPE_NBYTES[checkpoint.geometry.dtype]
    return -(-used // PAGE_NBYTES) * PAGE_NBYTES


def _require_space(dst: Path, checkpoint: Checkpoint) -> None:
    part = dst / (EXPERTS_NAME + _PART)
    have = shutil.disk_usage(dst).free + (part.stat().st_blocks * 512 if part.is_file() else 0)
    need = _slab_nbytes(checkpoint) * len(checkpoint.experts) + sum(p.nbytes for p in checkpoint.dense.values())
    if have < need:
        raise StorageError(f"{dst}: packing needs {need:,} bytes, {have:,} are free; free {need - have:,} bytes")


def _write_experts(checkpoint: Checkpoint, dst: Path, progress: Progress) -> dict[ExpertKey, SlabPlace]:
    if (dst / EXPERTS_NAME).is_file():  # killed between the rename and the manifest
        return _read_journal(dst, checkpoint)
    slab_nbytes, keys = _slab_nbytes(checkpoint), list(checkpoint.experts)
    names = [f"layers.{key.layer}.experts.{key.expert}" for key in keys]
    header = _header(dict.fromkeys(names, ("U8", (slab_nbytes,), slab_nbytes)))
    done = _read_journal(dst, checkpoint)
    part = dst / (EXPERTS_NAME + _PART)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, len(header) + slab_nbytes * len(keys))
        os.pwrite(descriptor, header, 0)
        with (dst / _JOURNAL).open("a") as journal:
            if not done:
                journal.truncate(0)
                journal.write(checkpoint.digest + "\n")
            pending: list[tuple[ExpertKey, SlabPlace]] = []
            for position, key in enumerate(keys):
                if key not in done:
                    offset = len(header) + position * slab_nbytes
                    pending.append((key, _write_slab(descriptor, offset, slab_nbytes, checkpoint.experts[key])))
                if len(pending) * slab_nbytes >= SYNC_NBYTES or (pending and position + 1 == len(keys)):
                    _commit(descriptor, journal, pending)
                    done |= dict(pending)
                    pending = []
                progress(position + 1, len(keys))
    finally:
        os.close(descriptor)
    part.replace(dst / EXPERTS_NAME)
    return done


def _write_slab(descriptor: int, offset: int, slab_nbytes: int, places: Sequence[TensorPlace]) -> SlabPlace:
    digest, position = hashlib.sha256(), offset
    padding = memoryview(bytes(slab_nbytes - sum(place.nbytes for place in places)))
    for run in chain(*(pieces(place) for place in places), [padding]):
        digest.update(run)
        _write_all(descriptor, run, position)
        position += len(run)
    return SlabPlace(offset, slab_nbytes, digest.hexdigest())


def _write_all(descriptor: int, run: memoryview, position: int) -> None:
    while run:
        count = os.pwrite(descriptor, run, position)
        run, position = run[count:], position + count


def _commit(descriptor: int, journal: Any, pending: Iterable[tuple[ExpertKey, SlabPlace]]) -> None:  # noqa: ANN401
    os.fdatasync(descriptor)
    for key, place in pending:
        journal.write(f"{key.layer} {key.expert} {place.offset} {place.nbytes} {place.sha256}\n")
    journal.flush()
    os.fsync(journal.fileno())


def _read_journal(dst: Path, checkpoint: Checkpoint) -> dict[ExpertKey, SlabPlace]:
    """What an earlier run of the same packing wrote; a line without its end was being written at the kill."""
    path = dst / _JOURNAL
    text = path.read_text() if path.is_file() else ""
    whole = text[: text.rfind("\n") + 1].splitlines()
    if not whole or whole[0] != checkpoint.digest:
        for name in (EXPERTS_NAME, EXPERTS_NAME + _PART):
            (dst / name).unlink(missing_ok=True)
        return {}
    if len(text) != text.rfind("\n") + 1:
        path.write_text("\n".join(whole) + "\n")
    rows = [line.split() for line in whole[1:]]
    return {ExpertKey(int(a), int(b)): SlabPlace(int(offset), int(size), digest) for a, b, offset, size, digest in rows}


def _write_dense(checkpoint: Checkpoint, dst: Path) -> str:
    header = _header({name: (place.dtype, place.shape, place.nbytes) for name, place in checkpoint.dense.items()})
    part = dst / (DENSE_NAME + _PART)
    with part.open("wb") as file:
        file.write(header)
        for place in checkpoint.dense.values():
            for run in pieces(place):
                file.write(run)
        file.flush()
        os.fsync(file.fileno())
    part.replace(dst / DENSE_NAME)
    return _file_sha256(dst / DENSE_NAME)


def _header(tensors: dict[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """A safetensors header whose data starts on a page: the JSON is padded with spaces, as the format allows."""
    table, offset = {}, 0
    for name, (dtype, shape, nbytes) in tensors.items():
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    length = -(-(8 + len(text)) // PAGE_NBYTES) * PAGE_NBYTES - 8
    return struct.pack("<Q", length) + text.ljust(length)


def _file_sha256(path: Path) -> str:
    return _sha256(pieces(TensorPlace(path, 0, path.stat().st_size, "U8", ())))


def _sha256(runs: Iterable[memoryview]) -> str:
    digest = hashlib.sha256()
    for run in runs:
        digest.update(run)
    return digest.hexdigest()


@contextlib.contextmanager
def _disk_errors(dst: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = (
            " (what is written so far is kept; free some space and run it again)" if error.errno == errno.ENOSPC else ""
        )
        raise StorageError(f"{dst}: {error.strerror}{full}") from error
