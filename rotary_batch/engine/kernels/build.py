"""Compile the kernels of c/ once with the machine's C compiler, check them in a child process, and cache both results.

A kernel can only be left out: what the compiler refuses, and what computes wrongly, crashes or hangs, is not used, and
`Library.left_out` says why.  Next to the library there is one record of what the compiler refused, and one record of
the checks for every kind of processor that shares the folder.  A failure that may be temporary (a full disk, a signal
from outside, a slow machine) is not recorded: it counts for this process, and the next one tries again.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.config import c_compiler
from rotary_batch.engine.kernels.dispatch import COMPILE_UNITS, DETECTORS, CompileUnit, Level

SOURCES = Path(__file__).with_name("c")
FLAGS = ("-O3", "-pthread", "-fPIC")
IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}
COMPILE_TIMEOUT_S = 120
COMPILERS = 4  # at once; each takes up to 200 MB
CHECK_TIMEOUT_S = 60
# Signals that kernels themselves cause; others (SIGKILL, SIGTERM, SIGINT) come from outside.
CRASH_SIGNALS = (signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)
# What gcc and clang print, with an exit status of their own, when a program that they started failed temporarily.
TEMPORARY_ERRORS = ("Killed", "No space left", "Cannot allocate memory", "out of memory")
VERDICT_PREFIX = "checked: "  # check.py prints it before its verdict


class CompileError(OSError):
    """The compiler refuses the source, and will refuse it until the compiler changes."""


class NoVerdictError(OSError):
    """A check ended without a verdict on the kernels."""


class Library(NamedTuple):
    """The kernels of this machine."""

    functions: ctypes.CDLL | None
    levels: frozenset[Level]  # those that work, always including PORTABLE
    left_out: Mapping[Level, str]  # those that this processor has and that do not work, with the reason

    @property
    def level(self) -> Level:
        """The highest that works."""
        return max(self.levels)


class CompiledLibrary(NamedTuple):
    """A shared library, and what could not be compiled into it."""

    path: Path
    digest: str
    refused: Mapping[str, str]  # name of the level -> error


def open_library(
    folder: Path, cap: Level, units: Sequence[CompileUnit] = COMPILE_UNITS, sources: Path = SOURCES
) -> Library:
    """The kernels up to level `cap`, from the cache folder or newly compiled.  Never raises for what goes wrong."""
    levels = _levels(units, cap)
    if not levels:
        return Library(None, frozenset([Level.PORTABLE]), {})
    with tempfile.TemporaryDirectory() as temporary:
        try:
            compiled = _cached_or_compiled(folder, Path(temporary), units, sources)
            verdicts = _verdicts(folder, compiled, levels)
            functions = ctypes.CDLL(str(compiled.path))
        except OSError as error:
            return Library(None, frozenset([Level.PORTABLE]), {levels[0]: str(error)})
    return _library(functions, levels, verdicts)


def must_compile(
    folder: Path, cap: Level, units: Sequence[CompileUnit] = COMPILE_UNITS, sources: Path = SOURCES
) -> bool:
    """Whether `open_library` would call the compiler, which takes half a minute."""
    has_compiler = c_compiler(os.environ) is not None
    return has_compiler and bool(_levels(units, cap)) and not _cached_path(folder, units, sources).is_file()


def _levels(units: Sequence[CompileUnit], cap: Level) -> list[Level]:
    """The levels of this kind of processor that kernels are compiled for."""
    return [unit.level for unit in units if IS_X86 and Level.PORTABLE < unit.level <= cap]


def _cached_path(folder: Path, units: Sequence[CompileUnit], sources: Path) -> Path:
    return folder / f"kernels-{_source_digest(units, sources)}.so"


def _library(functions: ctypes.CDLL, levels: Sequence[Level], verdicts: Mapping[str, str]) -> Library:
    """`has_amx` also asks the OS to let this process use tiles."""
    available = [level for level in levels if functions[DETECTORS[level]]()]
    left_out = {level: verdicts[level.name] for level in available if verdicts[level.name]}
    return Library(functions, frozenset([Level.PORTABLE, *available]) - left_out.keys(), left_out)


# ---- compiling


def _cached_or_compiled(folder: Path, temporary: Path, units: Sequence[CompileUnit], sources: Path) -> CompiledLibrary:
    """The cached library if it is complete, only we can have written it, and this compiler can do no better."""
    cached = _cached_path(folder, units, sources)
    compiler = c_compiler(os.environ)
    record = _read_record(cached.with_suffix(".json"))
    digest, refused = _file_digest(cached), record.get("refused", {})
    is_complete = digest and record.get("digest") == digest
    if is_complete and (not refused or compiler is None or record.get("compiler") == _compiler_identity(compiler)):
        return CompiledLibrary(cached, digest, refused)
    if compiler is None:
        raise OSError("there is no C compiler (cc, gcc or clang)")
    path, identity = temporary / cached.name, _compiler_identity(compiler)
    errors = compile_units(compiler, units, sources, path)
    digest, refused = _file_digest(path), {name: str(error) for name, error in errors.items()}
    is_permanent = all(isinstance(error, CompileError) for error in errors.values())
    record = {"digest": digest, "refused": refused, "compiler": identity if is_permanent else None}
    with suppress(OSError):  # a folder that is not writable costs seconds at every start
        _write(cached, path.read_bytes())
        path = cached  # the temporary folder may be mounted noexec
        _write(cached.with_suffix(".json"), _json(record))
    return CompiledLibrary(path, digest, refused)


def _compiler_identity(compiler: str) -> str:
    """The command and the files of compiler and assembler: one that was replaced in place counts as another one."""
    files = [Path(path).resolve() for word in (*_split_command(compiler), "as") if (path := shutil.which(word))]
    versions = [f"{file} {(status := file.stat()).st_size} {status.st_mtime_ns}" for file in files]
    return "; ".join([compiler, *versions])


def _source_digest(units: Sequence[CompileUnit], sources: Path) -> str:
    digest = hashlib.sha256(repr((FLAGS, units)).encode())
    for path in sorted(sources.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def compile_units(compiler: str, units: Sequence[CompileUnit], sources: Path, path: Path) -> dict[str, OSError]:
    """Link the units that compile into `path`; return the errors of the others, by the names of their levels.

    Raises OSError when the portable unit does not compile, or nothing can be linked.
    """
    command, objects, errors = [*_split_command(compiler), *FLAGS], list[str](), dict[str, OSError]()
    with ThreadPoolExecutor(min(COMPILERS, os.cpu_count() or 1)) as pool:  # one by one they take 16 s
        running = [
            (unit, [pool.submit(_compile, [*command, *unit.flags], unit, name, sources, path) for name in unit.files])
            for unit in units
        ]
    for unit, compiled in running:
        try:
            objects += [one.result() for one in compiled]
        except OSError as error:  # an old compiler, or an old assembler behind a new one
            errors[unit.level.name] = error
    if Level.PORTABLE.name in errors:
        raise errors[Level.PORTABLE.name]
    _run_compiler([*command, "-shared", *objects, "-o", str(path)])
    return errors


def _compile(command: Sequence[str], unit: CompileUnit, name: str, sources: Path, path: Path) -> str:
    """One file of a unit, next to `path`; returns the object."""
    target = str(path.with_name(f"{unit.level.label}-{name}.o"))
    _run_compiler([*command, "-c", str(sources / name), "-o", target])
    return target


def _split_command(compiler: str) -> list[str]:
    try:
        return shlex.split(compiler)
    except ValueError as error:
        raise OSError(f"CC is {compiler!r}: {error}") from error


def _run_compiler(command: Sequence[str]) -> None:
    """Raises CompileError when the command will fail again, OSError when it may not."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=COMPILE_TIMEOUT_S)
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
    text = done.stderr.decode(errors="replace").strip()
    if done.returncode:
        is_temporary = done.returncode < 0 or any(message in text for message in TEMPORARY_ERRORS)
        raise (OSError if is_temporary else CompileError)(f"{command[0]} failed: {text[:300]}")


# ---- checking


def _verdicts(folder: Path, compiled: CompiledLibrary, levels: Sequence[Level]) -> dict[str, str]:
    """For each level '' or the reason not to use it here, from the record of this kind of processor if it has one."""
    path = folder / f"{compiled.path.stem}-{_processor()}.json"
    record = _read_record(path)
    recorded = record.get("verdicts", {}) if record.get("digest") == compiled.digest else {}
    verdicts, unrecorded = dict(recorded), dict(compiled.refused)
    for level in levels:
        if level.name not in {**verdicts, **unrecorded}:
            try:
                verdicts[level.name] = check_level(compiled.path, level)
            except NoVerdictError as error:
                unrecorded[level.name] = str(error)
    if verdicts != recorded:
        with suppress(OSError):
            _write(path, _json({"digest": compiled.digest, "verdicts": verdicts}))
    return {**verdicts, **unrecorded}


def check_level(path: Path, level: Level) -> str:
    """Check the kernels of a level in a child process, which may crash; '' when they are right, otherwise the reason.

    Raises NoVerdictError.
    """
    command = [sys.executable, "-P", "-m", "rotary_batch.engine.kernels.check", str(path), level.name]
    try:
        folders = [folder or str(Path.cwd()) for folder in sys.path]  # '' in a notebook and in `python -c`
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
        child = subprocess.run(  # in a session of its own, which Ctrl-C does not reach
            command, capture_output=True, timeout=CHECK_TIMEOUT_S, env=environment, text=True, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        message = (
            f"its check took over {CHECK_TIMEOUT_S} s; to use none from the start set ROTARY_BATCH_MAX_ISA to a "
            "level below"
        )
        raise NoVerdictError(message) from None
    except OSError as error:
        raise NoVerdictError(f"its check could not be started: {error}") from error
    return _verdict(child)


def _verdict(child: subprocess.CompletedProcess[str]) -> str:
    if -child.returncode in CRASH_SIGNALS:
        return f"its check ended by {signal.Signals(-child.returncode).name}"
    if child.returncode == 0 and child.stdout.startswith(VERDICT_PREFIX):
        return child.stdout.removeprefix(VERDICT_PREFIX).strip()
    end = f" by signal {-child.returncode}" if child.returncode < 0 else ""
    raise NoVerdictError(f"its check failed{end}: {(child.stderr or child.stdout).strip()[-300:]}")


def _processor() -> str:
    """A short identifier of this kind of processor: its model, and the features that the OS allows."""
    lines = [platform.machine()]
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(errors="replace")
        lines += [line for line in text.split("\n\n")[0].splitlines() if line.startswith(("model name", "flags"))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


# ---- files of the cache folder


def _read_record(path: Path) -> dict[str, Any]:
    """A record; {} when it does not exist, is damaged, or others may write it."""
    with suppress(OSError, ValueError):
        record = json.loads(path.read_text()) if _is_ours(path) else {}
        return record if isinstance(record, dict) else {}
    return {}


def _file_digest(path: Path) -> str:
    """The digest of a library; '' when it does not exist, or others may write it."""
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest() if _is_ours(path) else ""
    return ""


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written it: its code will be run."""
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _json(record: Mapping[str, object]) -> bytes:
    return json.dumps(record, indent=1).encode()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
