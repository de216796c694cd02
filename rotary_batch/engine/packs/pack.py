"""Turn a checkpoint into a pack: one file of page-aligned slabs, one of the dense part, a manifest.

Knows the file layout (any safetensors reader opens both files); knows nothing of how slabs are used.
A killed run goes on at the first slab that its journal does not hold, and gives the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.checkpoint import Checkpoint, TensorPlace, open_checkpoint, pieces
from rotary_batch.errors import BusyError, ModelError, StorageError
from rotary_batch.model.manifest import (
    DENSE_FORMATS,
    DENSE_NAME,
    EXPERTS_NAME,
    MANIFEST_NAME,
    Manifest,
    SlabPlace,
)
from rotary_batch.model.slabs import PAGE_NBYTES, SlabLayout, slab_layout
from rotary_batch.model.tokens import TOKENIZER_FILES, Tokenizer

SYNC_NBYTES = 64 * 2**20  # a slab enters the journal only after its bytes are on disk; one sync covers this much
_JOURNAL = "packing.journal"
_PART = ".part"
Progress = Callable[[int, int], None]


def pack(
    src: Path,
    dst: Path,
    *,
    experts: str = "bf16",
    dense: str = "bf16",
    progress: Progress | None = None,
    extra: dict[str, Any] | None = None,
) -> Manifest:
    """Pack the checkpoint `src` into the folder `dst`; `extra` are manifest fields of a demonstration model.

    `experts` is one of the formats of model/slabs.py, `dense` bf16 (the checkpoint's own bits) or int8.
    Raises ModelError for a bad checkpoint or a `dst` that holds another pack, StorageError for a full disk.
    """
    if dense not in DENSE_FORMATS:
        raise ModelError(f"--dense {dense!r}: this version packs {', '.join(DENSE_FORMATS)}")
    if dst.exists() and src.resolve() == dst.resolve():
        raise ModelError(f"{dst}: source and destination are the same folder; name another destination")
    packing = _Packing(open_checkpoint(src), dst, experts, dense)
    assert packing.layout.nbytes, "an impossible format is refused here, before anything is written"
    Tokenizer.load(src)  # and a damaged tokenizer
    if (dst / MANIFEST_NAME).is_file():
        return _existing(packing)
    with _disk_errors(dst):
        dst.mkdir(parents=True, exist_ok=True)
        _require_space(packing)
        with _locked_journal(packing) as journal:
            if (dst / MANIFEST_NAME).is_file():  # another process has finished since the look above
                (dst / _JOURNAL).unlink()
                return _existing(packing)
            _begin(packing, journal)
            slabs = _write_experts(packing, journal, progress or (lambda _done, _total: None))
            dense_sha256 = _write_dense(packing)
            for name in ("config.json", *TOKENIZER_FILES):
                if (src / name).is_file():
                    shutil.copyfile(src / name, dst / name)
            manifest = _manifest(packing, slabs, dense_sha256, extra or {})
            (dst / "source.txt").write_text(packing.digest + "\n")
            _sync(*(path for path in dst.iterdir() if path.is_file()), dst)
            manifest.save(dst)
            (dst / _JOURNAL).unlink()
    return manifest


class _Packing(NamedTuple):
    """What is packed, where, and how."""

    checkpoint: Checkpoint
    dst: Path
    experts: str
    dense: str

    @property
    def layout(self) -> SlabLayout:
        return slab_layout(self.checkpoint.geometry, self.experts)

    @property
    def digest(self) -> str:
        """Identifies the outcome: a journal of another source or format is not gone on with."""
        return f"{self.checkpoint.digest} {self.experts} {self.dense}"


def pack_into_cache(src: Path, cache: Path, experts: str = "bf16", progress: Progress | None = None) -> Path:
    """The pack of a checkpoint below `cache`; made on first use."""
    dst = cache / f"{src.resolve().name}-{open_checkpoint(src).digest[:12]}-{experts}"
    pack(src, dst, experts=experts, progress=progress)
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


def _existing(packing: _Packing) -> Manifest:
    source = packing.dst / "source.txt"
    found = source.read_text().strip() if source.is_file() else ""
    if found == packing.digest:
        return Manifest.load(packing.dst)
    what = "of another checkpoint" if found.split()[:1] != [packing.checkpoint.digest] else f"as {found[65:]}"
    raise ModelError(f"{packing.dst}: already holds a pack {what}; name another folder or delete this one")


def _manifest(
    packing: _Packing, slabs: dict[ExpertKey, SlabPlace], dense_sha256: str, extra: dict[str, Any]
) -> Manifest:
    checkpoint = packing.checkpoint
    fields: dict[str, Any] = {
        "name": checkpoint.model_dir.resolve().name,
        "context_tokens": checkpoint.geometry.max_position,
    } | extra
    return Manifest(
        geometry=checkpoint.geometry,
        experts=packing.experts,
        dense=packing.dense,
        slabs=slabs,
        dense_sha256=dense_sha256,
        tokenizer_sha256=Tokenizer.load(packing.dst).digest,
        **fields,
    )


def _require_space(packing: _Packing) -> None:
    checkpoint, dst = packing.checkpoint, packing.dst
    part = dst / (EXPERTS_NAME + _PART)
    have = shutil.disk_usage(dst).free + (part.stat().st_blocks * 512 if part.is_file() else 0)
    need = packing.layout.nbytes * len(checkpoint.experts) + sum(p.nbytes for p in checkpoint.dense.values())
    if have < need:
        raise StorageError(f"{dst}: packing needs {need:,} bytes, {have:,} are free; free {need - have:,} bytes")


def _write_experts(packing: _Packing, journal: TextIO, progress: Progress) -> dict[ExpertKey, SlabPlace]:
    checkpoint, dst, slab_nbytes = packing.checkpoint, packing.dst, packing.layout.nbytes
    keys, part = list(checkpoint.experts), dst / (EXPERTS_NAME + _PART)
    names = [f"layers.{key.layer}.experts.{key.expert}" for key in keys]
    header = safetensors_header(dict.fromkeys(names, ("U8", (slab_nbytes,), slab_nbytes)))
    offsets = {key: len(header) + position * slab_nbytes for position, key in enumerate(keys)}
    if (dst / EXPERTS_NAME).is_file():  # killed between the rename and the manifest
        (dst / EXPERTS_NAME).replace(part)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, len(header) + slab_nbytes * len(keys))
        os.pwrite(descriptor, header, 0)
        done: dict[ExpertKey, SlabPlace] = {}
        kept = _kept(packing, journal, offsets)
        pending: list[tuple[ExpertKey, SlabPlace]] = []
        for position, key in enumerate(keys):
            if key in kept:
                done[key] = kept[key]
            else:
                pending.append((key, _write_slab(descriptor, offsets[key], packing, checkpoint.experts[key])))
            if len(pending) * slab_nbytes >= SYNC_NBYTES or (pending and position + 1 == len(keys)):
                _commit(descriptor, journal, pending)
                done |= dict(pending)
                pending = []
            progress(position + 1, len(keys))
    finally:
        os.close(descriptor)
    part.replace(dst / EXPERTS_NAME)
    return done


def _write_slab(descriptor: int, offset: int, packing: _Packing, places: Sequence[TensorPlace]) -> SlabPlace:
    digest, position = hashlib.sha256(), offset
    for run in _slab_runs(packing, places):
        digest.update(run)
        _write_all(descriptor, run, position)
        position += len(run)
    return SlabPlace(offset, position - offset, digest.hexdigest())


def _slab_runs(packing: _Packing, places: Sequence[TensorPlace]) -> Iterator[memoryview]:
    """The bytes of a slab in order; bf16 goes through in small pieces, the others matrix by matrix."""
    if packing.experts == "bf16":
        w1, w3, w2 = places
        up, down = packing.layout.parts["up"], packing.layout.parts["down"]
        yield from chain(pieces(w1), pieces(w3))
        yield memoryview(bytes(down.offset - up.nbytes))  # `down` begins on a cache line
        yield from pieces(w2)
        yield memoryview(bytes(packing.layout.nbytes - down.offset - down.nbytes))
        return
    from rotary_batch.engine.packs.encoding import encoded_slab

    yield encoded_slab(packing.layout, packing.experts, places)


def _write_all(descriptor: int, run: memoryview, position: int) -> None:
    while run:
        count = os.pwrite(descriptor, run, position)
        run, position = run[count:], position + count


def _commit(descriptor: int, journal: TextIO, pending: Iterable[tuple[ExpertKey, SlabPlace]]) -> None:
    os.fdatasync(descriptor)
    rows = [(*key, *place) for key, place in pending]
    journal.writelines(f"{' '.join(map(str, row))}\n" for row in rows)
    journal.flush()
    os.fsync(journal.fileno())


@contextlib.contextmanager
def _locked_journal(packing: _Packing) -> Iterator[TextIO]:
    """The journal of this folder, held by this process alone."""
    path = packing.dst / _JOURNAL
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+", encoding="latin-1") as journal:
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(f"{packing.dst}: another process packs into it; wait for it") from error
            if _is_at(journal, path):
                yield journal
                return


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at the path: who finishes a pack deletes the journal."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    return False


def _begin(packing: _Packing, journal: TextIO) -> None:
    """Go on with the journal of this packing; one of another packing begins anew."""
    text = journal.read()
    if text.split("\n", 1)[0] != packing.digest:
        for name in (EXPERTS_NAME, EXPERTS_NAME + _PART):
            (packing.dst / name).unlink(missing_ok=True)
        text = ""
    journal.truncate(text.rfind("\n") + 1)  # the last line was being written at a kill
    journal.seek(0, os.SEEK_END)
    if journal.tell() == 0:
        journal.write(packing.digest + "\n")
    journal.flush()


def _kept(packing: _Packing, journal: TextIO, offsets: Mapping[ExpertKey, int]) -> dict[ExpertKey, SlabPlace]:
    """What an earlier run wrote, by its journal and by its bytes: a file may be lost while its journal stands."""
    journal.seek(0)
    kept, nbytes = {}, packing.layout.nbytes
    part = packing.dst / (EXPERTS_NAME + _PART)
    for line in journal.read().splitlines()[1:]:
        with contextlib.suppress(ValueError):  # a damaged line
            layer, expert, offset, size, digest = line.split()
            key, place = ExpertKey(int(layer), int(expert)), SlabPlace(int(offset), int(size), digest)
            run = TensorPlace(part, place.offset, place.nbytes, "U8", (place.nbytes,))
            if (offsets.get(key), nbytes) == (place.offset, place.nbytes) and _sha256(pieces(run)) == digest:
                kept[key] = place
    return kept


def _write_dense(packing: _Packing) -> str:
    from rotary_batch.engine.packs.encoding import dense_parts

    parts = list(dense_parts(packing.checkpoint, packing.dense))
    header = safetensors_header({name: (dtype, shape, nbytes) for name, dtype, shape, nbytes, _ in parts})
    part = packing.dst / (DENSE_NAME + _PART)
    with part.open("wb") as file:
        file.write(header)
        for *_, runs in parts:
            for run in runs():
                file.write(run)
        file.flush()
        os.fsync(file.fileno())
    part.replace(packing.dst / DENSE_NAME)
    return _file_sha256(packing.dst / DENSE_NAME)


def safetensors_header(tensors: dict[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """A safetensors header whose data starts on a page: the JSON is padded with spaces, as the format allows."""
    table, offset = {}, 0
    for name, (dtype, shape, nbytes) in tensors.items():
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + nbytes]}
        offset += nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    length = -(-(8 + len(text)) // PAGE_NBYTES) * PAGE_NBYTES - 8
    return struct.pack("<Q", length) + text.ljust(length)


def _sync(*paths: Path) -> None:
    """Bring files and folders to the disk: a manifest must not outlive what it describes in a power cut."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
