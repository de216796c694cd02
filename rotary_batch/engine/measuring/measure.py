"""Measure the machine: link, disk, memory, attention and matrix products.

Measuring everything takes about a minute, and the rates are stored in the cache folder.  Before each run a probe
measures only what the model needs.  The best of several measurements counts: other processes only slow them down.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from rotary_batch.config import EXPERT_FORMATS
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.select import attention_for
from rotary_batch.engine.kernels import cpu
from rotary_batch.engine.kernels.linear import FastMatmul, fast_dtype
from rotary_batch.engine.kernels.matrices import Matrix
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import matrix_from, quantise
from rotary_batch.engine.kvcache.arena import KV_FORMATS, KvArena
from rotary_batch.engine.measuring.grouped import grouped_rate
from rotary_batch.engine.measuring.timing import ROUNDS, seconds
from rotary_batch.engine.offload.tiers import READ_NBYTES
from rotary_batch.engine.packs.loading import DTYPES
from rotary_batch.engine.runtime.buffers import copy_to_pages, page_buffer
from rotary_batch.engine.runtime.device import device_memory_nbytes, resolve_device
from rotary_batch.engine.runtime.memory import tune_malloc
from rotary_batch.errors import ModelError
from rotary_batch.model.format_shares import formats_of
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.host import physical_nbytes
from rotary_batch.model.manifest import EXPERTS_NAME, Manifest
from rotary_batch.model.rates import Rates
from rotary_batch.model.slabs import matrix_parts, parse_stored_as

ROW_COUNTS = (1, 4, 8, 16, 32, 64, 128, 256, 512)
MATRIX = (4096, 2048)  # rows and columns: between the matrices of a small and of a large model
CUDA_MATRIX = (14336, 4096)  # of Mixtral 8x7B: launching kernels takes longer than the product of a smaller one
# Copies of a matrix are used in turn, so that no cache holds it: this many bytes, but at least 2 and at most 8 copies.
ROTATED_NBYTES, ROTATED_COPIES = 128 * 2**20, (2, 8)
DISK_NBYTES = 512 * 2**20
LINK_NBYTES, LINK_COPIES = 64 * 2**20, 16
SMALL_MODEL = Geometry(
    hidden_size=1024,
    intermediate_size=1024,
    num_layers=1,
    num_heads=16,
    num_kv_heads=4,
    head_dim=64,
    num_experts=2,
    top_k=1,
    vocab_size=2,
    rope_theta=1e4,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
    max_position=512,
    sliding_window=None,
    dtype="BF16",
    eos_ids=(),
)


PROBE_S = 1.5  # a probe starts no measurement after this time
PROBE_ROWS, PROBE_ROUNDS = (1, 32, 256), 1  # more rounds would take the time of the other formats
PROBE_DISK_NBYTES = 64 * 2**20
# Of a format that a model brings: a second or two for each format; beyond these rows time grows as they do.
FORMAT_ROWS, FORMAT_ROUNDS = (1, 4, 8, 16, 32, 64, 128), 2
FILL = 120  # every byte of such a matrix; as a scale of any type it is a finite, normal number


def measure_machine(device_name: str, folder: Path) -> Rates:
    """Measure everything; the disk is that of `folder`."""
    device = resolve_device(device_name)
    if device.type == "cpu":
        tune_malloc()  # as an engine does: fresh pages for every product would be measured otherwise
    disk = _disk(folder)
    return Rates(
        machine=machine_name(device),
        device=device_name,
        device_memory_nbytes=device_memory_nbytes(device),
        activation_nbytes=fast_dtype(device).itemsize,
        move_nbytes_per_s=link_nbytes_per_s(device) if device.type == "cuda" else disk,
        disk_nbytes_per_s=disk,
        memory_nbytes_per_s=_memory(device),
        attention_nbytes_per_s={kv: _attention(kv, device) for kv in KV_FORMATS},
        weight_s={stored_as: list(_matrix(stored_as, device)) for stored_as in EXPERT_FORMATS},
        measured_at=time.time(),
        probed_at=time.time(),
    )


def with_formats(rates: Rates, formats: Collection[str]) -> Rates:
    """The rates, with those formats measured that are not yet among them."""
    device = resolve_device(rates.device)
    missing = [stored_as for stored_as in formats if stored_as not in rates.weight_s]
    measured = {stored_as: list(_matrix(stored_as, device, FORMAT_ROWS, FORMAT_ROUNDS)) for stored_as in missing}
    return replace(rates, weight_s={**rates.weight_s, **measured}) if measured else rates


def probe_machine(stored: Rates, pack_dir: Path, manifest: Manifest, kv: str) -> Rates:
    """Measure in under two seconds what one model needs; what there was no time for keeps its stored rate."""
    until = time.monotonic() + PROBE_S
    device = resolve_device(stored.device)
    if device.type == "cpu":
        tune_malloc()
    places = sorted(manifest.slabs.values())[: max(1, PROBE_DISK_NBYTES // manifest.slab_nbytes)]
    disk = disk_nbytes_per_s(pack_dir / EXPERTS_NAME, [(place.offset, place.nbytes) for place in places])
    weight_s = {}
    for stored_as in formats_of(manifest):
        weight_s[stored_as] = list(_matrix(stored_as, device, PROBE_ROWS, PROBE_ROUNDS, until))
    return replace(
        stored,
        move_nbytes_per_s=link_nbytes_per_s(device) if device.type == "cuda" else disk,
        disk_nbytes_per_s=disk,
        memory_nbytes_per_s=_memory(device),
        attention_nbytes_per_s={kv: _attention(kv, device)} if time.monotonic() < until else {},
        weight_s=weight_s,
        probed_at=time.time(),
    )


def machine_name(device: torch.device) -> str:
    """One line that identifies the machine.  Runs with another OMP_NUM_THREADS discard each other's rates."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")] or ["processor"]
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    compiled = f", kernels {cpu.default().level.label}" if device.type == "cpu" else ""
    return (
        f"{len(names)} x {names[0]}, {physical_nbytes() / 1e9:.0f} GB RAM{gpu}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads{compiled}"
    )


def _matrix(
    stored_as: str,
    device: torch.device,
    row_counts: Sequence[int] = ROW_COUNTS,
    rounds: int = ROUNDS,
    until: float | None = None,
) -> Iterator[tuple[int, float]]:
    """(rows, seconds per weight) for each row count, up to the time `until`.

    A probe rotates as many copies as the full measurement: with 4 instead of 8 it was 32 % faster at one row.
    """
    rows, columns = CUDA_MATRIX if device.type == "cuda" else MATRIX
    parts, columns = _parts(stored_as, rows, columns)
    least, most = ROTATED_COPIES
    num_copies = min(most, max(least, ROTATED_NBYTES // sum(part.nbytes for part in parts.values())))
    copies: list[Matrix] = [
        matrix_from({name: copy_to_pages(part, part.dtype).to(device) for name, part in parts.items()}, rows, stored_as)
        for _ in range(num_copies)
    ]
    matmul, grouped = FastMatmul(device), grouped_rate(stored_as, device)
    for count in row_counts:
        if until is not None and time.monotonic() >= until:
            return
        x = torch.randn(count, columns, device=device, dtype=matmul.dtype)
        work = partial(_multiply, matmul, x, copies)
        alone_s = seconds(work, device, rounds) / num_copies / (rows * columns)
        yield count, min(alone_s, grouped.weight_s(count, rounds)) if grouped else alone_s


def _parts(stored_as: str, rows: int, columns: int) -> tuple[dict[str, torch.Tensor], int]:
    """The parts of a matrix to multiply by, and its columns, fewer where a model's own groups do not divide them."""
    if stored_as in EXPERT_FORMATS:
        return quantise(torch.randn(rows, columns).bfloat16(), stored_as), columns
    columns -= columns % (parse_stored_as(stored_as).group or 1)
    parts = {
        part.suffix: torch.full((part.nbytes,), FILL, dtype=torch.uint8).view(DTYPES[part.dtype]).view(part.shape)
        for part in matrix_parts(stored_as, rows, columns, "BF16")
    }
    return parts, columns


def _multiply(matmul: FastMatmul, x: torch.Tensor, matrices: Sequence[Matrix]) -> None:
    for matrix in matrices:
        matmul.linear(x, matrix)


def _memory(device: torch.device) -> float:
    numbers = torch.zeros(ROTATED_NBYTES // 8, dtype=torch.int64, device=device)
    return numbers.nbytes / seconds(numbers.sum, device)


def _attention(kv_format: str, device: torch.device) -> float:
    """Bytes of KV cache that the decode rows of many sequences read per second."""
    geometry, sequences, context = SMALL_MODEL, 64, 512
    if device.type == "cuda":
        geometry, sequences, context = replace(geometry, num_heads=32, num_kv_heads=8, head_dim=128), 128, 640
    kv = KvArena(geometry, sequences * context, kv_format, torch.bfloat16, device)
    noise = torch.randn(sequences * context, geometry.num_kv_heads, geometry.head_dim, device=device)
    kv.write(0, torch.arange(sequences * context, device=device), noise, noise)
    numerics = Numerics("fast", device)
    attention = attention_for(geometry, numerics, kv)
    attention.plan([QuerySegment(n, 1, context - 1, n * context) for n in range(sequences)])
    queries = torch.randn(sequences, geometry.num_heads, geometry.head_dim, device=device, dtype=numerics.dtype)
    return kv.nbytes / seconds(lambda: attention.attend(0, queries, kv), device)


def link_nbytes_per_s(device: torch.device) -> float:
    """How fast page-locked memory is copied to the device; uses LINK_NBYTES of device memory for a moment."""
    source = torch.empty(LINK_NBYTES, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(LINK_NBYTES, dtype=torch.uint8, device=device)

    def copy() -> None:
        for _ in range(LINK_COPIES):
            target.copy_(source, non_blocking=True)

    return LINK_COPIES * LINK_NBYTES / seconds(copy, device)


def _disk(folder: Path) -> float:
    """Read speed of a file that was just written, without the page cache where the file system allows it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, prefix="rotary-batch-rate-") as file:
        block = os.urandom(2**20)
        for _ in range(DISK_NBYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return disk_nbytes_per_s(Path(file.name), [(n, READ_NBYTES) for n in range(0, DISK_NBYTES, READ_NBYTES)])


def disk_nbytes_per_s(path: Path, ranges: Sequence[tuple[int, int]], num_readers: int = 2) -> float:
    """How fast `num_readers` threads read ranges (offset, bytes) of a file.

    Raises ModelError for a file that cannot be read or is too short: a short read would look like a fast disk.
    """
    need = sum(nbytes for _, nbytes in ranges)
    try:
        done, elapsed = _timed_reads(path, ranges, num_readers)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be read ({error.strerror}); check the disk, then run `model verify`"
        ) from error
    if done < need:
        raise ModelError(f"{path}: {done:,} of {need:,} bytes could be read; pack the model again")
    return done / elapsed


def _timed_reads(path: Path, ranges: Sequence[tuple[int, int]], num_readers: int) -> tuple[int, float]:
    """How many bytes were read, and how many seconds it took."""
    descriptor = _open_past_cache(path)
    todo, lock = list(ranges), threading.Lock()

    def read() -> int:
        buffer = memoryview(page_buffer(max(nbytes for _, nbytes in ranges)).numpy())  # type: ignore[arg-type]
        total = 0
        while True:
            with lock:
                if not todo:
                    return total
                offset, nbytes = todo.pop(0)
            done = 0
            while done < nbytes and (count := os.preadv(descriptor, [buffer[done:nbytes]], offset + done)):
                done += count
            total += done

    try:
        with ThreadPoolExecutor(num_readers) as pool:
            start = time.perf_counter()
            total = sum(reader.result() for reader in [pool.submit(read) for _ in range(num_readers)])
            return total, time.perf_counter() - start
    finally:
        os.close(descriptor)


def _open_past_cache(path: Path) -> int:
    """Open a file for reading without the page cache where the file system allows it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            os.preadv(descriptor, [memoryview(page_buffer(4096).numpy())], 0)  # type: ignore[arg-type]
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return descriptor
