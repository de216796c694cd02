"""How much memory there is: what the machine has, what control groups allow, what nobody uses."""

from __future__ import annotations

import pytest

from rotary_batch.model.host import allowed_nbytes, free_nbytes, physical_nbytes

GIB = 2**30
AVAILABLE = 3 * GIB
V1, V2 = "4:memory:/user/night\n3:cpu:/other\n", "0::/user/night\n"


@pytest.fixture
def system(tmp_path):
    """A /proc and a /sys/fs/cgroup of our own."""

    def build(cgroup: str, files: dict[str, object]):
        proc, groups = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "meminfo").write_text(f"MemTotal: 999999999 kB\nMemAvailable: {AVAILABLE // 1024} kB\n")
        (proc / "self" / "cgroup").write_text(cgroup)
        for name, text in files.items():
            (groups / name).parent.mkdir(parents=True, exist_ok=True)
            (groups / name).write_text(f"{text}\n")
        return proc, groups

    return build


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (V2, {}, None),
        (V2, {"user/night/memory.max": GIB}, GIB),
        (V2, {"user/night/memory.max": "max", "user/memory.max": 2 * GIB}, 2 * GIB),
        (V2, {"user/night/memory.max": 2 * GIB, "memory.max": GIB}, GIB),
        (V2, {"user/night/memory.max": 2 * GIB, "user/night/memory.high": GIB}, GIB),
        (V2, {"elsewhere/memory.max": GIB}, None),
        (V1, {"memory/user/night/memory.limit_in_bytes": GIB, "memory/memory.limit_in_bytes": 2**63 - 4096}, GIB),
        (V1, {"memory/user/memory.limit_in_bytes": GIB}, GIB),
        (V1, {"cpu/other/memory.limit_in_bytes": GIB}, None),
    ],
)
def test_the_tightest_limit_of_the_groups_around_this_process_counts(system, cgroup, files, expected):
    places = system(cgroup, files)
    assert allowed_nbytes(*places) == (expected or physical_nbytes())
    assert free_nbytes(*places) == min(expected or AVAILABLE, AVAILABLE)


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (V2, {"user/memory.max": 3 * GIB, "user/memory.current": 2 * GIB}, GIB),
        (
            V2,
            {
                "user/memory.max": 3 * GIB,
                "user/memory.current": 2 * GIB,
                "user/memory.stat": f"anon 7\ninactive_file {GIB}\nactive_file 9",
            },
            2 * GIB,
        ),
        (V2, {"user/memory.max": GIB, "user/memory.current": 2 * GIB}, 0),
        (
            V1,
            {
                "memory/user/memory.limit_in_bytes": 3 * GIB,
                "memory/user/memory.usage_in_bytes": 2 * GIB,
                "memory/user/memory.stat": f"inactive_file 5\ntotal_inactive_file {GIB}",
            },
            2 * GIB,
        ),
    ],
)
def test_what_others_of_a_group_use_is_not_free_but_their_page_cache_is(system, cgroup, files, expected):
    places = system(cgroup, files)
    assert free_nbytes(*places) == expected
    assert allowed_nbytes(*places) > expected


def test_without_proc_there_is_what_the_machine_has(tmp_path):
    assert allowed_nbytes(tmp_path, tmp_path) == free_nbytes(tmp_path, tmp_path) == physical_nbytes()


def test_here_something_is_free():
    assert 0 < free_nbytes() <= allowed_nbytes() <= physical_nbytes()
