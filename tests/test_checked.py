"""From source to report: no secret is stored or shown, sentences are held against the code, verdicts are given anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rotary_batch.commands.database import writing
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.commands.reports import markdown
from rotary_batch.commands.run_report import from_dict
from rotary_batch.config import Settings
from rotary_batch.core import Request
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.testing import FakeEngine
from tests.in_process import drain_all, index_all
from tests.repo.test_secrets import AWS, END, GITHUB, KEY, RANDOM

SECRET_FILES = {
    "README.md": f"# Shop\n\nSells frobs with the key {GITHUB} of ours.\n",
    "app/config.py": f'"""Settings, as in {GITHUB}."""\n\nAWS_ACCESS_KEY = "{AWS}"\n\n\ndef connect():\n'
    f'    """Connects with {AWS}."""\n    return open_db("postgres://app:{RANDOM[:16]}@db/rows")\n',
    "app/key.go": f"package app\n\nconst Key = `{KEY}\n{RANDOM[:40]}\n{RANDOM[4:40]}\n{END}\n`\n",
    "deploy.yml": f"token: {GITHUB}\nhost: example.org\n",
    "notes.ipynb": json.dumps(
        {
            "cells": [{"cell_type": "code", "source": [f"password = '{RANDOM[:12]}'\n", "print(1)\n"]}],
            "metadata": {"language_info": {"name": "python"}},
            "nbformat": 4,
        }
    ),
}
VALUES = [GITHUB, AWS, RANDOM[:12], RANDOM[:16], RANDOM[:40], RANDOM[4:40]]


class SayingEngine(FakeEngine):
    """Says the same of everything."""

    def __init__(self, text: str) -> None:
        self._ids = Tokenizer.load(EMBEDDED).encode(text)
        super().__init__(max_batch=16, answer_tokens=len(self._ids))
        self.prompts: list[tuple[int, ...]] = []

    def admit(self, request: Request) -> None:
        self.prompts.append(request.prompt_ids)
        super().admit(request)

    def _token(self, request: Request, place: int) -> int:
        return self._ids[place]


@pytest.fixture
def settings(tmp_path):
    return Settings(db=tmp_path / "state" / "work.db")


def everything_below(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)


def test_no_secret_is_in_a_prompt_the_database_a_page_or_a_report(make_repository, settings, tmp_path):
    root = make_repository(SECRET_FILES)
    engine = SayingEngine("Reads the rows of it.")
    with writing(settings) as store:
        (outcome,) = index_all(store, settings, root)
        (report,) = drain_all(store, settings, [root], lambda: engine)
        markdown_text = markdown(report)
    stored = everything_below(tmp_path / "state") + everything_below(root / "rotary-docs")
    prompts = "\n".join(map(Tokenizer.load(EMBEDDED).decode, engine.prompts))
    assert len(stored) > 100_000
    assert "connect" in prompts
    for value in VALUES:
        assert value.encode() not in stored
        assert value not in prompts + markdown_text + report.as_json() + repr(outcome.notes)
    found = [(one.path, one.line, one.kind) for one in report.secrets]
    assert found == [
        ("README.md", 3, "GitHub Token"),
        ("app/config.py", 1, "GitHub Token"),
        ("app/config.py", 3, "AWS Access Key"),
        ("app/config.py", 7, "AWS Access Key"),
        ("app/config.py", 8, "Basic Auth Credentials"),
        ("app/key.go", 4, "Private Key"),
        ("deploy.yml", 1, "GitHub Token"),
        ("notes.ipynb", 1, "Secret Keyword"),
    ]
    assert report.num_secrets == len(found)
    assert "there are 8 secrets in its files" in " ".join(outcome.notes)
    assert "## Secrets, which no prompt holds" in markdown_text
    assert "- README.md:3: GitHub Token" in markdown_text
    assert from_dict(json.loads(report.as_json())) == report


def test_another_value_of_a_secret_is_no_other_question(make_repository, settings, git):
    root = make_repository(SECRET_FILES)
    with writing(settings) as store:
        index_all(store, settings, root)
        drain_all(store, settings, [root], lambda: SayingEngine("Reads the rows of it."))
        keys = [tuple(row) for row in store.db.execute("select subject, key from item where unit = 'chunk' order by 1")]
        for path, text in SECRET_FILES.items():
            (root / path).write_text(text.replace("q7Zt2", "k5Wy8").replace("QWERT", "ASDFG"))
        git(root, "commit", "-qam", "other secrets")
        (again,) = index_all(store, settings, root)
        after = [
            tuple(row) for row in store.db.execute("select subject, key from item where unit = 'chunk' order by 1")
        ]
        assert (again.indexed.parsed, after) == (5, keys)
        # One that is gone is reported no longer.
        (root / "deploy.yml").write_text("host: example.org\n")
        (root / "README.md").write_text("# Shop\n\nSells frobs.\n")
        git(root, "commit", "-qam", "fewer secrets")
        index_all(store, settings, root)
        paths = {row[0] for row in store.db.execute("select path from secret")}
        assert paths == {"app/config.py", "app/key.go", "notes.ipynb"}


FILES = {
    "a.py": "def load(path):\n    return read(path, 30)\n",
    "b.py": "from a import load\n\n\ndef all_rows(paths):\n    for path in paths:\n        load(path)\n",
}
ANSWER = "Reads rows. Waits 30 seconds. Calls `all_rows`."


def test_sentences_are_held_against_their_own_code_and_counted(make_repository, settings):
    root = make_repository(FILES)
    with writing(settings) as store:
        index_all(store, settings, root)
        (report,) = drain_all(store, settings, [root], lambda: SayingEngine(ANSWER))
        shown = {
            (row[0], row[1]): (row[2], row[3], row[4], json.loads(row[5]))
            for row in store.db.execute(
                "select unit, path, shown_text, num_sentences, num_kept, reasons from item where unit = 'chunk'"
            )
        }
    assert shown == {
        # Of a file that does not have the name, though another file of the repository has it.
        ("chunk", "a.py"): ("Reads rows. Waits 30 seconds.", 3, 2, ["unknown name: all_rows"]),
        ("chunk", "b.py"): ("Reads rows. Calls `all_rows`.", 3, 2, ["unknown number: 30"]),
    }
    (score,) = report.scores
    assert (score.model, score.looked_at) == (report.model, report.stats["sentences"])
    assert (score.shown, score.reasons) == (report.stats["sentences_shown"], report.stats["reasons"])
    assert {one.path for one in report.lowest_pages} >= {"a.py", "b.py"}
    text = markdown(report)
    assert "## Sentences that are shown" in text
    assert f"- {score.model}: {score.shown} of {score.looked_at} sentences" in text
    assert from_dict(json.loads(report.as_json())) == report


SYMBOLS = {
    "rows.py": """import json
from store import Base


class Rows(Base):
    def load(self, path):
        if not path:
            raise ValueError(path)
        return json.load(open(path))

    def save(self, path, rows):
        with open(path, "w") as file:
            file.write(json.dumps(rows))
            file.flush()


def merge(first, second):
    for one in second:
        first.append(one)
    return sorted(first)
""",
    "store.py": "class Base:\n    def reset(self, keep_open):\n        self.rows = []\n        self.open = keep_open\n        return self\n",
    "other.py": "def elsewhere(a):\n    a.run()\n    return a.result\n",
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Returns all that is there.", {"Rows", "Rows.load", "merge", "Base.reset", "elsewhere", "Base"}),
        ("Raises ValueError for what is empty.", {"Rows", "Rows.load", "Base"}),
        ("Works like `Base.reset` with `keep_open`.", {"Rows", "Rows.load", "Rows.save", "Base", "Base.reset"}),
        ("Works like `elsewhere` does.", {"elsewhere"}),
        ("Merges.", {"Rows", "Rows.load", "Rows.save", "Base", "Base.reset", "elsewhere"}),
        ("Gets the reset.", {"Rows", "Rows.load", "Rows.save", "merge", "elsewhere"} | {"Base"}),
        ("This method is a Python function that keeps what is there.", {"all"}),
    ],
)
def test_each_symbol_is_held_against_its_own_code(make_repository, tmp_path, text, shown):
    settings = Settings(db=tmp_path / "state" / "work.db", job="summarize")
    root = make_repository(SYMBOLS)
    with writing(settings) as store:
        index_all(store, settings, root)
        drain_all(store, settings, [root], lambda: SayingEngine(text))
        found = {
            row[0]: row[1]
            for row in store.db.execute(
                """select qualified_name, shown_text from item join symbol on symbol.path = item.path
                   and item.subject = item.path || '@' || start_byte || '-' || end_byte where unit = 'symbol'"""
            )
        }
    assert found.keys() == {"Rows", "Rows.load", "Rows.save", "merge", "Base", "Base.reset", "elsewhere"}
    if shown == {"all"}:
        assert set(found.values()) == {"Keeps what is there."}
    else:
        assert {name for name, words in found.items() if words} == shown


def test_another_threshold_gives_verdicts_anew_and_asks_nothing_again(make_repository, tmp_path, monkeypatch):
    """Stored results are judged again; only what reads another text now is another question."""
    pack = tmp_path / "pack"
    pack.mkdir()
    for file in EMBEDDED.iterdir():
        (pack / file.name).symlink_to(file)
    settings = Settings(db=tmp_path / "state" / "work.db", model=pack)
    root = make_repository(FILES)

    def set_threshold(value: float) -> None:
        manifest = json.loads((EMBEDDED / "manifest.json").read_text()) | {"min_mean_logprob": value}
        (pack / "manifest.json").unlink()
        (pack / "manifest.json").write_text(json.dumps(manifest))

    def chunks(store):
        return [
            tuple(row)
            for row in store.db.execute("select path, verdict, key from item where unit = 'chunk' order by path")
        ]

    with writing(settings) as store:
        set_threshold(-0.2)
        index_all(store, settings, root)
        drain_all(store, settings, [root], lambda: SayingEngine(ANSWER))
        before = chunks(store)
        assert [row[1] for row in before] == ["low-confidence"] * 2
        (same,) = index_all(store, settings, root)
        assert (same.indexed.parsed, same.indexed.counts.queued) == (0, 0)
        set_threshold(-0.3)
        weights = Manifest.load(pack).weights_digest
        index_all(store, settings, root)
        engine = SayingEngine("Reads rows.")
        (report,) = drain_all(store, settings, [root], lambda: engine)
        assert chunks(store) == [(path, "shown", key) for path, _, key in before]
        assert weights == Manifest.load(EMBEDDED).weights_digest
        # The files and the repository read other texts now; the chunks were not asked again.
        assert len(engine.prompts) == report.new_answers == 3
