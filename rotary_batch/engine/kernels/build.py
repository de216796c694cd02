"""Build the kernels of c/ once with the machine's C compiler, check them in a child process, and keep both results.

A kernel can only be left out: what the compiler refuses, what computes wrongly, crashes or hangs is not used, and
`Library.left_out` says why.  Beside the library is one record of the compiler's refusals, and one of the checks for
every kind of processor that shares the folder.  Trouble that may pass (a full disk, a signal from outside, a slow
machine) is in no record: it counts for this process, and the next one tries again.
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
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.config import c_compiler
from rotary_batch.engine.kernels.dispatch import DETECTORS, UNITS, Level, Unit

SOURCES = Path(__file__).with_name("c")
FLAGS = ("-O3", "-pthread", "-fPIC")
IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}
COMPILE_S = 120
CHECK_S = 60
# What the kernels themselves end a process by; others (SIGKILL, SIGTERM, SIGINT) come from outside.
CRASHES = (signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)
# What gcc and clang say, with a status of their own, when another program of theirs met trouble that may pass.
PASSING = ("Killed", "No space left", "Cannot allocate memory", "out of memory")
SAID = "checked: "  # what check.py prints before the first thing that is wrong


class RefusedError(OSError):
    """The compiler cannot make this, and will not until it is another one."""


class UncheckedError(OSError):
    """A check ended without a word on the kernels."""


class Library(NamedTuple):
    """The kernels of this machine."""

    functions: ctypes.CDLL | None
    levels: frozenset[Level]  # those that work, PORTABLE always
    left_out: Mapping[Level, str]  # those that this processor has and that do not work, and why

    @property
    def level(self) -> Level:
        """The highest that works."""
        return max(self.levels)


class Compiled(NamedTuple):
    """A shared library and what could not be compiled into it."""

    path: Path
    digest: str
    refused: Mapping[str, str]  # by the name of the level


def open_library(folder: Path, cap: Level, units: Sequence[Unit] = UNITS, sources: Path = SOURCES) -> Library:
    """The kernels up to level `cap`, from the cache folder or built anew.  Nothing that goes wrong here raises."""
    wanted = [unit.level for unit in units if IS_X86 and Level.PORTABLE < unit.level <= cap]
    if not wanted:
        return Library(None, frozenset([Level.PORTABLE]), {})
    with tempfile.TemporaryDirectory() as temporary:
        try:
            compiled = _compiled(folder, Path(temporary), units, sources)
            reasons = _checked(folder, compiled, wanted)
            functions = ctypes.CDLL(str(compiled.path))
        except OSError as error:
            return Library(None, frozenset([Level.PORTABLE]), {wanted[0]: str(error)})
    return _library(functions, wanted, reasons)


def _library(functions: ctypes.CDLL, wanted: Sequence[Level], reasons: Mapping[str, str]) -> Library:
    """`has_amx` also asks the system to let this process use tiles."""
    had = [level for level in wanted if functions[DETECTORS[level]]()]
    left_out = {level: reasons[level.name] for level in had if reasons[level.name]}
    return Library(functions, frozenset([Level.PORTABLE, *had]) - left_out.keys(), left_out)


# ---- compiling


def _compiled(folder: Path, temporary: Path, units: Sequence[Unit], sources: Path) -> Compiled:
    """From the folder, if it is whole, nobody else can have written it, and this compiler would do no better."""
    kept = folder / f"kernels-{_key(units, sources)}.so"
    compiler = c_compiler(os.environ)
    record = _read(kept.with_suffix(".json"))
    digest, refused = _digest(kept), record.get("refused", {})
    is_whole = digest and record.get("digest") == digest
    if is_whole and (not refused or compiler is None or record.get("compiler") == _identity(compiler)):
        return Compiled(kept, digest, refused)
    if compiler is None:
        raise OSError("there is no C compiler (cc, gcc or clang)")
    path, identity = temporary / kept.name, _identity(compiler)
    errors = _compile(compiler, units, sources, path)
    digest, refused = _digest(path), {name: str(error) for name, error in errors.items()}
    will_last = all(isinstance(error, RefusedError) for error in errors.values())
    record = {"digest": digest, "refused": refused, "compiler": identity if will_last else None}
    with suppress(OSError):  # a folder that cannot be written costs seconds at every start
        _write(kept, path.read_bytes())
        path = kept  # a temporary folder may be one from which nothing can be run
        _write(kept.with_suffix(".json"), _json(record))
    return Compiled(path, digest, refused)


def _identity(compiler: str) -> str:
    """The command, and which files it and the assembler are: a compiler that was mended in place is another one."""
    files = [Path(found).resolve() for word in (*_words(compiler), "as") if (found := shutil.which(word))]
    versions = [f"{file} {(status := file.stat()).st_size} {status.st_mtime_ns}" for file in files]
    return "; ".join([compiler, *versions])


def _key(units: Sequence[Unit], sources: Path) -> str:
    digest = hashlib.sha256(repr((FLAGS, units)).encode())
    for path in sorted(sources.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: str, units: Sequence[Unit], sources: Path, path: Path) -> dict[str, OSError]:
    """Link what can be compiled into `path`; what went wrong with the units that cannot."""
    command, objects, errors = [*_words(compiler), *FLAGS], list[str](), dict[str, OSError]()
    for unit in units:
        made = {str(path.with_name(f"{unit.level.label}-{name}.o")): str(sources / name) for name in unit.files}
        try:
            for target, source in made.items():
                _run([*command, *unit.flags, "-c", source, "-o", target])
        except OSError as error:  # an old compiler, or an old assembler behind a new one
            errors[unit.level.name] = error
        else:
            objects += made
    if Level.PORTABLE.name in errors:
        raise errors[Level.PORTABLE.name]
    _run([*command, "-shared", *objects, "-o", str(path)])
    return errors


def _words(compiler: str) -> list[str]:
    try:
        return shlex.split(compiler)
    except ValueError as error:
        raise OSError(f"CC is {compiler!r}: {error}") from error


def _run(command: Sequence[str]) -> None:
    """Raises RefusedError when the command will fail again, OSError when it may not."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=COMPILE_S)
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
    text = done.stderr.decode(errors="replace").strip()
    if done.returncode:
        may_pass = done.returncode < 0 or any(words in text for words in PASSING)
        raise (OSError if may_pass else RefusedError)(f"{command[0]} failed: {text[:300]}")


# ---- checking


def _checked(folder: Path, compiled: Compiled, wanted: Sequence[Level]) -> dict[str, str]:
    """For each level '' or why it must not be used here; the verdict that was found before, where there is one."""
    path = folder / f"{compiled.path.stem}-{_processor()}.json"
    record = _read(path)
    before = record.get("verdicts", {}) if record.get("digest") == compiled.digest else {}
    verdicts, others = dict(before), dict(compiled.refused)
    for level in wanted:
        if level.name not in {**verdicts, **others}:
            try:
                verdicts[level.name] = why_not(compiled.path, level)
            except UncheckedError as error:
                others[level.name] = str(error)
    if verdicts != before:
        with suppress(OSError):
            _write(path, _json({"digest": compiled.digest, "verdicts": verdicts}))
    return {**verdicts, **others}


def why_not(path: Path, level: Level) -> str:
    """Run the kernels of a level in a child process, which may crash; '' when they are right.

    Raises UncheckedError.
    """
    command = [sys.executable, "-P", "-m", "rotary_batch.engine.kernels.check", str(path), level.name]
    try:
        folders = [folder or str(Path.cwd()) for folder in sys.path]  # '' in a notebook and in `python -c`
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
        child = subprocess.run(  # in a session of its own, which Ctrl-C does not reach
            command, capture_output=True, timeout=CHECK_S, env=environment, text=True, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        message = (
            f"its check took over {CHECK_S} s; to use none from the start set ROTARY_BATCH_MAX_ISA to a level below"
        )
        raise UncheckedError(message) from None
    except OSError as error:
        raise UncheckedError(f"its check could not be started: {error}") from error
    return _verdict(child)


def _verdict(child: subprocess.CompletedProcess[str]) -> str:
    if -child.returncode in CRASHES:
        return f"its check ended by {signal.Signals(-child.returncode).name}"
    if child.returncode == 0 and child.stdout.startswith(SAID):
        return child.stdout.removeprefix(SAID).strip()
    end = f" by signal {-child.returncode}" if child.returncode < 0 else ""
    raise UncheckedError(f"its check failed{end}: {(child.stderr or child.stdout).strip()[-300:]}")


def _processor() -> str:
    """A short name of this kind of processor: its model and what the system lets programs use of it."""
    lines = [platform.machine()]
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(errors="replace")
        lines += [line for line in text.split("\n\n")[0].splitlines() if line.startswith(("model name", "flags"))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:8]


# ---- files of the cache folder


def _read(path: Path) -> dict[str, Any]:
    """A record, {} when there is none, it is damaged or not ours."""
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text()) if _is_ours(path) else {}
        return found if isinstance(found, dict) else {}
    return {}


def _digest(path: Path) -> str:
    """Of a library, '' when there is none or it is not ours."""
    with suppress(OSError):
        return hashlib.sha256(path.read_bytes()).hexdigest() if _is_ours(path) else ""
    return ""


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written it: what it holds will run."""
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
