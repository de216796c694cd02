"""A processor with AMX, on any with AVX2: the kernels above AVX2 compiled with their instructions in plain C."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from rotary_batch.config import c_compiler
from rotary_batch.engine.kernels import build
from rotary_batch.engine.kernels.build import Library, open_library
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import UNITS, Level, Unit

HEADERS = Path(__file__).with_name("emulation")
AVX2 = next(unit.flags for unit in UNITS if unit.level == Level.AVX2)
_AVX512 = (*AVX2, "-Wno-psabi", "-include", str(HEADERS / "avx512.h"))
_FLAGS = {
    Level.AVX512_BF16: _AVX512,
    Level.AMX: (*_AVX512, "-include", str(HEADERS / "amx.h"), "-DUSE_AMX"),
}
EMULATED_UNITS = tuple(Unit(unit.level, unit.files, _FLAGS.get(unit.level, unit.flags)) for unit in UNITS)
DETECT = "int has_avx2(void) { return 1; }\nint has_avx512_bf16(void) { return 1; }\nint has_amx(void) { return 1; }\n"


def emulating_sources(folder: Path) -> Path:
    """The C files in a folder, with a detection that finds everything."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in build.SOURCES.iterdir():
        shutil.copy(source, folder)
    (folder / "detect.c").write_text(DETECT)
    return folder


def emulated_library(folder: Path) -> Library:
    """Every level, whatever the processor is."""
    return open_library(folder / "cache", Level.AMX, EMULATED_UNITS, emulating_sources(folder / "c"))


def kernels_of(library: Library) -> CpuKernels:
    return CpuKernels(library, has_bf16=True)


def _native_levels() -> list[Level]:
    """Those of this processor, by the same detection as in the program."""
    if c_compiler(os.environ) is None or not build.IS_X86:
        return []
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detect.so"
        build._compile(c_compiler(os.environ), UNITS[:1], build.SOURCES, path)
        found = ctypes.CDLL(str(path))
    return [level for level in Level if level in build.DETECTORS and found[build.DETECTORS[level]]()]


NATIVE_LEVELS = _native_levels()
HAS_AVX2 = Level.AVX2 in NATIVE_LEVELS
