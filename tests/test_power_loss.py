"""Whenever the power is cut, and whatever of the writes that were not synced is lost: no answer that was committed is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rotary_batch.commands.default_model import EMBEDDED

DRIVER = Path(__file__).parent / "faults" / "power.py"
SCENARIOS = ("claim", "commit", "migrate", "pages", "night")
QUICK = {"night": 20, "migrate": 12}  # cases


def power_cuts(shim: Path, scenario: str, journal: str, num_cases: int) -> dict:
    memory = Path("/dev/shm")  # what is synced is told by the calls; none of them needs a real disk
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        environment = os.environ | {"LD_PRELOAD": str(shim), "ROTARY_BATCH_MODEL": str(EMBEDDED)}
        command = [sys.executable, str(DRIVER), str(Path(folder).resolve()), scenario, journal, str(num_cases)]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    answer = json.loads(done.stdout)
    assert answer["wrong"] == []
    return answer


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_few_power_cuts_lose_nothing(scenario, journal, shim):
    answer = power_cuts(shim, scenario, journal, QUICK.get(scenario, 8))
    assert answer["cases"] == QUICK.get(scenario, 8)


@pytest.mark.faults
@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_power_cut_loses_anything(scenario, journal, shim):
    answer = power_cuts(shim, scenario, journal, 0)
    assert answer["cases"] == answer["of"]
    assert answer["cuts"] >= 4
