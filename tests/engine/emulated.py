"""An emulated processor with AMX: the kernels above AVX2 compiled with their instructions in plain C."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rotary_batch.config import c_compiler
from rotary_batch.engine.kernels import build
from rotary_batch.engine.kernels.build import Library, open_library
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import COMPILE_UNITS, CompileUnit, Level

HEADERS = Path(__file__).with_name("emulation")
AVX2 = next(unit.flags for unit in COMPILE_UNITS if unit.level == Level.AVX2)
# At the optimisation of the program compiling takes 13 s of a processor, at this one 5.
_AVX512 = (*AVX2, "-O1", "-Wno-psabi", "-include", str(HEADERS / "avx512.h"))
_FLAGS = {
    Level.AVX_VNNI: (*AVX2, "-O1", "-Wno-psabi", "-include", str(HEADERS / "avxvnni.h"), "-DUSE_AVX_VNNI"),
    Level.AVX512_BF16: (*_AVX512, "-DUSE_AVX512"),
    Level.AMX: (*_AVX512, "-include", str(HEADERS / "amx.h"), "-DUSE_AMX"),
}
EMULATED_UNITS = tuple(
    CompileUnit(unit.level, unit.files, _FLAGS.get(unit.level, unit.flags)) for unit in COMPILE_UNITS
)
DETECT = "int has_avx2(void) { return 1; }\nint has_avx_vnni(void) { return 1; }\nint has_avx512_bf16(void) { return 1; }\nint has_amx(void) { return 1; }\n"


def emulating_sources(folder: Path) -> Path:
    """The C files in a folder, with detection functions that report every level."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in build.SOURCES.iterdir():
        shutil.copy(source, folder)
    (folder / "detect.c").write_text(DETECT)
    return folder


def emulated_library(folder: Path) -> Library:
    """Every level, whatever the processor is."""
    return open_library(folder / "cache", Level.AMX, EMULATED_UNITS, emulating_sources(folder / "c"))


def compiling_once(folder: Path) -> Callable[[Sequence[str]], None]:
    """`build._run_compiler` with a cache of objects: a text that was compiled with the same flags is not compiled anew.

    A test that changes one file compiles what includes that, and links it to the others.
    """
    run_compiler = build._run_compiler

    def run(command: Sequence[str]) -> None:
        *options, action, source, _, target = command
        expanded = action == "-c" and subprocess.run([*options, "-E", "-P", source], capture_output=True)
        if not expanded or expanded.returncode:  # the compiler itself says what it refuses
            return run_compiler(command)
        kept = folder / f"{hashlib.sha256(repr(options).encode() + expanded.stdout).hexdigest()}.o"
        if not kept.exists():
            run_compiler(command)
            folder.mkdir(parents=True, exist_ok=True)
            Path(shutil.copy(target, kept.with_suffix(f".{os.getpid()}"))).replace(kept)
        shutil.copy(kept, target)
        return None

    return run


def kernels_of(library: Library) -> CpuKernels:
    return CpuKernels(library, has_bf16=True)


def _native_levels() -> list[Level]:
    """Levels that this processor has, by the detection of the program, and that the compiler supports."""
    compiler = c_compiler(os.environ)
    if compiler is None or not build.IS_X86:
        return []
    with tempfile.TemporaryDirectory() as folder:
        sources, path = Path(folder), Path(folder) / "detect.so"
        shutil.copy(build.SOURCES / "detect.c", sources)
        (sources / "empty.c").touch()
        units = [
            CompileUnit(unit.level, ["empty.c" if unit.level else "detect.c"], unit.flags) for unit in COMPILE_UNITS
        ]
        try:
            refused = build.compile_units(compiler, units, sources, path)
            detection = ctypes.CDLL(str(path))
        except OSError:  # no working compiler, or a temporary folder that is mounted noexec
            return []
    detected = [level for level in Level if level in build.DETECTORS and detection[build.DETECTORS[level]]()]
    return [level for level in detected if level.name not in refused]


NATIVE_LEVELS = _native_levels()
HAS_AVX2 = Level.AVX2 in NATIVE_LEVELS
