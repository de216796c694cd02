"""Where slabs are loaded from: the pack on disk, or an arena in host memory that was filled from it.

Neither relies on the page cache: a file that is larger than memory and read cyclically is never in it.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.packs.contents import check_experts
from rotary_batch.engine.runtime.buffers import page_buffer, page_lock, page_unlock
from rotary_batch.engine.runtime.trace import Trace, interval_label
from rotary_batch.errors import ModelError, StorageError
from rotary_batch.model.manifest import EXPERTS_NAME, Manifest, SlabPlace

READ_NBYTES = 16 * 2**20  # of one preadv; large enough to be fast, small enough to share the disk
NUM_READERS = 2  # reads in flight; with one the disk idles between two reads
NUM_FILLERS = 8  # threads that fill host memory: one touches fresh pages at 1 GB/s


class Tier(Protocol):
    """A place that has every slab."""

    @property
    def name(self) -> str:
        """How the bytes are read, for reports."""
        ...

    @property
    def num_readers(self) -> int:
        """How many threads should read at once."""
        ...

    def read_into(self, key: ExpertKey, target: torch.Tensor) -> int:
        """Copy a slab into a page-aligned uint8 tensor in host memory; its bytes.  Raises StorageError, ModelError."""
        ...

    def close(self) -> None:
        """Close files and free memory; idempotent."""
        ...


class DiskTier:
    """Reads slabs from the pack with O_DIRECT, or buffered where the file system refuses that."""

    num_readers = NUM_READERS

    def __init__(self, manifest: Manifest, pack_dir: Path, trace: Trace) -> None:
        self._places = manifest.slabs
        self._path = pack_dir / EXPERTS_NAME
        self._trace = trace
        self._unchecked = {place.offset for place in manifest.slabs.values()}  # not yet compared with their digests
        check_experts(pack_dir, manifest)
        self._direct = self._open(os.O_DIRECT)
        self._takes_direct = self._direct is not None
        self._buffered = self._open(0)
        if self._buffered is None:
            raise ModelError(f"{self._path}: cannot be opened; is the pack whole? see `model verify`")

    def _open(self, flags: int) -> int | None:
        try:
            return os.open(self._path, os.O_RDONLY | flags)
        except OSError:
            return None

    @property
    def name(self) -> str:
        """How the bytes are read, for reports."""
        return "disk (O_DIRECT)" if self._takes_direct else "disk (buffered)"

    def read_into(self, key: ExpertKey, target: torch.Tensor) -> int:
        """Read one slab; `preadv` releases the GIL, so the compute goes on."""
        place = self._places[key]
        view = memoryview(target.numpy())[: place.nbytes]  # type: ignore[arg-type]
        done = 0
        with self._trace.time_on_host("read", interval_label([key])):
            while done < place.nbytes:
                count = self._read(view[done : done + READ_NBYTES], place.offset + done)
                if count == 0:
                    raise StorageError(f"{self._path}: ends at byte {place.offset + done}; see `model verify`")
                done += count
        self._trace.add("bytes_read", done)
        if place.offset in self._unchecked:
            self._check_digest(key, view, place)
        return place.nbytes

    def _check_digest(self, key: ExpertKey, view: memoryview, place: SlabPlace) -> None:
        """Compare the digest of a slab at its first use: a flipped bit on disk must not become prose."""
        if hashlib.sha256(view).hexdigest() != place.sha256:
            raise ModelError(
                f"{self._path}: layer {key.layer} expert {key.expert} is damaged (its digest differs); "
                "pack the model again"
            )
        self._unchecked.discard(place.offset)

    def _read(self, view: memoryview, offset: int) -> int:
        if self._direct is not None and self._takes_direct:
            try:
                return os.preadv(self._direct, [view], offset)
            except OSError:  # tmpfs and overlays accept the flag at open and refuse the read
                self._takes_direct = False
        assert self._buffered is not None
        try:
            count = os.preadv(self._buffered, [view], offset)
        except OSError as error:
            raise StorageError(f"{self._path}: {error.strerror} at byte {offset}") from error
        os.posix_fadvise(self._buffered, offset, count, os.POSIX_FADV_DONTNEED)
        return count

    def close(self) -> None:
        """Close the files."""
        for descriptor in (self._direct, self._buffered):
            if descriptor is not None:
                os.close(descriptor)
        self._direct = self._buffered = None


class RamTier:
    """A fixed set of slabs in host memory; `num_on_disk` others are read from disk.

    The memory is page-locked when slabs go on to a CUDA device and the system allows it.
    """

    def __init__(
        self, manifest: Manifest, disk: DiskTier, hosted: Collection[ExpertKey], num_on_disk: int, *, pinned: bool
    ) -> None:
        self._disk = disk
        self._num_on_disk = num_on_disk
        keys = sorted(hosted)
        sizes = [manifest.slabs[key].nbytes for key in keys]
        self._arena = page_buffer(sum(sizes))
        self._views = dict(zip(keys, torch.split(self._arena, sizes), strict=True))
        with ThreadPoolExecutor(NUM_FILLERS) as pool:
            list(pool.map(disk.read_into, self._views.keys(), self._views.values()))
        self._staged = pinned  # slabs go on to a CUDA device
        self._registered = pinned and page_lock(self._arena)
        # If locked memory went back to the system, CUDA would take it for locked when its addresses are used again, and
        # copies would read its old contents.  So the end of this object unlocks it too, not only `close`.
        self._unlock = weakref.finalize(self, page_unlock, *([self._arena] if self._registered else []))

    @property
    def name(self) -> str:
        """How the bytes are read, for reports."""
        unlocked = "host (pageable, through a pinned staging ring)" if self._staged else "RAM"
        name = "host (pinned arena)" if self._registered else unlocked
        return f"{name}; {self._num_on_disk} slabs: {self._disk.name}" if self._num_on_disk else name

    @property
    def num_readers(self) -> int:
        """One for host memory, and those of the disk where slabs are read from it."""
        return 1 + self._disk.num_readers if self._num_on_disk else 1

    def read_into(self, key: ExpertKey, target: torch.Tensor) -> int:
        """Copy one slab, or read it; torch releases the GIL while it copies."""
        slab = self._views.get(key)
        if slab is None:
            return self._disk.read_into(key, target)
        target[: slab.numel()].copy_(slab)
        return slab.numel()

    @property
    def is_pinned_whole(self) -> bool:
        """Whether the device can copy every slab without staging."""
        return self._registered and not self._num_on_disk

    def view(self, key: ExpertKey) -> torch.Tensor | None:
        """The slab in the arena, if the device can copy from there without staging."""
        return self._views.get(key) if self._registered else None

    def close(self) -> None:
        """Unlock the arena, close the files."""
        self._unlock()
        self._registered = False
        self._disk.close()
