"""A repository that was run once with a tiny model, its database, its pages and its pack, in one folder that is put back."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.facts import Fact, State
from rotary_batch.commands.verify import verify
from rotary_batch.window import Window

CODE = {
    "pkg/box.py": "def put(thing):\n    '''Put it in.'''\n    return wrap(thing)\n\n\ndef take(box):\n    return box.pop()\n",
    "pkg/wrap.py": "def wrap(thing):\n    return [thing]\n",
    "notes.txt": "Hi\n",
}


class Kept(NamedTuple):
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "project"

    @property
    def pack(self) -> Path:
        return self.folder / "pack"

    @property
    def database(self) -> Path:
        return self.folder / "state" / "work.db"

    @property
    def docs(self) -> dict[str, bytes]:
        docs = self.root / "rotary-docs"
        return {str(path.relative_to(docs)): path.read_bytes() for path in docs.rglob("*") if path.is_file()}

    def rotary(self, *words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rotary_batch", *map(str, words), "--db", str(self.database)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, isolation_level=None)) as db:
            return db.execute(statement, parameters).fetchall()

    def facts(self) -> list[Fact]:
        return list(verify(self.database, [], Window(), lambda *_: None))

    def problems(self) -> list[Fact]:
        return [fact for fact in self.facts() if fact.state is not State.AGREES]


def make_kept(folder: Path, tiny_pack: Path) -> Kept:
    kept = Kept(folder)
    shutil.copytree(tiny_pack, kept.pack)
    for path, text in CODE.items():
        (kept.root / path).parent.mkdir(parents=True, exist_ok=True)
        (kept.root / path).write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(kept.root)]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    kept.rotary("run", kept.root, "--model", kept.pack)
    return kept


@contextmanager
def put_back(kept: Kept, copy: Path) -> Iterator[Kept]:
    """What is done to the folder in the block is undone."""
    shutil.copytree(kept.folder, copy, symlinks=True)
    try:
        yield kept
    finally:
        shutil.rmtree(kept.folder)
        copy.rename(kept.folder)
