"""Build the compiled kernels, native*.c, once with the machine's C compiler, and keep them in the cache folder.

Knows compilers and files; knows nothing of what the kernels do.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from rotary_batch.config import c_compiler

SOURCES = tuple(
    Path(__file__).with_name(name)
    for name in ("native.h", "native.c", "native_attention.c", "native_few.c", "native_tiles.c", "native_unpack.c")
)
# AVX2 and FMA by name, not -march=native: the cache folder may be shared by machines.
FLAGS = ("-O3", "-mavx2", "-mfma", "-fopenmp", "-fPIC", "-shared")
COMPILE_S = 120


def function(library: ctypes.CDLL, name: str, *, pointers: int, longs: int) -> Any:  # noqa: ANN401 - ctypes has no type
    """A kernel: it takes pointers, sizes and a number of threads, and gives nothing."""
    kernel = library[name]
    kernel.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_long] * longs + [ctypes.c_int]
    kernel.restype = None
    return kernel


def library(folder: Path) -> ctypes.CDLL:
    """The shared library of the cache folder; built anew when there is none, or one that is damaged or not ours.

    Raises OSError and SubprocessError.
    """
    parts = [" ".join(FLAGS).encode(), *(path.read_bytes() for path in SOURCES)]
    key = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    kept = folder / f"native-{key}.so"
    with suppress(OSError):
        if _is_ours(kept):
            return ctypes.CDLL(str(kept))
    compiler = c_compiler(os.environ)
    if compiler is None:
        raise OSError("there is no C compiler (cc, gcc or clang)")
    with tempfile.TemporaryDirectory() as temporary:
        built = Path(temporary) / kept.name
        command = [*shlex.split(compiler), *FLAGS, *(str(path) for path in SOURCES if path.suffix == ".c")]
        command += ["-o", str(built)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_S)
        except subprocess.CalledProcessError:  # a compiler, or its assembler, that knows less than its version says
            subprocess.run([*command, "-DNO_BF16"], check=True, capture_output=True, timeout=COMPILE_S)
        with suppress(OSError):  # a folder that cannot be written costs a second at every start
            _keep(built, kept)
        return ctypes.CDLL(str(built))


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written it: what it holds will run."""
    status = path.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _keep(built: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(built.read_bytes())
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
