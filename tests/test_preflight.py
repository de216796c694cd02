"""What cannot work is said before anything is read or claimed: device, memory, pack and disk."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rotary_batch.commands import preflight
from rotary_batch.errors import StorageError

FILES = {"a.py": "def a(rows):\n    row = rows.pop()\n    return row + 1\n"}


def rotary(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=200)


def states(root: Path) -> dict[str, dict[str, int]]:
    (repository,) = json.loads(rotary("status", root, "--json").stdout)["repositories"]
    return repository["items"]


def refused(root: Path, *options: object, code: int = 69) -> str:
    """The one line of a `run` that reads nothing and writes no page."""
    done = rotary("run", root, *options)
    errors = [line for line in done.stderr.splitlines() if line.startswith("rotary-batch: ")]
    assert (done.returncode, len(errors)) == (code, 1), done.stderr
    assert not (root / "rotary-docs").exists()
    assert json.loads(rotary("status", "--json").stdout)["repositories"] == []
    return errors[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(make_repository):
    root = make_repository(FILES)
    assert "--device cuda: torch" in (line := refused(root, "--device", "cuda"))
    assert "finds no CUDA device; use --device cpu" in line


def test_memory_that_is_too_little_names_the_size_that_is_enough(make_repository):
    root = make_repository(FILES)
    line = refused(root, "--device-memory", "1MB")
    found = re.search(
        r"needs [\d.]+ MB of device memory .* but only 1\.0 MB is allowed; try --device-memory (\d+MB)$", line
    )
    assert found, line
    assert rotary("run", root, "--limit", 1, "--device-memory", found[1]).returncode == 75
    assert re.search(
        r"--device-memory: cpu has .* GB, you gave 9,000.0 GB; give less",
        rotary("run", root, "--device-memory", "9TB").stderr,
    )


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 2)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("experts.safetensors", truncated),
        ("experts.safetensors", Path.unlink),
        ("dense.safetensors", truncated),
        ("dense.safetensors", Path.unlink),
        ("tokenizer.json", Path.unlink),
        ("manifest.json", truncated),
    ],
)
def test_a_pack_that_is_not_whole(name, damage, make_repository, tiny_pack, tmp_path):
    pack = Path(shutil.copytree(tiny_pack, tmp_path / "pack"))
    damage(pack / name)
    line = refused(make_repository(FILES), "--model", pack, code=3)
    assert str(pack / name) in line


def test_drain_claims_nothing_that_it_cannot_answer(make_repository, tiny_checkpoint, tmp_path):
    root, pack = make_repository(FILES), tmp_path / "pack"
    assert rotary("model", "pack", tiny_checkpoint, pack).returncode == 0
    rotary("index", root, "--model", pack)
    before = states(root)
    assert "try --device-memory" in rotary("drain", root, "--device-memory", "100KB").stderr
    truncated(pack / "experts.safetensors")
    assert "pack the model again" in rotary("drain", root).stderr
    assert states(root) == before


def test_a_repository_that_cannot_run_leaves_the_others_alone(make_repository, tiny_pack, tmp_path):
    good, bad = make_repository(FILES), make_repository({"b.py": "x = 1\n"}, name="bad")
    pack = Path(shutil.copytree(tiny_pack, tmp_path / "pack"))
    rotary("index", bad, "--model", pack)
    before = states(bad)
    truncated(pack / "experts.safetensors")
    done = rotary("run", good, bad)
    assert (done.returncode, f"{bad}: {pack}/experts.safetensors" in done.stderr) == (3, True), done.stderr
    assert states(good)["repository"] == {"done": 1}
    assert states(bad) == before


def test_a_disk_without_room_or_rights(tmp_path, monkeypatch):
    preflight.require_disk(tmp_path / "not" / "there", "--out")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(StorageError, match=r": 1.0 MB are free; free at least 50.0 MB, or use another disk: --db"):
        preflight.require_disk(tmp_path, "--db")
    monkeypatch.setattr(preflight.os, "access", lambda *_: False)
    with pytest.raises(StorageError, match=r"may not be written; .* --out"):
        preflight.require_disk(tmp_path / "not", "--out")


def test_the_check_needs_no_torch(make_repository, tiny_checkpoint):
    root = make_repository(FILES)
    script = """
import sys
from pathlib import Path
from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.database import writing
from rotary_batch.commands.preflight import ready_to_run
from rotary_batch.config import Settings

root, checkpoint = map(Path, sys.argv[1:])
for model in (None, checkpoint):  # the embedded pack, and a checkpoint that is not packed yet
    settings, outcomes = Settings(model=model), []
    with writing(settings) as store:
        ready = ready_to_run(store, [root], lambda root: RepositorySettings(root, settings), root / "db", outcomes)
        assert ready == [root], outcomes
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-c", script, str(root), str(tiny_checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.safetensors"))
