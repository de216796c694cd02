"""A kernel can only be left out: whatever the compiler, the processor or the cache folder does, nothing raises.

On an emulated processor with AMX, so that every level is there on every machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sanitize
import torch
from emulated import DETECT, EMULATED_UNITS, HAS_AVX2, compiling_once, emulating_sources

from rotary_batch.config import c_compiler
from rotary_batch.engine.kernels import build, cpu
from rotary_batch.engine.kernels.build import open_library
from rotary_batch.engine.kernels.dispatch import CompileUnit, Level
from rotary_batch.engine.kernels.linear import FastMatmul
from rotary_batch.engine.kernels.quant import dequantise, matrix_from, quantise

pytestmark = pytest.mark.skipif(not HAS_AVX2, reason="needs a C compiler and a processor with AVX2")
ALL = frozenset(Level)
QUICK = ("-O1", "-pthread", "-fPIC")


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def whole(objects, tmp_path_factory):
    """A folder with a library that works, and its sources."""
    folder = tmp_path_factory.mktemp("whole")
    sources = emulating_sources(folder / "c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FLAGS", QUICK)
        with pytest.MonkeyPatch.context() as patch_of_compiler:
            patch_of_compiler.setattr(build, "_run_compiler", compiling_once(objects))
            assert open_library(folder / "cache", Level.AMX, EMULATED_UNITS, sources).levels == ALL
        yield folder


def opened(folder, sources, cap=Level.AMX, units=EMULATED_UNITS):
    return open_library(folder, cap, units, sources)


def only(*levels: Level):
    return tuple(unit for unit in EMULATED_UNITS if unit.level in (Level.PORTABLE, *levels))


@pytest.fixture
def small(tmp_path, monkeypatch):
    """`small()` opens a library of one function, which no child checks: what matters is the cache folder."""
    sources = tmp_path / "small"
    sources.mkdir()
    (sources / "detect.c").write_text(DETECT)
    (sources / "answer.c").write_text("int answer(void) { return 42; }\n")
    (sources / "more.c").write_text("int more(void) { return 43; }\n")
    units = [
        CompileUnit(Level.PORTABLE, ["detect.c"], []),
        CompileUnit(Level.AVX2, ["answer.c"], []),
        CompileUnit(Level.AMX, ["more.c"], ["-DUSE_AMX"]),
    ]
    monkeypatch.setattr(build, "check_level", lambda *_: "")
    return lambda folder: open_library(folder, Level.AMX, units, sources)


SMALL = {Level.PORTABLE, Level.AVX2, Level.AMX}


@pytest.fixture
def quick(monkeypatch, objects):
    """Compiled without optimisation, and no file twice: the faults are the same."""
    monkeypatch.setattr(build, "FLAGS", QUICK)
    monkeypatch.setattr(build, "_run_compiler", compiling_once(objects))


@pytest.fixture
def broken(tmp_path, quick):
    """`broken(file, old, new)`: the library of sources in which that stands instead, or some levels of it."""

    def make(file: str, old: str, new: str, *levels: Level):
        sources = emulating_sources(tmp_path / "c")
        text = (sources / file).read_text()
        assert old in text
        (sources / file).write_text(text.replace(old, new, 1))
        return opened(tmp_path / "cache", sources, units=only(*levels or Level))

    return make


BEGIN = "INLINE void store_bf16(const float *sums, const float *scale, uint16_t *out, long rows, long N) {"


@pytest.mark.parametrize(
    ("file", "old", "new", "level", "reason"),
    [
        ("gemm_avx2.c", "_mm256_set1_ps(8)", "_mm256_set1_ps(7)", Level.AVX2, "gemm_avx2_int4 computes wrongly"),
        ("attention_avx2.c", "query[d] * a->scale", "query[d]", Level.AVX2, "attention_avx2 computes wrongly"),
        ("attention_avx2.c", "s.prefix_start + position", "position", Level.AVX2, "attention_avx2 computes wrongly"),
        ("attention_avx2.c", "task / a->heads", "0", Level.AVX2, "attention_avx2 computes wrongly"),
        ("attention_avx2.c", "b->sums + first * D", "b->sums", Level.AVX2, "attention_avx2 computes wrongly"),
        ("attention_avx2.c", "task % a->heads", "0", Level.AVX2, "attention_avx2 computes wrongly"),
        ("avx2.h", "(r[n], r[n + 4], 0x31)", "(r[n], r[n + 4], 0x20)", Level.AVX2, "gemm_avx2_bf16 computes wrongly"),
        ("ggml.h", "first >> 2 &", "first >> 3 &", Level.AVX2, "gemm_avx2_q8_ggml:Q4_K computes wrongly"),
        ("q8.h", "return 32", "return 31", Level.AVX512_BF16, "gemm_avx512_q8_ggml:Q6_K computes wrongly"),
        (
            "ggml_avx512bf16.h",
            "floats(other_codes)",
            "floats(first_codes)",
            Level.AMX,
            "gemm_amx_ggml:Q5_K computes wrongly",
        ),
        (
            "gemv_avx512bf16.c",
            "_mm512_reduce_add_ps(sums[n][m])",
            "_mm512_reduce_add_ps(sums[n][0])",
            Level.AVX512_BF16,
            "gemv_avx512bf16_bf16 computes wrongly",
        ),
        (
            "tiles_avx512bf16.h",
            "case 5: multiply_rows(5",
            "case 5: multiply_rows(4",
            Level.AVX512_BF16,
            "gemm_avx512bf16_bf16 computes wrongly",
        ),
        (
            "tiles_amx.h",
            "_tile_dpbf16ps(2, 5, 6)",
            "_tile_dpbf16ps(2, 4, 6)",
            Level.AMX,
            "gemm_amx_bf16 computes wrongly",
        ),
        ("gemm_bf16.c", "BIAS 136.0f", "BIAS 135.0f", Level.AMX, "gemm_amx_int4 computes wrongly"),
        ("q8.h", "INT4_ZERO 8.0f", "INT4_ZERO 7.0f", Level.AVX512_BF16, "gemm_avx512_q8_int4 computes wrongly"),
        ("gemm_bf16.c", BEGIN, BEGIN + "\n  if (N) __builtin_trap();", Level.AMX, "ended by SIGILL"),
        ("gemm_bf16.c", BEGIN, BEGIN + "\n  *(volatile int *)8 = 1;", Level.AMX, "ended by SIGSEGV"),
        ("tiles_amx.h", "  _tile_loadconfig(shapes);", "", Level.AMX, "ended by SIGABRT"),
        (
            "gemm_bf16.c",
            BEGIN,
            "#ifdef USE_AMX\n#error no such mnemonic\n#endif\n" + BEGIN,
            Level.AMX,
            "no such mnemonic",
        ),
        (
            "gemm_avx2.c",
            "INLINE float horizontal_sum",
            "#error old compiler\nINLINE float horizontal_sum",
            Level.AVX2,
            "old compiler",
        ),
    ],
)
def test_a_level_with_a_fault_is_left_out(broken, file, old, new, level, reason):
    library = broken(file, old, new, level)
    assert (library.levels, library.left_out.keys()) == ({Level.PORTABLE}, {level})
    assert reason in library.left_out[level]


def test_the_levels_without_a_fault_are_used(broken, tmp_path, monkeypatch):
    """The kernels of two levels crash, and the verdict is recorded: nothing is compiled or checked again."""
    first = broken("gemm_bf16.c", BEGIN, BEGIN + "\n  if (N) __builtin_trap();")
    assert first.levels == {Level.PORTABLE, Level.AVX2, Level.AVX_VNNI}
    assert first.left_out == dict.fromkeys([Level.AVX512_BF16, Level.AMX], "its check ended by SIGILL")
    monkeypatch.setattr(build, "check_level", lambda *_: pytest.fail("checked again"))
    monkeypatch.setattr(build, "compile_units", lambda *_: pytest.fail("compiled again"))
    again = opened(tmp_path / "cache", tmp_path / "c")
    assert (again.levels, again.left_out) == (first.levels, first.left_out)


def test_a_kernel_that_hangs_is_left_out(broken, monkeypatch):
    monkeypatch.setattr(build, "CHECK_TIMEOUT_S", 5)
    library = broken(
        "tiles_amx.h", "  _tile_loadconfig(shapes);", "  for (volatile int n = 0;; n++) continue;", Level.AMX
    )
    assert library.left_out.keys() == {Level.AMX}
    assert "took over 5 s" in library.left_out[Level.AMX]


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("kill -USR1 $$", "by signal 10"),
        ("kill -KILL $$", "by signal 9"),
        ("kill -TERM $$", "by signal 15"),
        ("sleep 100", "took over 1 s"),
        ("echo no module >&2; exit 1", "no module"),
    ],
)
def test_trouble_of_a_check_that_may_pass_is_forgotten(whole, tmp_path, monkeypatch, trouble, reason):
    """A kernel that is right is not left out for ever because its check was killed."""
    monkeypatch.setattr(build, "_processor", lambda: tmp_path.name)
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{trouble}\n")
    program.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        patch.setattr(build, "CHECK_TIMEOUT_S", 1)
        library = opened(whole / "cache", whole / "c", Level.AVX2)
    assert library.levels == {Level.PORTABLE}
    assert reason in library.left_out[Level.AVX2]
    assert opened(whole / "cache", whole / "c", Level.AVX2).levels == {Level.PORTABLE, Level.AVX2}


def test_a_check_is_in_a_session_of_its_own(whole, tmp_path, monkeypatch):
    """Ctrl-C reaches every process of the terminal's group."""
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\necho session $(ps -o sid= -p $$)\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(build.NoVerdictError, match=r"session \d+") as caught:
        build.check_level(next((whole / "cache").glob("*.so")), Level.AVX2)
    assert not str(caught.value).endswith(f" {os.getsid(0)}")


def test_a_check_finds_the_program_where_python_found_it(whole, monkeypatch):
    """In the folder of a notebook or of `python -c`, which is '' in sys.path."""
    root = str(Path(build.__file__).parents[3])
    monkeypatch.chdir(root)
    monkeypatch.setattr(sys, "path", ["", *(path for path in sys.path if path and path != root)])
    seen = []
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda *a, env, **k: (seen.append(env["PYTHONPATH"]), run(*a, env=env, **k))[1]
    )
    assert build.check_level(next((whole / "cache").glob("*.so")), Level.AVX2) == ""
    assert seen[0].split(os.pathsep)[0] == root


def test_a_library_that_cannot_be_linked_leaves_torch_alone(broken):
    library = broken("pool.c", "void parallel_for(", "void parallel_loop(", Level.AVX2)
    assert library.levels == {Level.PORTABLE}
    assert library.left_out.keys() == {Level.AVX2}


def test_another_kind_of_processor_checks_for_itself(whole, monkeypatch):
    checked = []
    monkeypatch.setattr(build, "_processor", lambda: "another")
    monkeypatch.setattr(build, "check_level", lambda path, level: checked.append(level) or "")
    monkeypatch.setattr(build, "compile_units", lambda *_: pytest.fail("compiled again"))
    assert opened(whole / "cache", whole / "c", Level.AVX2).levels == {Level.PORTABLE, Level.AVX2}
    assert opened(whole / "cache", whole / "c").levels == ALL
    assert checked == [*Level][1:], "each level once"


@pytest.mark.parametrize("cap", Level)
def test_nothing_above_the_cap_is_used(whole, cap):
    library = opened(whole / "cache", whole / "c", cap)
    assert (library.levels, library.level) == ({level for level in Level if level <= cap}, cap)


@pytest.mark.parametrize("compiler", ["/no/such/compiler", "false", "'", "sh -c 'kill -9 $$'", "true"])
def test_a_compiler_that_fails_leaves_torch_alone(small, tmp_path, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    library = small(tmp_path / "cache")
    assert library.levels == {Level.PORTABLE}
    assert library.left_out[Level.AVX2]
    monkeypatch.delenv("CC")
    assert small(tmp_path / "cache").levels == SMALL
    monkeypatch.setenv("CC", compiler)
    assert small(tmp_path / "cache").levels == SMALL, "a library that is there needs none"


def test_another_compiler_is_given_a_try(small, tmp_path, monkeypatch):
    """One that knows no AMX, or has an assembler that does not; after it one that does."""
    compiler = tmp_path / "old cc"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *USE_AMX*) echo "no such mnemonic" >&2; exit 1 ;; esac\nexec cc "$@"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", f"env LC_ALL=C '{compiler}'")
    for _ in range(2):
        library = small(tmp_path / "cache")
        assert library.levels == SMALL - {Level.AMX}
        assert "no such mnemonic" in library.left_out[Level.AMX]
    monkeypatch.delenv("CC")
    assert small(tmp_path / "cache").levels == SMALL


REFUSES = 'case "$*" in *USE_AMX*) %s ;; esac'


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """`compiler(trouble)`: CC does that instead of compiling for AMX, or works without `trouble`."""
    path = tmp_path / "compiler"
    monkeypatch.setenv("CC", str(path))

    def write(trouble: str = "") -> None:
        path.write_text("\n".join(["#!/bin/sh", REFUSES % trouble if trouble else "", 'exec cc "$@"', ""]))
        path.chmod(0o755)

    return write


def test_a_compiler_that_was_mended_in_place_is_given_a_try(small, compiler, tmp_path, monkeypatch):
    compiler("echo no such mnemonic >&2; exit 1")
    assert small(tmp_path / "cache").levels == SMALL - {Level.AMX}
    with monkeypatch.context() as patch:
        patch.setattr(build, "compile_units", lambda *_: pytest.fail("compiled again"))
        assert small(tmp_path / "cache").levels == SMALL - {Level.AMX}
        patch.setattr(build, "c_compiler", lambda _: None)
        assert small(tmp_path / "cache").levels == SMALL - {Level.AMX}, "a library that is there needs none"
    compiler()
    assert small(tmp_path / "cache").levels == SMALL


@pytest.mark.parametrize(
    "trouble", ["kill -9 $$", "echo Killed signal terminated program cc1 >&2; exit 1", "exec sleep 100"]
)
def test_trouble_of_the_compiler_that_may_pass_is_forgotten(small, compiler, tmp_path, monkeypatch, trouble):
    """With the same compiler the next start compiles again."""
    flag = tmp_path / "trouble"
    flag.touch()
    compiler(f"if [ -e '{flag}' ]; then {trouble}; fi")
    with monkeypatch.context() as patch:
        patch.setattr(build, "COMPILE_TIMEOUT_S", 3)
        library = small(tmp_path / "cache")
    assert (library.levels, library.left_out.keys()) == (SMALL - {Level.AMX}, {Level.AMX})
    flag.unlink()
    assert small(tmp_path / "cache").levels == SMALL


def test_a_library_is_loaded_from_the_cache_folder(small, tmp_path):
    """From a temporary folder that is mounted noexec none can be."""
    assert Path(small(tmp_path / "cache").functions._name).parent == tmp_path / "cache"


def test_a_cache_folder_that_cannot_be_written_costs_a_compilation(small, tmp_path):
    (tmp_path / "file").write_text("in the way")
    library = small(tmp_path / "file")
    assert (library.levels, library.functions.answer()) == (SMALL, 42)
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "of everybody", "no record", "record", "another record"])
def test_a_library_that_is_damaged_or_that_others_may_write_is_rebuilt(small, tmp_path, damage):
    """It is never loaded: a library that is cut short ends a process with SIGBUS."""
    folder = tmp_path / "cache"
    assert small(folder).levels == SMALL
    (library,) = folder.glob("kernels-*.so")
    data, record = library.read_bytes(), library.with_suffix(".json")
    changed = {"empty": b"", "cut": data[: len(data) // 2], "changed": data[:-9] + b"unchanged"}.get(damage, data)
    library.unlink()  # not written in place: this process has it mapped
    library.write_bytes(changed)
    library.chmod(0o666 if damage == "of everybody" else 0o600)
    if damage == "no record":
        record.unlink()
    elif "record" in damage:
        record.write_text({"record": '{"digest"', "another record": '["digest"]'}[damage])
    again = small(folder)
    assert (again.levels, again.functions.answer()) == (SMALL, 42)
    assert (library.stat().st_mode & 0o777, library.read_bytes()[:4]) == (0o600, b"\x7fELF")
    assert json.loads(record.read_text())["digest"] == hashlib.sha256(library.read_bytes()).hexdigest()
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json", ".so"], "nothing is left over"


def test_the_check_needs_no_torch():
    """Importing torch takes a second, and the check is run at the first start."""
    code = "import sys, rotary_batch.engine.kernels.check, rotary_batch.engine.kernels.build; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_without_kernels_torch_does_the_work_and_the_log_says_why(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(cpu, "event", lambda name, **fields: events.append((name, fields)))
    monkeypatch.setenv("CC", "/no/such/compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels = cpu.load.__wrapped__(Level.AMX)
    assert kernels.levels == {Level.PORTABLE}
    [(name, fields)] = events
    assert (name, fields["level"]) == ("kernels left out", "avx2")
    assert "/no/such/compiler" in fields["reason"]
    matrix, x = matrix_from(quantise(torch.randn(64, 128), "int4"), 64, "int4"), torch.randn(3, 128)
    expected = x @ dequantise(matrix, torch.empty(64, 128)).T
    product = FastMatmul(torch.device("cpu"), kernels).linear(x, matrix)
    assert (product - expected).abs().max() <= 0.02 * expected.abs().max()
    assert not kernels.supports_head_dim(64)
    with pytest.raises(ValueError, match="no attention at level portable"):
        kernels.attend(*[torch.zeros(1, 1, 32)] * 5, 1)


def test_a_child_that_the_environment_does_not_let_start_is_a_reason(whole, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    path = next((whole / "cache").glob("*.so"))
    with pytest.raises(build.NoVerdictError, match="could not be started"):
        build.check_level(path, Level.AVX2)
    for program in ("/bin/false", "/bin/true"):
        monkeypatch.setattr(sys, "executable", program)
        with pytest.raises(build.NoVerdictError, match="its check failed"):
            build.check_level(path, Level.AVX2)


@pytest.mark.parametrize(
    ("old", "new", "report"),
    [
        (", out + m * N + n);", ", out + m * N + n + 1);", "heap-buffer-overflow"),
        ("store_rounded(_mm512", "store_rounded((float)(int)(0x7fffffff + rows) + _mm512", "signed integer overflow"),
    ],
)
def test_the_sanitizers_find_what_is_planted(tmp_path, monkeypatch, capfd, old, new, report):
    """`make sanitize` is worth something: the same way of building and calling ends with a report."""
    compiler = c_compiler(os.environ)
    if sanitize.runtime(compiler) is None:
        pytest.skip(f"{compiler} is no gcc with a libasan.so")
    monkeypatch.setattr(build, "FLAGS", ("-pthread", "-fPIC", *sanitize.SANITIZERS))
    sources, path = emulating_sources(tmp_path / "c"), tmp_path / "planted.so"
    text = (sources / "gemv_avx512bf16.c").read_text()
    assert old in text
    (sources / "gemv_avx512bf16.c").write_text(text.replace(old, new))
    units = [unit._replace(files=["gemv_avx512bf16.c"]) if unit.level else unit for unit in only(Level.AVX512_BF16)]
    assert build.compile_units(compiler, units, sources, path) == {}
    assert sanitize.run(compiler, path, [Level.AVX512_BF16]) != 0
    assert report in capfd.readouterr().err


def test_whether_the_compiler_would_be_called_is_known_before(whole, quick, tmp_path, monkeypatch):
    def asked(folder: Path, cap: Level = Level.AMX) -> bool:
        return build.must_compile(folder, cap, EMULATED_UNITS, whole / "c")

    assert (asked(whole / "cache"), asked(tmp_path), asked(tmp_path, Level.PORTABLE)) == (False, True, False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not asked(tmp_path), "there is no compiler to call"
