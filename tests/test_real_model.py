"""A whole run with the default model: packed from SmolLM2's GGUF file with our adapter, killed, continued; what the other
commands say of it.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path

import pytest

from rotary_batch.commands import default_model
from tests.model.gguf_keys import smollm2_path
from tests.test_cli import answer
from tests.test_kill import JOB

PACKAGE, FILE = "click", "click/globals.py"
NAME = "SmolLM2-135M-Instruct+rotary"


def rows(database: Path, query: str) -> list[tuple[str]]:
    """The rows of the database of a run; none before it is made."""
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30) as connection:
            return connection.execute(query).fetchall()
    except sqlite3.OperationalError:
        return []


@pytest.fixture
def killed(make_repository, tmp_path, monkeypatch) -> tuple[Path, list[object]]:
    """A real file under git, and the arguments of a run that was killed when the model had begun to answer."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "summarize.toml").write_text(
        JOB.replace("new_tokens = 12", "new_tokens = 48")
    )  # whole sentences
    database, model = tmp_path / "work.db", smollm2_path()
    monkeypatch.setattr(default_model, "_base", lambda: model)
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.setenv("ROTARY_BATCH_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("ROTARY_BATCH_DB", str(database))
    root = make_repository({FILE: Path(str(distribution(PACKAGE).locate_file(FILE))).read_bytes()})
    arguments = ["run", root, "--numerics", "fast", "--for", "30m"]
    command = [sys.executable, "-m", "rotary_batch.cli", *map(str, arguments)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while run.poll() is None and not rows(database, "select 1 from partial"):
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it answered nothing"
    return root, arguments


def test_a_real_file_is_documented_by_a_real_model(killed, tmp_path):
    root, arguments = killed
    (plan,) = answer("plan", root)["models"]
    assert (plan["model"], plan["experts"]) == (NAME, "int8")
    (report,) = answer(*arguments)
    assert (report["outcome"], report["open"], report["parked"]) == ("done", 0, 0)
    texts = [text for (text,) in rows(tmp_path / "work.db", "select text from result where text != ''")]
    pages = "".join(page.read_text() for page in (root / "rotary-docs").rglob("*.md"))
    assert any(" ".join(text.split())[:20] in " ".join(pages.split()) for text in texts), (texts, pages)
    assert answer("check", root)["stale"] == []
    assert answer("status")["repositories"][0]["model"] == NAME
    (again,) = answer(*arguments)
    assert (again["done"], again["pages_written"]) == (0, 0)
