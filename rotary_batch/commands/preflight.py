"""What is checked before the work begins: device, memory, pack and disk.

Only sizes and headers are read, and torch is imported for a GPU alone, so this takes a fraction of a second.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.isolation import isolated
from rotary_batch.commands.jobs import find_job
from rotary_batch.commands.keeping import keeping_model_and_job
from rotary_batch.commands.packs import described_pack
from rotary_batch.commands.repositories import full_name, resolved
from rotary_batch.config import Settings, cache_dir
from rotary_batch.errors import ENGINE_LIBRARIES, StorageError, UnavailableError, engine_missing
from rotary_batch.model.footprint import footprint
from rotary_batch.model.host import allowed_nbytes, free_nbytes
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.model.memory_plan import MEMORY_SHARE, minimum_nbytes
from rotary_batch.model.memory_planner import require_memory
from rotary_batch.model.rates import cached_rates
from rotary_batch.repo.git import require_folder
from rotary_batch.sizes import size_text
from rotary_batch.work.index import repositories
from rotary_batch.work.store import WorkStore

MIN_FREE_NBYTES = 50 * 10**6  # below this a database, its journal and the pages of one commit may not fit


def ready_to_run(
    store: WorkStore,
    repos: Sequence[Path],
    settings_of: Callable[[Path], RepositorySettings],
    database: Path,
    outcomes: list[Any],
) -> list[Path]:
    """The repositories that can be indexed and drained here; each of the others becomes a Failure in `outcomes`.

    `store` knows what they were indexed with; `database` is the file that the run writes.
    """
    rows = {row.root: row for row in repositories(store)}
    ready: list[Path] = []
    for repo in repos:
        with isolated([full_name(repo)], outcomes):
            root = resolved(repo)
            require_folder(root)
            settings = keeping_model_and_job(settings_of(root), rows.get(str(root))).settings
            is_here = settings.ray is None  # else each node finds out for itself
            if is_here:
                require_libraries()
            pack, manifest = described_pack(settings)
            longest = find_job(settings, manifest).longest_rollup_tokens(manifest.context_tokens)
            if is_here:
                require_engine(pack, manifest, settings, longest)
            require_disk(database.parent, "--db")
            require_disk(root / settings.out, "--out")
            ready.append(repo)
    return ready


def require_engine(pack: Path, manifest: Manifest, settings: Settings, longest_tokens: int) -> None:
    """Raise unless an engine can be opened that computes a sequence of `longest_tokens`.

    UnavailableError: the device is not there, or has too little memory.  ModelError: the pack is not whole.
    """
    require_libraries()
    if (pack / MANIFEST_NAME).is_file():
        require_whole(pack, manifest)
    require_room(manifest, settings, longest_tokens, _device_nbytes(settings.device))


def require_libraries() -> None:
    """Raise UnavailableError unless the libraries of the extra `[engine]` are installed."""
    for library in ENGINE_LIBRARIES:
        if importlib.util.find_spec(library) is None:
            raise engine_missing(library)


def require_whole(pack: Path, manifest: Manifest) -> None:
    """Raise ModelError unless the files of a pack are there, with the right sizes; their digests are not computed."""
    from rotary_batch.engine.packs.contents import check_dense, check_experts

    check_experts(pack, manifest)
    check_dense(pack, manifest)


def require_room(manifest: Manifest, settings: Settings, longest_tokens: int, total_nbytes: int) -> None:
    """Raise UnavailableError unless a sequence of `longest_tokens` fits a device that has `total_nbytes`."""
    device, kind, given = settings.device, settings.device.partition(":")[0], settings.device_memory
    _require_at_most("--device-memory", given, total_nbytes, device)
    if kind != "cpu":
        _require_at_most("--host-memory", settings.host_memory, allowed_nbytes(), "this machine")
    rates = cached_rates(device, cache_dir(os.environ))
    is_exact = (settings.numerics or manifest.default_numerics) == "exact"
    sizes = (4, 4) if is_exact else (2, rates.activation_nbytes if rates else 2)
    model = footprint(manifest, settings.kv, *sizes, device)
    if given is not None:
        require_memory(model, given, longest_tokens)
        return
    usable = int((free_nbytes() if kind == "cpu" else total_nbytes) * MEMORY_SHARE[kind])
    if usable < (least := minimum_nbytes(model, longest_tokens)):
        raise UnavailableError(
            f"{manifest.name} needs {size_text(least)} of device memory, and {size_text(usable)} can be used on "
            f"{device}; use a smaller model, or pack this one with --experts int4"
        )


def require_disk(folder: Path, option: str) -> Path:
    """The folder, or the lowest one above it that exists.  `option` is how another is named.

    Raises StorageError unless it can be written and has room.
    """
    there = _existing(folder)
    if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):  # a file in its place is named when it is opened
        raise StorageError(f"{there}: may not be written; change its permissions, or name another folder with {option}")
    if (free := shutil.disk_usage(there).free) < MIN_FREE_NBYTES:
        least = size_text(MIN_FREE_NBYTES)
        raise StorageError(f"{there}: {size_text(free)} are free; free at least {least}, or use another disk: {option}")
    return there


def _existing(path: Path) -> Path:
    """The path, or the lowest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _device_nbytes(device: str) -> int:
    """All memory of a device, within the limits of this process.  Raises UnavailableError when it is not there."""
    if device == "cpu":
        return allowed_nbytes()
    from rotary_batch.engine.runtime.device import device_memory_nbytes, resolve_device

    return device_memory_nbytes(resolve_device(device))


def _require_at_most(option: str, given: int | None, most_nbytes: int, where: str) -> None:
    if given is not None and given > most_nbytes:
        raise UnavailableError(
            f"{option}: {where} has {size_text(most_nbytes)}, you gave {size_text(given)}; give less, or leave it out"
        )
