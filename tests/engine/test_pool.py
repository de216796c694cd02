"""The thread pool of the compiled kernels, and torch's own threads."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from rotary_batch.config import c_compiler
from rotary_batch.engine import kernels
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.threads import SMALL_NUMEL, num_threads, threads_for

FOLDER = Path(kernels.__file__).with_name("c")
STRESS = Path(__file__).with_name("pool_stress.c")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def built(folder: Path, *flags: str) -> Path:
    compiler = c_compiler(os.environ)
    if compiler is None:
        pytest.skip("needs a C compiler")
    program = folder / "stress"
    command = [
        *shlex.split(compiler),
        "-O2",
        "-g",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-Werror",
        *flags,
        f"-I{FOLDER}",
        str(STRESS),
        str(FOLDER / "pool.c"),
        "-o",
        str(program),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if flags and done.returncode:
        pytest.skip(f"needs a compiler with {flags[0]}: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return program


@pytest.mark.parametrize("sanitizer", ["", "thread", "address,undefined"])
def test_every_task_runs_once_whoever_calls_from_wherever(tmp_path, sanitizer):
    """Any number of threads and tasks, loops within tasks, several callers, sleeping workers, forks; see the program."""
    program = built(tmp_path, *([f"-fsanitize={sanitizer}"] if sanitizer else []))
    environment = os.environ | {"TSAN_OPTIONS": "die_after_fork=0"}  # children of threads start threads here
    done = subprocess.run([program, "500"], env=environment, capture_output=True, text=True, timeout=250)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("needs a kernel whose addresses are less random than ThreadSanitizer of this compiler bears")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr


def test_kernels_bring_no_other_threads():
    """Two pools, this one and OpenMP's, would spin while they wait for each other."""
    assert [path.name for path in FOLDER.iterdir() if "#pragma omp" in path.read_text()] == []


def test_torch_takes_one_thread_for_few_numbers_and_restores_the_number():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_for(SMALL_NUMEL - 1):
            assert (torch.get_num_threads(), num_threads()) == (1, 3)
            with threads_for(SMALL_NUMEL):
                assert (torch.get_num_threads(), num_threads()) == (3, 3)
            assert (torch.get_num_threads(), num_threads()) == (1, 3)
            with pytest.raises(ValueError, match="within"), threads_for(1):
                raise ValueError("within")
        assert (torch.get_num_threads(), num_threads()) == (3, 3)
        with Numerics("exact", torch.device("cpu")).threads_for(1):
            assert torch.get_num_threads() == 3, "sums of exact numerics do not depend on the number of rows"
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)
    assert num_threads() == before


def in_a_thread(function):
    results = []
    other = threading.Thread(target=lambda: results.append(function()))
    other.start()
    other.join()
    return results[0]


@pytest.mark.usefixtures("three_threads")
def test_a_thread_that_begins_while_another_computes_little_has_all_threads():
    """Torch tells it 1: what any thread was told last."""

    def counts():
        seen = [num_threads()]
        with threads_for(SMALL_NUMEL):
            seen.append(torch.get_num_threads())
        return [*seen, torch.get_num_threads(), num_threads()]

    with threads_for(1):
        assert in_a_thread(torch.get_num_threads) == 1
        assert in_a_thread(counts) == [3, 3, 3, 3]
    assert (torch.get_num_threads(), num_threads(), in_a_thread(counts)) == (3, 3, [3, 3, 3, 3])


@pytest.mark.usefixtures("three_threads")
def test_what_a_user_tells_torch_later_counts():
    for count in (3, 1, 2):
        torch.set_num_threads(count)
        assert (num_threads(), in_a_thread(num_threads)) == (count, count)
        with threads_for(1):
            assert num_threads() == count
        assert torch.get_num_threads() == count


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "passive 5000"),
        ({"OMP_WAIT_POLICY": "active"}, "active None"),
        ({"GOMP_SPINCOUNT": "7"}, "None 7"),
    ],
)
def test_torch_waits_asleep_unless_the_user_wants_otherwise(given, expected):
    """libgomp reads this when torch is loaded, so the engine says it before."""
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | given
    program = "import sys, os, rotary_batch.engine; assert 'torch' not in sys.modules; print(*map(os.environ.get, %r))"
    done = subprocess.run(
        [sys.executable, "-c", program % (WAITING[:2],)], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == expected, done.stderr


def in_a_fresh_python(program):
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_program_that_has_torch_already_keeps_its_environment():
    """It would say nothing to its own OpenMP any more, and be handed on to all its children."""
    program = (
        "import os, torch; before = dict(os.environ); import rotary_batch.engine; print(before == dict(os.environ))"
    )
    assert in_a_fresh_python(program) == "True"


def test_a_program_that_has_torch_already_needs_no_room_to_load_it():
    program = """
import torch, resource
from rotary_batch.model.host import address_space_left_nbytes
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 10**8, -1))
assert address_space_left_nbytes() < 5 * 10**8
import rotary_batch.engine
print("loaded")
"""
    assert in_a_fresh_python(program) == "loaded"
