"""Build the kernels of c/ once with the machine's C compiler, and keep them in the cache folder.

Each unit is compiled for its own instructions.  One that this compiler cannot compile is left out of the library.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rotary_batch.config import c_compiler

FOLDER = Path(__file__).with_name("c")
FLAGS = ("-O3", "-pthread", "-fPIC")
COMPILE_S = 120


class Unit(NamedTuple):
    """C files for the same instructions, which are named by flags: the cache folder may be shared by machines."""

    name: str
    files: Sequence[str]
    flags: Sequence[str]


class Built(NamedTuple):
    """A shared library, and for each unit that is not in it the reason."""

    library: ctypes.CDLL
    left_out: Mapping[str, str]


def built(folder: Path, units: Sequence[Unit], sources: Path = FOLDER) -> Built:
    """The library of the cache folder; built anew when there is none, or one that is damaged or not ours.

    Raises OSError when there is no compiler or nothing can be linked.
    """
    kept = folder / f"kernels-{_key(units, sources)}.so"
    with suppress(OSError, ValueError):
        if _is_ours(kept):
            return Built(ctypes.CDLL(str(kept)), json.loads(kept.with_suffix(".json").read_text()))
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / kept.name
        left_out = _compile(units, sources, path)
        with suppress(OSError):  # a folder that cannot be written costs a second at every start
            _keep(json.dumps(left_out).encode(), kept.with_suffix(".json"))
            _keep(path.read_bytes(), kept)
        return Built(ctypes.CDLL(str(path)), left_out)


def _key(units: Sequence[Unit], sources: Path) -> str:
    digest = hashlib.sha256(repr((FLAGS, units)).encode())
    for path in sorted(sources.iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compile(units: Sequence[Unit], sources: Path, path: Path) -> dict[str, str]:
    """Link what can be compiled into `path`; the units that cannot, with what the compiler says."""
    compiler = c_compiler(os.environ)
    if compiler is None:
        raise OSError("there is no C compiler (cc, gcc or clang)")
    command, objects, left_out = [*shlex.split(compiler), *FLAGS], list[str](), {}
    for unit in units:
        made = {str(path.with_name(f"{unit.name}-{name}.o")): str(sources / name) for name in unit.files}
        try:
            for target, source in made.items():
                _run([*command, *unit.flags, "-c", source, "-o", target])
        except OSError as error:  # an old compiler, or an old assembler behind a new compiler
            left_out[unit.name] = str(error)
        else:
            objects += made
    _run([*command, "-shared", *objects, "-o", str(path)])
    return left_out


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_S)
    except subprocess.CalledProcessError as error:
        raise OSError(f"{command[0]}: {error.stderr.decode(errors='replace').strip()[-500:]}") from error
    except (subprocess.SubprocessError, ValueError) as error:
        raise OSError(str(error)) from error


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written it: what it holds will run."""
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _keep(data: bytes, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
