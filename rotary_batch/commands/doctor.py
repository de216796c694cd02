"""`doctor`: what is here, what is missing, and what to do about it.  Nothing that it asks can hold it up for long."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shlex
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rotary_batch import __version__
from rotary_batch.commands.cards import Cards, find_cards
from rotary_batch.commands.database import database_path
from rotary_batch.commands.jobs import find_job
from rotary_batch.commands.packs import described_pack
from rotary_batch.commands.preflight import require_disk, require_libraries, require_room, require_whole
from rotary_batch.config import Settings, c_compiler, cache_dir, kernel_dir
from rotary_batch.errors import InputError, RotaryError, UnavailableError
from rotary_batch.model.host import allowed_nbytes, free_nbytes
from rotary_batch.model.manifest import MANIFEST_NAME
from rotary_batch.model.rates import cached_rates
from rotary_batch.repo.git import enclosing_repository
from rotary_batch.repo.languages import LANGUAGES, grammar, query
from rotary_batch.sizes import size_text
from rotary_batch.work.connection import explained, journal_mode_for, open_database
from rotary_batch.work.schema import MIGRATIONS, has_fts5, require_current

GIT_TIMEOUT_S = 10
CHECK_S = 5.0  # of a database; a damaged page of a large one may be found later
_REINSTALL = "install rotary-batch again: `pip install --force-reinstall rotary-batch`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    what: str
    ok: bool
    fact: str
    advice: str = ""  # what to do, when it is not ok
    essential: bool = False  # nothing works without it
    details: tuple[Check, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain data for --json."""
        row = {name: getattr(self, name) for name in ("what", "ok", "fact", "advice", "essential")}
        return row | ({"details": [detail.as_dict() for detail in self.details]} if self.details else {})


def doctor(settings: Settings, settings_files: Sequence[Path]) -> list[Check]:
    """Everything that the program needs, as these settings have it; the first of `settings_files` is used."""
    cards = find_cards()
    return [
        _program(),
        _git(),
        _sqlite(),
        _torch(),
        _card(settings, cards),
        _processor(),
        _memory(settings, cards),
        _settings(settings_files),
        _model(settings),
        _database(database_path(settings)),
        _rates(settings),
        *_disks(settings),
        _grammars(),
    ]


def _program() -> Check:
    fact = f"{__version__}, Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check(what="rotary-batch", ok=True, fact=fact)


def _git() -> Check:
    path = shutil.which("git")
    if path is None:
        return Check(what="git", ok=False, essential=True, fact="not installed", advice="install it with your system")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(what="git", ok=False, essential=True, fact=f"{path}: {error}", advice="install it again")
    return Check(what="git", ok=True, fact=done.stdout.strip().removeprefix("git version "))


def _sqlite() -> Check:
    fact = f"{sqlite3.sqlite_version}, journal {journal_mode_for(sqlite3.sqlite_version_info)}"
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        if has_fts5(db):
            return Check(what="SQLite", ok=True, fact=fact)
    advice = "use another Python, whose SQLite has FTS5"
    return Check(what="SQLite", ok=False, essential=True, fact=f"{fact}, without FTS5", advice=advice)


def _torch() -> Check:
    advice = "run `pip install 'rotary-batch[engine]'` (all that needs no model works without it: index, render, check)"
    try:
        require_libraries()
        return Check(what="torch", ok=True, fact=importlib.metadata.version("torch"))
    except (RotaryError, importlib.metadata.PackageNotFoundError):
        fact = "it, numpy or safetensors is not installed"
        return Check(what="torch", ok=False, essential=True, fact=fact, advice=advice)


def _card(settings: Settings, cards: Cards) -> Check:
    """A card that is asked for has to be there; else the CPU does."""
    is_wanted = settings.device != "cpu"
    number = int(settings.device.partition(":")[2] or 0)
    if is_wanted and number >= len(cards.found):
        fact = f"{settings.device} is set, but {cards.fact}"
        advice = cards.advice or "write --device cpu, or install the driver of the card and a torch for it"
        return Check(what="graphics card", ok=False, essential=True, fact=fact, advice=advice)
    fact = cards.fact if is_wanted else f"{cards.fact}; the CPU computes"
    return Check(what="graphics card", ok=not cards.advice, fact=fact, advice=cards.advice)


def _processor() -> Check:
    """The level of the compiled kernels, and why others are left out.  Raises ConfigError."""
    try:
        require_libraries()
    except UnavailableError:
        return Check(what="processor", ok=True, fact="its kernels are part of the engine, which is not installed")
    from rotary_batch.engine.kernels.build import open_library
    from rotary_batch.engine.kernels.dispatch import Level, cap

    most, compiler = cap(os.environ), c_compiler(os.environ)
    if compiler is not None and not _is_there(compiler):
        fact = f"CC is {compiler!r}, which does not exist"
        return Check(what="processor", ok=False, fact=fact, advice="unset CC, or install that compiler")
    library = open_library(kernel_dir(os.environ), most)
    given = f" (ROTARY_BATCH_MAX_ISA={most.label})" if "ROTARY_BATCH_MAX_ISA" in os.environ else ""
    fact = f"kernels {library.level.label}{given}"
    if compiler is None and library.level is Level.PORTABLE:
        advice = "install gcc or clang: without compiled kernels fast numerics take up to six times as long"
        return Check(what="processor", ok=False, fact=f"{fact}; no C compiler", advice=advice)
    if library.left_out:
        reasons = "; ".join(f"{level.label} is left out: {reason}" for level, reason in library.left_out.items())
        advice = "answers are right, but slower; update the compiler, or report this"
        return Check(what="processor", ok=False, fact=f"{fact}; {reasons}", advice=advice)
    checked = ", which passed their self-check" if library.level > Level.PORTABLE else ""
    return Check(what="processor", ok=True, fact=f"{fact}{checked}")


def _is_there(compiler: str) -> bool:
    try:
        return shutil.which(shlex.split(compiler)[0]) is not None
    except (ValueError, IndexError):  # a quote that is not closed, or nothing
        return False


def _memory(settings: Settings, cards: Cards) -> Check:
    """Whether the model fits, as far as that can be known before an index."""
    fact = f"{size_text(allowed_nbytes())}, {size_text(free_nbytes())} free"
    number = int(settings.device.partition(":")[2] or 0)
    try:
        if settings.device == "cpu" or number < len(cards.found):
            total = allowed_nbytes() if settings.device == "cpu" else cards.found[number].total_nbytes
            _, manifest = described_pack(settings)
            longest = find_job(settings, manifest).longest_rollup_tokens(manifest.context_tokens)
            require_room(manifest, settings, longest, total)
    except InputError:  # of the model, which has a line of its own
        pass
    except RotaryError as error:
        return Check(what="memory", ok=False, essential=True, fact=fact, advice=str(error))
    return Check(what="memory", ok=True, fact=fact)


def _settings(files: Sequence[Path]) -> Check:
    used = next((path for path in files if path.is_file()), None)
    where = " and ".join(map(str, files))
    return Check(what="settings", ok=True, fact=str(used) if used else f"no file; looked for {where}")


def _model(settings: Settings) -> Check:
    try:
        pack, manifest = described_pack(settings)
        what = f"{manifest.name}, {manifest.experts} experts of {size_text(manifest.experts_nbytes)}"
        if not (pack / MANIFEST_NAME).is_file():
            return Check(what="model", ok=True, fact=f"{what}; {settings.model} is packed at its first use")
        require_whole(pack, manifest)
    except RotaryError as error:
        return _failed("model", error)
    demonstration = "demonstration model; name a real one with --model" if manifest.demonstration else pack
    return Check(what="model", ok=True, fact=f"{what} ({demonstration})")


def _database(path: Path) -> Check:
    if not path.exists() or not path.stat().st_size:
        return Check(what="database", ok=True, fact=f"none yet; `rotary-batch index` makes {path}")
    try:
        with explained(path), contextlib.closing(open_database(path, read_only=True)) as db:
            if db.execute("pragma user_version").fetchone()[0] < len(MIGRATIONS):
                fact = f"{path}: made by an earlier version"
                return Check(what="database", ok=False, fact=fact, advice="the next `rotary-batch index` updates it")
            require_current(db)
            db.set_progress_handler(_after(CHECK_S), 10_000)
            with contextlib.suppress(InterruptedError):
                _quick_check(db)
    except RotaryError as error:
        return _failed("database", error)
    return Check(what="database", ok=True, fact=f"{path}, {size_text(path.stat().st_size)}; it opens")


def _after(seconds: float) -> Callable[[], bool]:
    """Whether the time is up."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _quick_check(db: sqlite3.Connection) -> None:
    """Raises InterruptedError when the time was up first."""
    try:
        db.execute("pragma quick_check(1)").fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise InterruptedError from error
        raise


def _rates(settings: Settings) -> Check:
    rates = cached_rates(settings.device, cache_dir(os.environ))
    if rates is not None:
        return Check(what="rates", ok=True, fact=rates.told())
    command = f"rotary-batch bench --machine --device {settings.device}"
    advice = f"run `{command}` once; it takes a minute, and then `plan` can tell the time"
    return Check(what="rates", ok=False, fact=f"this machine was not measured ({settings.device})", advice=advice)


def _disks(settings: Settings) -> list[Check]:
    """Where the program writes, and how much room is there."""
    around = enclosing_repository(Path.cwd()) if shutil.which("git") else None
    folders = [("database", database_path(settings).parent, "--db"), ("cache", cache_dir(os.environ), "XDG_CACHE_HOME")]
    if around is not None:
        folders.append(("docs", around / settings.out, "--out"))
    return [_disk(f"disk ({name})", folder, option) for name, folder, option in folders]


def _disk(what: str, folder: Path, option: str) -> Check:
    try:
        there = require_disk(folder, option)
    except RotaryError as error:
        return _failed(what, error)
    return Check(what=what, ok=True, fact=f"{size_text(shutil.disk_usage(there).free)} free at {folder}")


def _failed(what: str, error: RotaryError) -> Check:
    """An error as a check: what it says to do comes behind the last semicolon."""
    fact, _, advice = str(error).rpartition("; ")
    return Check(what=what, ok=False, essential=True, fact=fact or advice, advice=advice if fact else "")


def _grammars() -> Check:
    details = tuple(_grammar(name) for name in LANGUAGES)
    missing = [detail.what for detail in details if not detail.ok]
    if not missing:
        return Check(what="grammars", ok=True, fact=f"{len(details)} languages, all grammars load", details=details)
    fact = f"{len(missing)} of {len(details)} do not load: {', '.join(missing)}"
    is_essential = len(missing) == len(details)
    return Check(what="grammars", ok=False, essential=is_essential, fact=fact, advice=_REINSTALL, details=details)


def _grammar(name: str) -> Check:
    try:
        wheel = LANGUAGES[name].grammar[0].replace("_", "-")
        version = f"{wheel} {importlib.metadata.version(wheel)}, ABI {grammar(name).abi_version}"
        return Check(what=name, ok=query(name) is not None, fact=version)
    except (ImportError, ValueError, OSError) as error:
        return Check(what=name, ok=False, fact=str(error), advice=_REINSTALL)
