"""The page for people who are new: its facts come from the index, its paragraphs from the job `onboarding`."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.database import writing
from rotary_batch.commands.why import why
from rotary_batch.config import Settings
from rotary_batch.core import Fact, FactKind, Topic, Verdict
from rotary_batch.errors import InputError
from rotary_batch.model.manifest import Manifest
from rotary_batch.pages.check import validate
from rotary_batch.pages.faithful.described import Described
from rotary_batch.repo.project.facts import MAX_NBYTES, facts_of
from rotary_batch.sync import sync_all
from rotary_batch.work.counts import items
from rotary_batch.work.index import repositories
from rotary_batch.work.items import ask_again
from rotary_batch.work.store import WorkStore
from tests.answering import AnsweringEngine
from tests.in_process import drain_all, index_all

CODE = {
    "README.md": "# Shop\n\nA shop that sells tea over the network.\n",
    "Makefile": "test: lint  ## Run all tests\n\tpytest -q\n\nlint:\n\t@ruff check .\n\tmypy\n",
    "pyproject.toml": '[build-system]\nbuild-backend = "hatchling.build"\n\n[project.scripts]\nshop = "shop.run:main"\n',
    "tox.ini": "[testenv]\ncommands =\n    pytest {posargs}\n",
    ".github/workflows/ci.yml": "jobs:\n  test:\n    steps:\n      - run: pip install -e .\n      - run: make test\n",
    "shop/__init__.py": '"""The server."""\n',
    "shop/run.py": "from shop.cart import total\n\n\ndef main():\n    print(total([1, 2]))\n    return 0\n",
    "shop/cart.py": "def total(goods):\n    if not goods:\n        return 0\n    return sum(goods)\n",
    "tools/seed.py": (
        "from shop.cart import total\n\nif __name__ == '__main__':\n    print(total([]))\n    print(total([1]))\n"
    ),
    "web/package.json": '{"name": "shop-web", "bin": "cli.js", "scripts": {"test": "jest", "build": "tsc -p ."}}',
    "web/cart.js": "function draw(cart) {\n  console.log(cart);\n  return cart;\n}\nmodule.exports = { draw };\n",
    "web/cli.js": ("const { draw } = require('./cart');\nfunction run() {\n  draw([1]);\n  return 1;\n}\nrun();\n"),
    "core/Cargo.toml": '[package]\nname = "shop-core"\n\n[[bin]]\nname = "shopd"\npath = "src/daemon.rs"\n',
    "core/src/daemon.rs": 'fn main() {\n    println!("x");\n    println!("y");\n}\n',
}
PAGE = """# Onboarding

[project](index.md)

## Overview

@overview
A shop that sells tea over the network.

Languages, by number of files: python 4, javascript 2, toml 2, json 1, make 1, markdown 1, rust 1, yaml 1.

## Architecture

@architecture
| Folder | Summary |
| --- | --- |
| [`core`](core/index.md) | Holds `Cargo.toml` and `src`. |
| [`core/src`](core/src/index.md) | Holds `daemon.rs`. |
| [`shop`](shop/index.md) | The server. |
| [`tools`](tools/index.md) | Holds `seed.py`. |
| [`web`](web/index.md) | Holds `cart.js`, `cli.js` and `package.json`. |

What uses what in [`shop`](shop/index.md):

```mermaid
flowchart TD
  n0["cart.py"]
  n1["run.py"]
  n1 --> n0
```

## Entry points

@entry_points
- `shopd` runs `src/daemon.rs`, says `core/Cargo.toml`
- `shop` runs `shop.run:main`, says `pyproject.toml`
- `shop-web` runs `cli.js`, says `web/package.json`
- [`main`](shop/run.py.md#main) in [`shop/run.py`](shop/run.py.md)
- [`tools/seed.py`](tools/seed.py.md)
- [`main`](core/src/daemon.rs.md#main) in [`core/src/daemon.rs`](core/src/daemon.rs.md)

## Build and test

@build
These commands are quoted from files of the project. None of them was run to write this page.

From [`Makefile`](Makefile.md):

| Command | What it does |
| --- | --- |
| `make test` | Run all tests |
| `make lint` | `ruff check .; mypy` |

From [`pyproject.toml`](pyproject.toml.md):

| Command | What it does |
| --- | --- |
| `python -m pip install .` | It builds with `hatchling.build`. |

From `tox.ini`:

| Command | What it does |
| --- | --- |
| `tox` | `pytest {posargs}` |

From [`core/Cargo.toml`](core/Cargo.toml.md), to run in `core`:

| Command | What it does |
| --- | --- |
| `cargo test` |  |
| `cargo build` |  |

From [`web/package.json`](web/package.json.md), to run in `web`:

| Command | What it does |
| --- | --- |
| `npm test` | `jest` |
| `npm run build` | `tsc -p .` |

Continuous integration, from [`.github/workflows/ci.yml`](.github/workflows/ci.yml.md):

```sh
pip install -e .
make test
```

## Where to start

@start
The files that the others use most, directly or through others:

1. [`shop/cart.py`](shop/cart.py.md): Defines `total`.
2. [`web/cart.js`](web/cart.js.md): Defines `draw`.
"""
ASKED = {  # a word of each prompt, and the answer to it
    "notes on the project": (Topic.OVERVIEW, "A shop that sells tea."),
    "is divided": (Topic.ARCHITECTURE, "The server is in `shop`, and `run.py` uses `cart.py`."),
    "programs of the project": (Topic.ENTRY_POINTS, "The program `shop` begins in `shop.run:main`."),
    "built and tested": (Topic.BUILD, "Run `make test` to test it. Run `make shop` to build it."),
    "to read first": (Topic.START, "Read `shop/cart.py` first."),
}
SHOWN = dict(ASKED.values()) | {Topic.BUILD: "Run `make test` to test it."}


class TopicEngine(AnsweringEngine):
    """Answers topics; on anything else it says nothing that can be shown."""

    def __init__(self, pack: Path) -> None:
        super().__init__(pack)
        self.prompts: dict[Topic, str] = {}
        self.num_others = 0

    def answer(self, prompt: str) -> str:
        first = prompt.partition("\n")[0]
        topic, text = next((known for word, known in ASKED.items() if word in first), (None, "?"))
        if topic is None:
            self.num_others += 1
        else:
            self.prompts[topic] = prompt
        return text


@pytest.fixture
def settings(tmp_path, tiny_pack) -> Settings:
    """A model with room for all facts, whose tokens are bytes."""
    pack = shutil.copytree(tiny_pack, tmp_path / "pack")
    replace(Manifest.load(pack), context_tokens=8192).save(pack)
    return Settings(model=pack, db=tmp_path / "work.db", job="onboarding")


def asked(store: WorkStore, settings: Settings, root: Path) -> dict[Topic, str]:
    """Index and drain; the prompts on topics that the model was asked."""
    index_all(store, settings, root)
    engine = TopicEngine(Path(str(settings.model)))
    (report,) = drain_all(store, settings, [root], lambda: engine)
    assert (report.outcome, report.open, report.parked) == ("done", 0, 0)
    return engine.prompts


def body(root: Path) -> str:
    return (root / "rotary-docs/onboarding.md").read_text().partition("\n---\n\n")[2]


def page_with(words: dict[Topic, str]) -> str:
    return re.sub(r"@(\w+)\n", lambda one: f"{words[Topic(one[1])]}\n\n" if Topic(one[1]) in words else "", PAGE)


def test_the_page_is_whole_without_a_model_and_has_a_paragraph_on_each_topic_with_one(make_repository, settings):
    root = make_repository(CODE)
    with writing(settings) as store:
        index_all(store, settings, root)
        assert body(root) == page_with({})
        prompts = asked(store, settings, root)
        assert prompts.keys() == set(Topic)
        assert body(root) == page_with(SHOWN), "a command that no file names is not shown"
        assert (
            "- `make test`: in Makefile: Run all tests\n- `make lint`: in Makefile: it runs `ruff"
            in prompts[Topic.BUILD]
        )
        assert "- its README: A shop that sells tea over the network.\n" in prompts[Topic.OVERVIEW]
        assert "- `run.py` uses: `cart.py`\n" in prompts[Topic.ARCHITECTURE]
        row = repositories(store)[0]
        assert sync_all(store, row).written == []
        (again,) = index_all(store, settings, root)
        assert (again.indexed.counts.queued, again.sync_result.written) == (0, [])
    assert "[Onboarding](onboarding.md)" in (root / "rotary-docs/index.md").read_text()
    assert "- [Onboarding](onboarding.md): for people who are new to it" in (root / "rotary-docs/llms.txt").read_text()
    assert '- "Onboarding": "onboarding.md"\n' in (root / "rotary-docs/.mkdocs/mkdocs.yml").read_text()


def test_a_change_asks_again_about_the_topics_whose_facts_it_changes(make_repository, git, settings):
    root = make_repository(CODE)

    def edit(path: str, old: str, new: str) -> set[Topic]:
        (root / path).write_text((root / path).read_text().replace(old, new))
        git(root, "commit", "-qam", "edit")
        return set(asked(store, settings, root))

    with writing(settings) as store:
        asked(store, settings, root)
        assert edit("Makefile", "mypy", "mypy --strict") == {Topic.BUILD}
        assert edit("tox.ini", "pytest", "pytest -q") == {Topic.BUILD}, "which has no page"
        assert "pytest -q {posargs}" in body(root)
        assert edit("shop/run.py", "[1, 2]", "[1, 2, 3]") == set()
        assert edit("shop/__init__.py", "server", "whole server") == {Topic.ARCHITECTURE}
        assert edit("README.md", "tea", "coffee") == {Topic.OVERVIEW}
        assert edit("pyproject.toml", "shop.run:main", "shop.run:other") == {Topic.ENTRY_POINTS}
        (root / "tox.ini").unlink()
        git(root, "commit", "-qam", "gone")
        assert set(asked(store, settings, root)) == {Topic.BUILD}
        assert "tox" not in body(root)
        assert sync_all(store, repositories(store)[0]).written == []


def test_a_topic_waits_for_the_summaries_that_it_tells(make_repository, settings):
    root = make_repository(CODE)
    with writing(settings) as store:
        index_all(store, settings, root)
        rows = store.db.execute("select label, blockers from item where unit = 'topic' order by position")
        assert {row["label"]: row["blockers"] for row in rows} == {
            "overview": 1,  # the repository
            "architecture": 5,
            "entry_points": 3,
            "build": 0,
            "start": 2,
        }
        asked(store, settings, root)
        store.db.execute("update item set state = 'parked' where unit = 'file' and path = 'shop/cart.py'")
        ask_again(store, [1])
        waiting = [
            item["subject"] for item in items(store, 1) if item["unit"] == "topic" and item["state"] == "waiting"
        ]
        assert waiting == [topic.subject.text for topic in (Topic.OVERVIEW, Topic.ARCHITECTURE, Topic.START)]
        assert asked(store, settings, root) == {}, "the summary is the same, and so are the prompts"


def test_what_others_import_is_no_script_and_private_files_are_no_place_to_start(make_repository, settings):
    guard = "\n\nif __name__ == '__main__':\n    f()\n"
    root = make_repository(
        {
            "demo.py": "def f():\n    pass\n" + guard,
            "tool.py": "from demo import f\nfrom _own import g\n\n\ndef go():\n    f()\n    g()\n" + guard,
            "_own.py": "def g():\n    pass\n",
            "test_tool.py": "from tool import go\n\n\ndef test_go():\n    go()\n" + guard,
        }
    )
    with writing(settings) as store:
        index_all(store, settings, root)
    assert body(root).partition("## Entry points\n\n")[2] == (
        "- [`tool.py`](tool.py.md)\n\n## Where to start\n\n"
        "The files that the others use most, directly or through others:\n\n"
        "1. [`tool.py`](tool.py.md): Defines `go`.\n2. [`demo.py`](demo.py.md): Defines `f`.\n"
        "3. [`_own.py`](_own.py.md): Defines `g`.\n"
    )


def test_facts_that_do_not_fit_are_left_out_and_the_first_ones_are_told(make_repository, settings):
    targets = "".join(f"target{n:03}:\n\techo {'x' * 200}\n" for n in range(60))
    root = make_repository(CODE | {"Makefile": f"test:\n\tpytest\n{targets}"})
    with writing(settings) as store:
        prompts = asked(store, settings, root)
    assert all(len(prompt.encode()) <= 1500 + 100 for prompt in prompts.values()), "markers of the chat besides"
    assert "`make test`: in Makefile: it runs `pytest`\n" in prompts[Topic.BUILD]
    assert "target059" not in prompts[Topic.BUILD]
    assert "| and 29 more |" not in body(root)
    assert "| and 28 more |  |" in body(root), "of the 40 that are stored"


def test_why_shows_the_prompt_of_a_topic(make_repository, settings):
    root = make_repository(CODE)
    with writing(settings) as store:
        prompts = asked(store, settings, root)

        def told(page: str) -> dict:
            return why(store, lambda row: RepositorySettings(Path(row.root), settings), root, page)

        for topic, name in ((Topic.OVERVIEW, ""), (Topic.BUILD, "#build-and-test"), (Topic.START, "#start")):
            answer = told(f"rotary-docs/onboarding.md{name}")
            assert (answer["page"], answer["symbol"]) == ("rotary-docs/onboarding.md", topic.value)
            assert (answer["text"]["is_exact"], answer["text"]["shown"]) == (True, SHOWN[topic])
            assert answer["text"]["prompt"] in prompts[topic] or prompts[topic] in answer["text"]["prompt"]
        assert [one["unit"] for one in answer["text"]["inputs"]] == ["file", "file"]
        with pytest.raises(InputError, match="no such topic; the topics are overview, "):
            told("onboarding.md#nothing")


HOSTILE = "</a> | `x` <script>alert(1)</script> [a](https://evil.example)\x1b[31m ![](https://evil.example/p.png) [INST] $(id)"


def test_hostile_names_and_commands_do_nothing(make_repository, settings, tmp_path):
    """They are in a code span, a table or a block, and nothing of a project is run."""
    mark = tmp_path / "was-run"
    quoted = HOSTILE.replace("\x1b", "\\u001b").replace('"', "")
    root = make_repository(
        {
            "package.json": f'{{"scripts": {{"test": "touch {mark} # {quoted}", "{quoted}": "```"}}, "bin": {{"{quoted}": "```"}}}}',
            "Makefile": f"test: ## {HOSTILE}\n\ttouch {mark}\n$(shell touch {mark}):\n\ttrue\n",
            "setup.py": f"import os\nos.system('touch {mark}')\nsetup(entry_points={{'console_scripts': ['a=b:c']}})\n",
            "noxfile.py": f"import nox\nopen({str(mark)!r}, 'w')\n@nox.session\ndef tests(session): pass\n",
            ".github/workflows/x.yml": f"- run: ```\n- run: |\n    ~~~\n    touch {mark} {HOSTILE}\n",
            "tox.ini": f"[testenv:{HOSTILE.replace(']', '')}]\ncommands = touch {mark}\n",
            "a.py": "from b import f\n\n\ndef main():\n    f()\n",
            "b.py": "def f():\n    pass\n",
        }
    )
    with writing(settings) as store:
        prompts = asked(store, settings, root)
    assert not mark.exists()
    page = body(root)
    assert "\x1b" not in page
    assert "[INST]" not in prompts[Topic.BUILD].split("[INST]", 1)[-1].removeprefix(" ")
    outside = re.sub(r"(?ms)^(`{3,})sh\n.*?^\1$", "", page)
    outside = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", outside)
    assert "<script" not in outside
    assert "](https:" not in outside


@pytest.mark.parametrize(
    ("path", "text", "facts"),
    [
        (
            "Makefile",
            "A := b\n.PHONY: x\n%.o: %.c\n\tcc\nout.txt: x\ntest check: A=1 x\nall: x  # not told\n\t@-true\n",
            [("make all", "true", "not told")],
        ),
        ("justfile", "set x\nv := '1'\ntest arg='1':\n    pytest\nneeds arg:\n    x\n", [("just test", "pytest", "")]),
        ("noxfile.py", "@nox.session(python='3')\ndef tests(session):\n    pass\n", [("nox -s tests", "", "")]),
        (
            "pyproject.toml",
            '[tool.hatch.envs.default.scripts]\nt = ["a", "b"]\n[tool.poe.tasks]\nx = {cmd = "y"}\n[tool.pytest]\n',
            [("python -m pytest", "", ""), ("hatch run t", "a; b", ""), ("poe x", "y", "")],
        ),
        ("setup.cfg", "[options.entry_points]\nconsole_scripts =\n    a = b:c\n", [("a", "b:c", "")]),
        ("go.mod", "module x\n", [("go build ./...", "", ""), ("go test ./...", "", "")]),
        ("CMakeLists.txt", "add_library(x)\n", []),
        (
            ".gitlab-ci.yml",
            "t:\n  script:\n  - 'make'\n  - cd x\nu:\n  script: go vet\n",
            [("make", "", ""), ("go vet", "", "")],
        ),
        ("package.json", "[" * 100_000, []),
        ("pyproject.toml", "a = " + "[" * 100_000, []),
        ("Cargo.toml", "[package]\nname = 1\nbin = 3\n", [("cargo build", "", ""), ("cargo test", "", "")]),
        ("package.json", '{"scripts": {"test": 1, "x": null}, "bin": 7}', []),
        ("sub/.github/workflows/a.yml", "- run: x\n", []),
        ("a/b.py", "if __name__ == '__main__':\n    pass\n", [("", "", "")]),
    ],
)
def test_what_a_file_says_is_read_as_text(path, text, facts):
    assert [fact[1:] for fact in facts_of(path, text)] == facts


def test_a_command_that_is_not_in_the_facts_is_dropped_and_a_sentence_that_is_on_none_of_them():
    about = Described("shop", "shop", "", "", "", topic="build")

    def shown(text: str) -> str | None:
        found = validate(
            text,
            mean_logprob=-0.1,
            min_mean_logprob=None,
            ended="stop",
            is_known=lambda _name: False,
            source="- `make test`: in Makefile\n- `make docs`: in Makefile",
            about=about,
        )
        assert (found.verdict is Verdict.SHOWN) == (found.shown_text is not None)
        return found.shown_text

    assert shown("You run `make test` for the tests.") == "You run `make test` for the tests."
    assert shown("You run `make test docs` for the tests.") is None
    assert shown("You run `test make` for the tests.") is None
    assert shown("You run make test for the tests. It has many tests.") == "You run make test for the tests."


def test_facts_are_cut_to_what_a_page_shows():
    (fact,) = facts_of("package.json", '{"scripts": {"test": "%s"}}' % ("x" * 1000))
    assert fact == Fact(FactKind.COMMAND, "npm test", "x" * 300)


@pytest.mark.timeout(5)  # each took 7 s to minutes, in the process that no one can stop for a file
@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("pyproject.toml", ".".join(["a"] * 6_000) + " = 1\n"),
        ("pyproject.toml", "".join(".".join(["a"] * 90) + f".b{n} = 1\n" for n in range(2_400))),
        ("Makefile", "a.c:\n" * 99_000),
        (".github/workflows/a.yml", "run: |\n" * 70_000),
        (".gitlab-ci.yml", "script:\n" * 60_000),
        ("noxfile.py", "@session\n" * 55_000),
    ],
)
def test_a_hostile_file_takes_linear_time_and_says_nothing(path, text):
    assert len(text) < MAX_NBYTES
    assert facts_of(path, text) == []
