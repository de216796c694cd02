"""How much memory may be taken: the least of what the machine has, has to spare, and control groups allow."""

from __future__ import annotations

import pytest

from rotary_batch.model.host import physical_nbytes, usable_nbytes

GIB = 2**30
AVAILABLE = 3 * GIB


@pytest.fixture
def system(tmp_path):
    """A /proc and a /sys/fs/cgroup of our own."""

    def build(cgroup: str, limits: dict[str, str]):
        proc, groups = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "meminfo").write_text(f"MemTotal: 999999999 kB\nMemAvailable: {AVAILABLE // 1024} kB\n")
        (proc / "self" / "cgroup").write_text(cgroup)
        for name, text in limits.items():
            (groups / name).parent.mkdir(parents=True, exist_ok=True)
            (groups / name).write_text(text + "\n")
        return usable_nbytes(proc, groups)

    return build


V1, V2 = "4:memory:/user/night\n3:cpu:/other\n", "0::/user/night\n"


@pytest.mark.parametrize(
    ("cgroup", "limits", "expected"),
    [
        (V2, {}, AVAILABLE),
        (V2, {"user/night/memory.max": str(GIB)}, GIB),
        (V2, {"user/night/memory.max": "max", "user/memory.max": str(2 * GIB)}, 2 * GIB),
        (V2, {"user/night/memory.max": str(2 * GIB), "memory.max": str(GIB)}, GIB),
        (V2, {"elsewhere/memory.max": str(GIB)}, AVAILABLE),
        (V2, {"user/night/memory.max": str(9 * GIB)}, AVAILABLE),
        (V1, {"memory/user/night/memory.limit_in_bytes": str(GIB), "memory/memory.limit_in_bytes": str(2**63 - 4096)}, GIB),
        (V1, {"memory/user/memory.limit_in_bytes": str(GIB)}, GIB),
        (V1, {"cpu/other/memory.limit_in_bytes": str(GIB)}, AVAILABLE),
        ("garbage::\n" + V1, {"memory/memory.limit_in_bytes": str(GIB)}, GIB),
    ],
)  # fmt: skip
def test_the_tightest_limit_of_the_groups_around_this_process_counts(system, cgroup, limits, expected):
    assert system(cgroup, limits) == min(expected, physical_nbytes())


def test_without_proc_there_is_what_the_machine_has(tmp_path):
    assert usable_nbytes(tmp_path / "none", tmp_path / "none") == physical_nbytes()


def test_here_something_may_be_taken():
    assert 0 < usable_nbytes() <= physical_nbytes()
