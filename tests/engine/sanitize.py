"""Every kernel at every level under AddressSanitizer and UndefinedBehaviorSanitizer: `make sanitize`.

The kernels are compiled with both, and called from a Python whose allocations the sanitizer sees, in arrays of exactly
the size that C may touch.  Levels that this processor lacks are emulated, and those that it has are run both ways.
"""

# ruff: noqa: T201
from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rotary_batch.config import c_compiler
from rotary_batch.engine.kernels import build, check
from rotary_batch.engine.kernels.bindings import SIGNATURES, function_name
from rotary_batch.engine.kernels.check import Case
from rotary_batch.engine.kernels.dispatch import COMPILE_UNITS, DECODED, FORMATS, GGML, Level

SANITIZERS = ("-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# One row of registers and all that remain, a tile of rows and more; one block, parts of one, and more; columns that go
# at once, parts of them, and more; a group of every size.
CASES = {
    "gemm_avx2": [
        Case(1, 4, 32, 32),
        Case(2, 68, 96, 32),
        Case(49, 132, 1184, 32),
        Case(194, 64, 128, 64),
        Case(3, 64, 512, 128),
    ],
    "gemv_avx512bf16": [Case(rows, 4 * rows, 544, 32) for rows in (1, 2, 3, 4)],
    "gemm_avx512bf16": [
        *(Case(rows, 64, 64, 64) for rows in range(1, 18)),
        Case(33, 128, 1184, 32),
        Case(258, 64, 512, 128),
    ],
    "gemm_amx": [Case(1, 64, 32, 32), Case(16, 64, 64, 64), Case(17, 128, 1184, 32), Case(258, 64, 512, 128)],
}


# Blocks of GGUF files: rows of a matrix that are no whole registers, tiles or blocks; one block, and more than a unit.
GGML_CASES = [
    Case(8, 1, 32, 32),
    Case(5, 67, 96, 32),
    Case(3, 6, 800, 32),
    Case(50, 67, 544, 32),
    Case(257, 65, 32, 32),
]


def cases(kernel: str, stored_as: str) -> list[Case]:
    """What a kernel is called with, in a format that it has."""
    if function_name(kernel, stored_as) not in SIGNATURES:
        return []
    return CASES.get(kernel, []) + (GGML_CASES if stored_as in GGML or kernel.endswith("_q8") else [])


def main() -> int:
    """Build both libraries, and run them in a process that has the sanitizer's runtime from the start."""
    from emulated import EMULATED_UNITS, NATIVE_LEVELS, emulating_sources

    build.FLAGS = ("-O1", "-pthread", "-fPIC", *SANITIZERS)
    compiler = c_compiler(os.environ)
    if (
        compiler is None
        or subprocess.run([*shlex.split(compiler), "-xc", "-c", os.devnull, "-o", os.devnull]).returncode
    ):
        print("sanitize: needs a C compiler that works", file=sys.stderr)
        return 1
    if Level.AVX2 not in NATIVE_LEVELS:
        print(f"sanitize: nothing was run: the kernels need a processor with AVX2, and {compiler} must know it")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        native = [level for level in NATIVE_LEVELS if level > Level.AVX2]
        plans = [
            (
                "emulated",
                EMULATED_UNITS,
                emulating_sources(Path(folder) / "c"),
                [Level.AVX2, Level.AVX512_BF16, Level.AMX],
            )
        ]
        plans += [("native", COMPILE_UNITS, build.SOURCES, native)] if native else []
        for name, units, sources, levels in plans:
            path = Path(folder) / f"{name}.so"
            refused = build.compile_units(
                compiler, [unit for unit in units if unit.level in (Level.PORTABLE, *levels)], sources, path
            )
            status = 1 if refused else run(compiler, path, levels)
            if status:
                print(f"sanitize: {name} kernels failed: status {status} {refused or ''}", file=sys.stderr)
                return 1
            print(f"sanitize: {name} kernels of {', '.join(level.label for level in levels)} are clean")
    return 0


def runtime(compiler: str) -> str | None:
    """The library of the sanitizer that a process must load first; clang names that of gcc, which lacks its functions."""
    version, library = (
        subprocess.run([*shlex.split(compiler), question], capture_output=True, text=True).stdout.strip()
        for question in ("--version", "-print-file-name=libasan.so")
    )
    return library if Path(library).is_absolute() and "clang" not in version else None


def run(compiler: str, path: Path, levels: list[Level]) -> int:
    """Call the kernels of these levels in a process that has the sanitizer's runtime; its status."""
    library = runtime(compiler)
    if library is None:
        print(f"sanitize: {compiler} is not a gcc with a libasan.so; set CC to one", file=sys.stderr)
        return 1
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=1",
        "PYTHONMALLOC": "malloc",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return subprocess.run(
        [sys.executable, __file__, str(path), *(level.name for level in levels)], env=environment
    ).returncode


def run_here(path: str, levels: list[Level]) -> int:
    """Call them; the sanitizer ends the process where it finds something, and a wrong sum is an error too."""
    library = ctypes.CDLL(path)
    if Level.AMX in levels:
        library.has_amx()  # asks the system for the tiles: without its permission their first use ends the process
    wrong: list[object] = [
        (kernel, stored_as, case)
        for level in levels
        for kernel in check.LEVELS[level]
        for stored_as in FORMATS
        for case in cases(kernel, stored_as)
        if not check.gemm_error(library, kernel, stored_as, case) <= 2**-7
    ]
    if Level.AVX2 in levels:
        formats = (*GGML, *DECODED)
        errors = {name: max(check.decode_error(library, name, case) for case in GGML_CASES) for name in formats}
        wrong += [("decode_avx2", name) for name, error in errors.items() if not error <= 2**-23]
    experts = {
        f"experts {name} {formats}": check.experts_error(library, name, formats)
        for level, name in check.Q8_KERNELS.items()
        if level in levels
        for formats in check.EXPERT_FORMATS
    }
    wrong += [name for name, error in experts.items() if not error <= 2**-6]
    if Level.AVX2 in levels and not max(check.attention_error(library, dim) for dim in (32, 96, 256)) <= 1e-4:
        wrong.append("attention_avx2")
    if Level.AVX2 in levels and not max(check.delta_error(library, dim) for dim in (8, 32, 72)) <= 1e-4:
        wrong.append("delta_avx2")
    print(*wrong, sep="\n", end="", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(run_here(sys.argv[1], [Level[name] for name in sys.argv[2:]]) if sys.argv[1:] else main())
