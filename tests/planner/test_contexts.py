"""What is told of the code around a chunk, in which order, and what an edit asks again."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.commands.database import writing
from rotary_batch.config import Settings
from rotary_batch.model.manifest import Manifest
from rotary_batch.planner.ordering import MAX_WAITS, waits
from rotary_batch.work import counts
from rotary_batch.work.store import WorkStore
from tests.answering import AnsweringEngine
from tests.in_process import drain_all, index_all

CODE = {
    "shop/base.py": "def base(x):\n    for one in x:\n        one.mark_red(x)\n    return x\n",
    "shop/middle.py": "from shop.base import base\n\n\ndef middle(x):\n    for one in base(x):\n        one.mark_blue()\n    return x\n",
    "shop/top.py": (
        "from shop.middle import middle\nfrom shop.told import told\n\n\n"
        "def top(x):\n    for one in middle(x):\n        told(one)\n    return x\n"
    ),
    "shop/told.py": 'def told(x):\n    """Say it twice."""\n    return x + x\n',
    "shop/ping.py": "from shop.pong import pong\n\n\ndef ping(x):\n    if x:\n        return pong(x - 1) * 2\n    return 1\n",
    "shop/pong.py": "from shop.ping import ping\n\n\ndef pong(x):\n    if x:\n        return ping(x - 1) * 3\n    return 2\n",
}


class MarkingEngine(AnsweringEngine):
    """Says of "`base`:" in code with `mark_red` "Does base red."; so a summary changes with one word of the code."""

    def __init__(self, pack: Path) -> None:
        super().__init__(pack)
        self.prompts: dict[str, str] = {}  # by what was asked about

    def answer(self, prompt: str) -> str:
        opening = re.search(r"`([^`]+)`(?:, lines [0-9]+-[0-9]+)?:\Z", prompt)
        source = re.search(r"<(text-\w+)>\n(.*)\n</\1>", prompt, re.DOTALL)[2]
        name = opening[1] if opening else "-"
        mark = re.search(r"mark_(\w+)", source)
        text = f" Does {name} {mark[1] if mark else 'plainly'}." if opening else "Sums it up."
        self.prompts[name] = prompt
        return text


@pytest.fixture
def settings(tmp_path, tiny_pack) -> Settings:
    """A model with room for a context, whose tokens are bytes."""
    pack = shutil.copytree(tiny_pack, tmp_path / "pack")
    replace(Manifest.load(pack), context_tokens=4096).save(pack)
    return Settings(model=pack, db=tmp_path / "work.db")


def states(store: WorkStore) -> dict[str, str]:
    rows = store.db.execute("select label, state from item where unit = 'symbol'")
    return {row["label"].strip("`"): row["state"] for row in rows}


def asked(store: WorkStore, settings: Settings, root: Path) -> dict[str, str]:
    """Index and drain; what the model was asked about, with the prompts."""
    index_all(store, settings, root)
    engine = MarkingEngine(Path(str(settings.model)))
    (report,) = drain_all(store, settings, [root], lambda: engine)
    assert (report.outcome, report.open, report.parked) == ("done", 0, 0)
    return engine.prompts


def test_what_a_chunk_uses_is_asked_first_and_told_with_its_answer(make_repository, settings):
    root = make_repository(CODE)
    with writing(settings) as store:
        index_all(store, settings, root)
        assert states(store) == {
            "base": "ready",
            "middle": "waiting",
            "top": "waiting",
            "ping": "ready",
            "pong": "ready",
        }
        prompts = asked(store, settings, root)
        assert set(states(store).values()) == {"done"}
        assert not store.db.execute("select 1 from item where blockers <> 0").fetchall()
    assert prompts["top"].partition("<text-")[0].partition("File: ")[2].splitlines() == [
        "top.py",
        "Imports: middle, told",
        "Uses `def middle(x)`: Does middle blue.",
        "Uses `def told(x)`: Say it twice.",
    ]
    assert "Uses `def base(x)`: Does base red." in prompts["middle"]
    assert "Used in middle.py: def middle(x)" in prompts["base"]
    for one, other in (("ping", "pong"), ("pong", "ping")):
        assert f"Uses `def {other}(x)`\n" in prompts[one], "in a cycle nothing waits, and signatures stand alone"


# How a file changes -> the symbols about which the model is asked again.
EDITS = {
    "nothing": ("shop/base.py", lambda text: text, set()),
    "whitespace behind it": ("shop/base.py", lambda text: f"{text}\n\n", set()),
    "whitespace in it": ("shop/base.py", lambda text: text.replace("x)\n    return", "x)\n\n    return"), {"base"}),
    "a comment": ("shop/base.py", lambda text: text.replace("return", "# all of it\n    return"), {"base"}),
    "body, same summary": ("shop/base.py", lambda text: text.replace("return x", "return x or None"), {"base"}),
    "body, other summary": ("shop/base.py", lambda text: text.replace("red", "green"), {"base", "middle"}),
    "signature": ("shop/base.py", lambda text: text.replace("base(x)", "base(x, y=0)"), {"base", "middle"}),
    "renamed": ("shop/base.py", lambda text: text.replace("def base", "def basis"), {"basis", "middle"}),
    "words of an author": ("shop/told.py", lambda text: text.replace("twice", "again"), {"top"}),
    "a file that nothing uses": ("shop/new.py", lambda _: "def new(x):\n    for y in x:\n        y(x)\n", {"new"}),
}


def test_an_edit_asks_again_what_reads_changed_words_and_no_more(make_repository, git, settings):
    root = make_repository(CODE)
    found = {}
    with writing(settings) as store:
        asked(store, settings, root)
        for kind, (path, edit, _) in EDITS.items():
            before = (root / path).read_text() if (root / path).exists() else None
            (root / path).write_text(edit(before))
            git(root, "add", "-A")
            git(root, "commit", "-q", "--allow-empty", "-m", kind)
            found[kind] = asked(store, settings, root).keys() - {"-"}
            if before is not None:
                (root / path).write_text(before)
            git(root, "commit", "-q", "--allow-empty", "-am", "back")
            assert asked(store, settings, root).keys() - {"-"} == set(), "what was answered once is stored"
        git(root, "mv", "shop/base.py", "shop/other.py")
        git(root, "commit", "-q", "-m", "move")
        found["move"] = asked(store, settings, root).keys() - {"-"}
        assert not store.db.execute("select 1 from draft").fetchall()
    # What imported a file that moved uses nothing any more: that was asked when the function was renamed.
    assert found == {kind: names for kind, (_, _, names) in EDITS.items()} | {"move": {"base"}}


def test_a_killed_index_goes_on_with_the_contexts_that_are_left(make_repository, settings, monkeypatch):
    root = make_repository(CODE)
    with writing(settings) as store:
        monkeypatch.setattr("rotary_batch.planner.contexts.CHUNKS_A_COMMIT", 2)
        commits = []

        def stop(what: str, done: int, total: int) -> None:
            commits.append(1)
            if what == "reading files" and len(commits) > 6 + 2:  # each of 6 files, then the contexts
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index_all(store, settings, root, progress=stop)
        left = store.db.execute("select count(*) from chunk where waits_for is null").fetchone()[0]
        assert 0 < left < 6
        prompts = asked(store, settings, root)
        assert "Uses `def middle(x)`: Does middle blue." in prompts["top"]
        assert counts.open_items(store, [1]) == 0


@given(st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 30), max_size=4), max_size=30))
def test_waits_have_no_cycle_and_no_long_chain(edges):
    order = waits(edges)
    assert set(order) >= set(edges)
    depth: dict[int, int] = {}
    for node, targets in order.items():  # each comes behind what it waits for
        assert set(targets) <= set(edges.get(node, ()))
        depth[node] = max((depth[target] + 1 for target in targets), default=0)
    assert max(depth.values(), default=0) <= MAX_WAITS
