"""`model info` and `doctor`: what a pack holds, and what is installed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

from rotary_batch.commands.database import database_path
from rotary_batch.commands.packs import EMBEDDED
from rotary_batch.config import Settings, c_compiler, kernel_dir
from rotary_batch.errors import RotaryError
from rotary_batch.model.host import allowed_nbytes, free_nbytes
from rotary_batch.model.manifest import Manifest
from rotary_batch.repo.languages import LANGUAGES, grammar, query
from rotary_batch.work.connection import explained, journal_mode_for, open_database
from rotary_batch.work.schema import has_fts5, require_current


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


def doctor(settings: Settings) -> list[tuple[str, bool, str]]:
    """(what, whether it works, detail) of everything that the program needs."""
    return [
        ("python", True, f"{platform.python_version()} on {platform.machine()}"),
        _git(),
        _torch(),
        _compiler(),
        *_kernels(),
        _sqlite(),
        ("database", *_database(database_path(settings))),
        *(_language(name) for name in LANGUAGES),
        ("embedded model", (EMBEDDED / "manifest.json").is_file(), str(EMBEDDED)),
        ("memory", True, f"{allowed_nbytes() / 1e9:.1f} GB, of which {free_nbytes() / 1e9:.1f} are free now"),
    ]


def _git() -> tuple[str, bool, str]:
    path = shutil.which("git")
    if path is None:
        return "git", False, "not installed; install it to read git repositories"
    return "git", True, subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()


def _torch() -> tuple[str, bool, str]:
    if importlib.util.find_spec("torch") is None:
        return "torch", False, "not installed; run `pip install torch` (index, plan and render work without it)"
    return "torch", True, importlib.metadata.version("torch")


def _compiler() -> tuple[str, bool, str]:
    compiler = c_compiler(os.environ)
    if compiler is None:
        return "C compiler", True, "none; without compiled kernels fast numerics take up to six times as long"
    path = shutil.which(shlex.split(compiler)[0])
    return "C compiler", path is not None, path or f"CC is {compiler!r}, which does not exist; unset it or install it"


def _kernels() -> list[tuple[str, bool, str]]:
    """The level of the compiled kernels, and the levels that are left out.  Raises ConfigError."""
    from rotary_batch.engine.kernels.build import open_library
    from rotary_batch.engine.kernels.dispatch import cap

    most = cap(os.environ)
    library = open_library(kernel_dir(os.environ), most)
    given = f" (ROTARY_BATCH_MAX_ISA={most.label})" if "ROTARY_BATCH_MAX_ISA" in os.environ else ""
    no_compiler = c_compiler(os.environ) is None  # then nothing was to be compiled, which is fine
    left_out = [
        (f"kernels {level.label}", no_compiler, f"left out because {reason}")
        for level, reason in library.left_out.items()
    ]
    return [("kernels", True, f"{library.level.label}{given}"), *left_out]


def _sqlite() -> tuple[str, bool, str]:
    journal = f"{sqlite3.sqlite_version}, journal {journal_mode_for(sqlite3.sqlite_version_info)}"
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        if not has_fts5(db):
            return "sqlite", False, f"{journal}, without FTS5, which the database needs; use another Python"
    return "sqlite", True, f"{journal}, FTS5"


def _database(path: Path) -> tuple[bool, str]:
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if path.exists() and path.stat().st_size:
        try:
            with explained(path), contextlib.closing(open_database(path, read_only=True)) as db:
                require_current(db)
                db.execute("pragma quick_check(1)").fetchall()
        except RotaryError as error:
            return False, str(error)
    return os.access(folder, os.W_OK) and free > 10**9, f"{path}, {free / 1e9:.1f} GB free"


def _language(name: str) -> tuple[str, bool, str]:
    try:
        wheel = LANGUAGES[name].grammar[0].replace("_", "-")
        version = f"{wheel} {importlib.metadata.version(wheel)}, ABI {grammar(name).abi_version}"
        return f"grammar {name}", query(name) is not None, version
    except (ImportError, ValueError, OSError) as error:
        return f"grammar {name}", False, f"{error}; reinstall the package"
