"""Whichever call of the operating system fails, is cut short or is the last: nothing is lost, and nothing is half done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "faults"
SCENARIOS = ("claim", "commit", "migrate", "pages")
FAULTS = ("eio", "enospc", "eintr", "short", "kill", "full")
# Of the quick test: each meets other calls, and about ten of them.
STRIDES = {"claim": 7, "commit": 13, "migrate": 97, "pages": 5}


def swept(shim: Path, scenario: str, journal: str, stride: int, first: dict[str, int]) -> list[int]:
    """Break the calls and check what is left; returns how many each fault broke.  None of them needs a real disk."""
    memory = Path("/dev/shm")  # syncs of a disk would take nearly all the time
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, str(FOLDER / "sweep.py"), folder, scenario, journal, str(stride)]
        command += [f"{fault}:{at}" for fault, at in first.items()]
        done = subprocess.run(
            command, env=os.environ | {"LD_PRELOAD": str(shim)}, check=True, stdout=subprocess.PIPE, text=True
        )
    answers = json.loads(done.stdout)
    assert [answer["wrong"] for answer in answers] == [[]] * len(first)
    assert all(answer["clean"] for answer in answers)
    return [answer["cases"] for answer in answers]


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_few_broken_calls_lose_nothing(scenario, journal, shim):
    """Each fault is met at other calls, and each journal at those between."""
    stride = STRIDES[scenario]
    faults = FAULTS[journal == "wal" :: 2] if scenario == "pages" else FAULTS
    first = {fault: 1 + (number * 5 + 3 * (journal == "wal")) % stride for number, fault in enumerate(faults)}
    assert all(swept(shim, scenario, journal, stride, first))


@pytest.mark.faults
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_broken_call_loses_nothing(scenario, journal, fault, shim):
    assert swept(shim, scenario, journal, 1, {fault: 1})[0] >= 12
