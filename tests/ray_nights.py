"""A run over a cluster in a process of its own, which something can be killed under, and what its database holds."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.ray_nodes import ENVIRONMENT, RESOURCE

WAIT_S = 240.0


def wait_for(is_so: Callable[[], Any], what: str) -> Any:
    """Until something is true; returns it."""
    deadline = time.monotonic() + WAIT_S
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"no {what} in {WAIT_S:.0f} s"
        time.sleep(0.02)
    return found


class RayNight:
    """One database and one copy of a repository."""

    def __init__(self, source: Path, folder: Path, *, num_engines: int = 2) -> None:
        self.num_engines = num_engines
        self.root, self.database = folder / source.name, folder / "work.db"
        self.docs = self.root / "rotary-docs"
        shutil.copytree(source, self.root)

    def start(self, address: str | None = None, command: str = "run") -> subprocess.Popen[str]:
        """A command with engines on the cluster at an address; without one on this machine alone."""
        workers = ["--ray-resource", RESOURCE, "--ray-workers", str(self.num_engines)]
        on_cluster = ["--ray", address, *workers] if address else []
        words = [command, self.root, "--db", self.database, "--json", "--log", self.database.with_suffix(".log")]
        return subprocess.Popen(
            [sys.executable, "-m", "rotary_batch", *map(str, words), *on_cluster],
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, address: str | None = None, command: str = "run") -> str:
        """A command that comes to its end; returns its answer."""
        with self.start(address, command) as run:
            answer, errors = run.communicate(timeout=WAIT_S)
            assert run.returncode == 0, errors
        return answer

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What the database holds now; nothing before it is there."""
        try:
            with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=30)) as db:
                return db.execute(query).fetchall()
        except sqlite3.OperationalError:
            return []

    def tokens(self) -> dict[int, list[int]]:
        """item -> every token that is stored of it."""
        tokens: dict[int, list[int]] = {}
        for item, blob in self.rows("select item_id, token_ids from partial order by item_id, position"):
            tokens.setdefault(item, []).extend(array("I", blob))
        answered = self.rows("select item.id, token_ids from item join result using (key) where state = 'done'")
        return tokens | {item: list(array("I", blob)) for item, blob in answered}

    def epochs(self) -> dict[int, int]:
        """item -> how often it was leased, of those that are now."""
        return dict(self.rows("select id, epoch from item where state = 'leased'"))

    def is_in_mid_answer(self) -> bool:
        """Whether some answers are done, and others are begun."""
        done = self.rows("select count(*) from item where state = 'done'")
        begun = self.rows(
            "select count(distinct item_id) from partial join item on id = item_id where state = 'leased'"
        )
        return bool(done and begun and done[0][0] and begun[0][0])

    def standing(self) -> tuple[set[str], int]:
        """The states of the items, and how many attempts were counted."""
        return (
            {state for (state,) in self.rows("select distinct state from item")},
            self.rows("select sum(attempts) from item")[0][0],
        )

    def pages(self) -> dict[Path, bytes]:
        """Every file of the docs."""
        return {path.relative_to(self.docs): path.read_bytes() for path in self.docs.rglob("*") if path.is_file()}
