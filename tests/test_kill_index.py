"""An `index` that gets real SIGKILLs at chance statements leaves, once finished, what an undisturbed one leaves."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "faults" / "index_driver.py"


class Place:
    """One database and one copy of the repository."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.repo, self.db = folder / source.name, folder / "work.db"
        shutil.copytree(source, self.repo)
        self.environment = os.environ | {"ROTARY_BATCH_DB": str(self.db), "OMP_NUM_THREADS": "1"}

    def index(self, kills_at: list[int]) -> dict:
        """Run `index` in processes that die at these statements, then to its end."""
        command = [sys.executable, str(DRIVER), json.dumps(kills_at), str(self.repo)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def contents(self) -> dict[str, list[tuple]]:
        db = sqlite3.connect(self.db)
        queries = {
            "item": """select unit, subject, path, position, state, key, priority, prompt_tokens, error,
                         (select unit || ' ' || subject from item as p where p.id = item.parent_id),
                         (select token_ids from prompt where item_id = item.id) from item order by unit, subject""",
            "file": "select path, blob, class, plan_key, rolled_up from file order by path",
            "symbol": "select path, qualified_name, start_byte from symbol order by path, start_byte",
            "chunk": "select path, start_byte, end_byte, blob from chunk order by path, start_byte",
            "repository": "select plan_key, worktree, docs_dir, job from repository",
        }
        contents = {table: db.execute(query).fetchall() for table, query in queries.items()}
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        db.close()
        return contents

    def tree(self) -> dict[str, bytes]:
        docs = self.repo / "rotary-docs"
        return {str(path.relative_to(docs)): path.read_bytes() for path in sorted(docs.rglob("*")) if path.is_file()}


def write_version(root: Path, version: int) -> None:
    """Every version has a changed, a new and a gone file."""
    for n in range(12):
        folder = root / f"part{n % 3}"
        folder.mkdir(exist_ok=True)
        (folder / f"m{n}.py").write_text(f'"""Module {n}."""\n\n\ndef f{n}(x):\n    return f{(n + 1) % 12}(x + {n})\n')
    (root / f"part{version % 3}" / f"m{version % 12}.py").write_text(
        f"def changed{version}():\n    return f1({version})\n"
    )
    (root / f"new{version}.py").write_text(f"def fresh{version}():\n    return f2(1)\n")
    (root / f"new{version - 1}.py").unlink(missing_ok=True)


def kill_and_compare(tmp_path, git, num_kills: int, kills_a_version: int) -> Counter[str]:
    source = tmp_path / "project"
    source.mkdir()
    git(source, "init", "-q", "-b", "main")
    places = {}
    for name in ("calm", "storm"):
        (tmp_path / name).mkdir()
        places[name] = Place(tmp_path / name, source)
    chance, killed, version = random.Random(17), Counter(), 0
    while killed.total() < num_kills:
        version += 1
        for place in places.values():
            write_version(place.repo, version)
            git(place.repo, "add", "-A", ":!rotary-docs")
            git(place.repo, "commit", "-q", "-m", f"version {version}")
        calm = places["calm"].index([])
        kills_at = [chance.randint(1, calm["statements"]) for _ in range(kills_a_version)]
        storm = places["storm"].index(kills_at)
        killed.update(journal for _, journal in storm["killed"])
        assert {number for number, _ in storm["killed"]} <= {signal.SIGKILL}
        assert calm["exit"] == storm["exit"] == 0
        assert places["storm"].contents() == places["calm"].contents(), kills_at
        assert places["storm"].tree() == places["calm"].tree()
    return killed


def test_six_kills_of_an_index_lose_nothing(tmp_path, git):
    assert set(kill_and_compare(tmp_path, git, num_kills=6, kills_a_version=4)) == {"delete", "wal"}


@pytest.mark.faults
def test_six_hundred_kills_of_an_index_lose_nothing(tmp_path, git, record_property):
    killed = kill_and_compare(tmp_path, git, num_kills=600, kills_a_version=20)
    record_property("SIGKILLs", dict(killed))
    assert min(killed["delete"], killed["wal"]) >= 200
