"""`doctor`: one line for each thing, what to do about what is missing, and an exit code that says whether it can run."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rotary_batch.commands import cards, doctor
from rotary_batch.commands.cards import find_cards


def rotary(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "300"} | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=200)


def checks(*arguments: object, code: int = 0, **options: Any) -> dict[str, dict[str, Any]]:
    done = rotary("doctor", "--json", *arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return {row["what"]: row for row in json.loads(done.stdout)}


def test_a_fresh_machine_can_run_and_is_told_what_could_be_better(make_repository):
    root, home = make_repository({"a.py": "x = 1\n"}), Path(os.environ["HOME"])
    rows = checks(cwd=root)
    assert [what for what, row in rows.items() if not row["ok"]] == ["rates"]
    assert "bench --machine --device cpu" in rows["rates"]["advice"]
    assert rows["settings"]["fact"] == f"no file; looked for {home}/config/rotary-batch/rotary.toml"
    assert rows["database"]["fact"].endswith(f"{home}/state/rotary-batch/work.db")
    assert rows["disk (docs)"]["fact"].endswith(f"free at {root}/rotary-docs")
    assert rows["model"]["fact"].startswith("rotary-demo, int8 experts of ")
    assert len(rows["grammars"]["details"]) == 27
    shown = rotary("doctor", cwd=root)
    assert shown.stdout.endswith("\nrotary-batch can run. 1 thing could be better, see `note`.\n")
    assert "27 languages, all grammars load" in shown.stdout
    assert "tree-sitter-rust" not in shown.stdout
    assert "tree-sitter-rust" in rotary("doctor", "--verbose", cwd=root).stdout
    assert not (home / "state").exists()


@pytest.mark.parametrize("columns", [60, 110])
def test_it_fits_the_width_of_the_terminal(columns, tmp_path):
    lines = rotary("doctor", cwd=tmp_path, COLUMNS=str(columns)).stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert all(line.startswith(("ok ", "note ", "  ")) for line in lines[:-2])


def test_settings_model_and_database_in_use(make_repository, tiny_checkpoint, tiny_pack, tmp_path):
    root = make_repository({"a.py": "x = 1\n"})
    assert rotary("index", root).returncode == 0
    file = tmp_path / "rotary.toml"
    file.write_text(f'model = "{tiny_pack}"\n')
    rows = checks(cwd=tmp_path)
    assert rows["settings"]["fact"] == str(file)
    assert rows["model"]["fact"].endswith(f"({tiny_pack})")
    assert rows["database"]["fact"].endswith("it opens")
    assert "packed at its first use" in checks("--model", tiny_checkpoint)["model"]["fact"]
    path = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    db = sqlite3.connect(path)
    db.execute("pragma user_version = 3")
    db.close()
    rows = checks()
    assert (rows["database"]["ok"], rows["database"]["advice"]) == (False, "the next `rotary-batch index` updates it")


def test_what_is_essential_and_missing(tiny_pack, tmp_path):
    pack = Path(shutil.copytree(tiny_pack, tmp_path / "pack"))
    (pack / "dense.safetensors").unlink()
    rows = checks("--model", pack, code=69)
    assert (rows["model"]["ok"], rows["model"]["essential"]) == (False, True)
    done = rotary("doctor", "--model", "org/name")
    assert (done.returncode, "hf download org/name" in done.stdout) == (69, True)
    assert done.stdout.endswith("\nrotary-batch cannot run here: model.\n")
    (tmp_path / "rotary.toml").write_text('device_memory = "1MB"\n')
    rows = checks(cwd=tmp_path, code=69)
    assert "try --device-memory" in rows["memory"]["advice"]
    rows = checks(cwd=tmp_path, CC="no-such-compiler 'quote", code=69)
    assert (rows["processor"]["ok"], rows["processor"]["essential"]) == (False, False)


@pytest.fixture
def device_folder(tmp_path, monkeypatch):
    """A system with a card, and a torch for cards."""
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(cards, "_torch_version", lambda: "2.13.0")
    return tmp_path


def says(text: str) -> list[str]:
    return [sys.executable, "-c", f"print({text!r})"]


def test_cards_are_described(device_folder, tmp_path):
    found = find_cards(device_folder, says('[["NVIDIA H100", 70000000000, 80000000000]]'))
    assert found.fact == "cuda:0 NVIDIA H100, 70.0 GB of 80.0 GB free"
    assert found.advice == ""
    (tmp_path / "none").mkdir()
    assert find_cards(tmp_path / "none").fact == "none is visible to the system"


@pytest.mark.parametrize("answer", ["[]", "", "{", '[["x"]]', "[1]", "null"])
def test_a_card_that_cannot_be_used_comes_with_advice(answer, device_folder):
    found = find_cards(device_folder, says(answer))
    assert found.found == ()
    assert found.advice


def test_a_driver_that_hangs_or_crashes_ends_its_question_only(device_folder, monkeypatch):
    monkeypatch.setattr(cards, "TIMEOUT_S", 0.5)
    start = time.monotonic()
    hangs = find_cards(device_folder, [sys.executable, "-c", "import time; time.sleep(600)"])
    assert time.monotonic() - start < 30
    assert "no answer" in hangs.fact
    crashes = find_cards(device_folder, [sys.executable, "-c", "import os; os.abort()"])
    assert crashes.fact == "torch fails when asked for it"


def test_a_torch_for_cpus_beside_a_card(device_folder, monkeypatch):
    monkeypatch.setattr(cards, "_torch_version", lambda: "2.13.0+cpu")
    assert "for CPUs only" in find_cards(device_folder).fact


def test_grammars_that_are_missing_are_named(monkeypatch):
    def grammar(name: str) -> object:
        if name in {"rust", "go"}:
            raise ImportError(f"no {name}")
        return real(name)

    real = doctor.grammar
    monkeypatch.setattr(doctor, "grammar", grammar)
    check = doctor._grammars()
    assert (check.ok, check.essential) == (False, False)
    assert check.fact == "2 of 27 do not load: go, rust"
