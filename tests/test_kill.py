"""A drain that is killed again and again leaves what an undisturbed one leaves, byte for byte."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from array import array
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.model.manifest import Manifest

STAGES = ("prefill", "decode", "commit", "pages")
JOURNALS = ("delete", "wal")  # in turn, so that each also finds what a kill left in the other
DRIVER = Path(__file__).parent / "faults" / "driver.py"
JOB = """
[job]
name = "summarize"
[chunk]
prompt = "chunk"
chunk_tokens = 220
new_tokens = 12
[file]
prompt = "file"
part = "part"
prompt_tokens = 700
new_tokens = 10
[directory]
prompt = "directory"
part = "part"
prompt_tokens = 700
new_tokens = 10
[repository]
prompt = "repository"
part = "part"
prompt_tokens = 700
new_tokens = 10
"""


SYMBOLS = """
[symbol]
new_tokens = 12
"""


class Night:
    """One database and one copy of the repository."""

    def __init__(self, folder: Path, source: Path, pack: Path, job: str = JOB) -> None:
        self.repo, self.log, self.db = folder / source.name, folder / "log.jsonl", folder / "work.db"
        shutil.copytree(source, self.repo)
        (folder / "jobs").mkdir()
        (folder / "jobs" / "summarize.toml").write_text(job)
        self.environment = os.environ | {
            "ROTARY_BATCH_DB": str(self.db),
            "ROTARY_BATCH_MODEL": str(pack),
            "ROTARY_BATCH_JOBS": str(folder / "jobs"),
            "ROTARY_BATCH_MAX_BATCH": "4",
            "OMP_NUM_THREADS": "1",
        }
        self.log.touch()

    def drive(self, stage: str, count: int, command: str, journal: str = "delete") -> int:
        arguments = [sys.executable, str(DRIVER), str(self.log), stage, str(count), journal, command, str(self.repo)]
        done = subprocess.run(arguments, env=self.environment, capture_output=True, text=True)
        assert done.returncode in {0, -signal.SIGKILL}, done.stderr
        return done.returncode

    def events(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def tokens(self) -> dict[int, list[int]]:
        """item -> every token that the database has of it."""
        db = sqlite3.connect(self.db)
        tokens: dict[int, list[int]] = {}
        for item_id, blob in db.execute("select item_id, token_ids from partial order by item_id, position"):
            tokens.setdefault(item_id, []).extend(array("I", blob))
        rows = db.execute("select item.id, token_ids from item join result using (key) where state = 'done'").fetchall()
        db.close()
        return tokens | {item_id: list(array("I", blob)) for item_id, blob in rows}

    def fallbacks(self) -> list[str]:
        db = sqlite3.connect(self.db)
        rows = db.execute("select path from file where fallback is not null").fetchall()
        db.close()
        return [path for (path,) in rows]

    def tree(self) -> dict[str, bytes]:
        docs = self.repo / "rotary-docs"
        return {str(path.relative_to(docs)): path.read_bytes() for path in sorted(docs.rglob("*")) if path.is_file()}


def check_loss(night: Night, seen: int) -> None:
    """All that the engine gave before its last, uncommitted revolution is in the database."""
    wanted: dict[int, list[int]] = {}
    pending: list = []
    for event in night.events()[seen:]:
        if "step" in event:
            pending = event["step"]
        elif "committed" in event:
            for item_id, ids in pending:
                wanted.setdefault(item_id, []).extend(ids)
            pending = []
    kept = night.tokens()
    for item_id, ids in wanted.items():
        assert _within(ids, kept[item_id])


def _within(run: list[int], whole: list[int]) -> bool:
    return any(whole[place : place + len(run)] == run for place in range(len(whole) - len(run) + 1))


@pytest.fixture
def talking_pack(tmp_path) -> Path:
    """The embedded model with a threshold that lets nearly everything through, so that pages change often."""
    folder = tmp_path / "talking"
    shutil.copytree(EMBEDDED, folder)
    replace(Manifest.load(folder), min_mean_logprob=-100.0).save(folder)
    return folder


def source_repository(make_repository, num_files: int) -> Path:
    def module(n: int) -> str:
        return f'"""Module {n}."""\n\n\n' + "\n\n".join(
            f"def work_{n}_{m}(value):\n    total = value + {m}\n    return helper(total, {n})\n" for m in range(3)
        )

    files = {f"src/part{n % 3}/module{n}.py": module(n) for n in range(num_files)}
    return make_repository(files | {"src/helper.py": "def helper(total, n):\n    return total * n\n"})


def kill_and_finish(
    tmp_path, make_repository, talking_pack, num_kills: int, num_files: int, job: str = JOB
) -> Counter[tuple[str, str]]:
    source = source_repository(make_repository, num_files)
    (tmp_path / "calm").mkdir()
    (tmp_path / "storm").mkdir()
    calm, storm = (Night(tmp_path / name, source, talking_pack, job) for name in ("calm", "storm"))
    assert calm.drive("none", 1, "run") == 0
    assert calm.fallbacks() == []
    assert storm.drive("none", 1, "index") == 0
    chance, kills = random.Random(7), Counter()
    for number in range(num_kills):
        stage, journal, seen = STAGES[number % 4], JOURNALS[number // 4 % 2], len(storm.events())
        reach = {"prefill": 3, "decode": 12, "commit": 9, "pages": 7}[stage]
        if storm.drive(stage, chance.randint(1, reach), "drain", journal) == 0:
            break  # nothing was left to kill
        kills[stage, journal] += 1
        check_loss(storm, seen)
    assert storm.drive("none", 1, "run") == 0

    finished = [item for event in storm.events() for item in event.get("finished", [])]
    assert len(finished) == len(set(finished))
    assert storm.tree() == calm.tree()
    assert storm.tokens() == calm.tokens()
    return kills


def test_eight_kills_change_nothing(tmp_path, make_repository, talking_pack):
    kills = kill_and_finish(tmp_path, make_repository, talking_pack, num_kills=8, num_files=5)
    assert kills == {(stage, journal): 1 for stage in STAGES for journal in JOURNALS}


def test_kills_among_siblings_change_nothing(tmp_path, make_repository, talking_pack):
    """Three symbols of each file share the prompt of their chunk."""
    kills = kill_and_finish(tmp_path, make_repository, talking_pack, num_kills=4, num_files=3, job=JOB + SYMBOLS)
    assert kills == {(stage, "delete"): 1 for stage in STAGES}


@pytest.mark.faults
def test_two_hundred_kills_change_nothing(tmp_path, make_repository, talking_pack):
    kills = kill_and_finish(tmp_path, make_repository, talking_pack, num_kills=200, num_files=140)
    assert kills == {(stage, journal): 25 for stage in STAGES for journal in JOURNALS}
