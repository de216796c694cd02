"""A coding agent asks the index: a real client over stdio, and a server that only reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from typer.testing import CliRunner

from rotary_batch.cli import app
from rotary_batch.commands.ask import MAX_CALLS, MAX_TEXT_CHARACTERS
from rotary_batch.commands.database import database_path
from rotary_batch.config import Settings

LONG = "".join(f"    total += {number:05}  # one more line\n" for number in range(1000))
MANY = "".join(f"def user_{number}():\n    return helper()\n\n\n" for number in range(MAX_CALLS + 20))
CODE = {
    "store/shelf.py": '"""Shelves."""\n\n\ndef put_on(shelf, thing):\n    """Put it there."""\n    return weigh(thing)\n\n\n'
    "def weigh(thing):\n    return len(thing)\n",
    "store/long.py": f"def very_long():\n    total = 0\n{LONG}    return total\n",
    "store/many.py": f"def helper():\n    return 1\n\n\n{MANY}",
    "twice/a.go": "package a\n\nfunc Same() int { return 1 }\n",
    "twice/b.go": "package a\n\ntype T struct{}\n\nfunc (t T) Same() int { return 2 }\n",
}


def run(*arguments: object) -> None:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, (arguments, done.output, done.exception)


def ask(*calls: tuple[str, dict[str, object]]) -> list[object]:
    """The answers of one session: data, or the text of an error."""
    return anyio.run(_ask, calls)


async def _ask(calls: Sequence[tuple[str, dict[str, object]]]) -> list[object]:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "rotary_batch", "mcp"], env=dict(os.environ), cwd="/"
    )
    answers: list[object] = []
    async with stdio_client(server) as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
        await session.initialize()
        listed = (await session.list_tools()).tools
        answers.append({tool.name: tool.annotations.read_only_hint for tool in listed})
        for name, arguments in calls:
            result = await session.call_tool(name, arguments)
            text = result.content[0].text
            answers.append(text if result.is_error else json.loads(text))
    return answers


@pytest.fixture
def indexed(make_repository) -> Path:
    root = make_repository(CODE, "stock")
    run("index", root)
    return root


def test_an_agent_finds_its_way_from_a_word_to_text_callers_and_page(indexed):
    before = database_path(Settings()).read_bytes()
    tools, found, symbol, callers, callees, page, whole = ask(
        ("search", {"text": "put on shelf", "limit": 1}),
        ("symbol", {"name": "put_on", "repository": "stock"}),
        ("callers", {"name": "weigh"}),
        ("callees", {"name": "put_on", "path": f"{indexed}/store/shelf.py"}),
        ("page", {"path": f"{indexed}/store/shelf.py"}),
        ("page", {"path": ""}),
    )
    assert tools == dict.fromkeys(("search", "symbol", "callers", "callees", "page"), True)
    place = {"repository": str(indexed), "kind": "function", "path": "store/shelf.py"}
    page_path = "rotary-docs/store/shelf.py.md"
    assert found == {
        "results": [place | {"qualified_name": "put_on", "line": 4, "page": page_path, "summary": "Put it there."}]
    }
    put_on, weigh = ({"qualified_name": "put_on", "lines": [4, 6]}, {"qualified_name": "weigh", "lines": [9, 10]})
    assert symbol == {
        "symbols": [
            place
            | put_on
            | {
                "page": page_path,
                "signature": "def put_on(shelf, thing)",
                "docs": "Put it there.",
                "text": 'def put_on(shelf, thing):\n    """Put it there."""\n    return weigh(thing)',
            }
        ],
        "also": [],
    }
    caller = {"qualified_name": "put_on", "path": "store/shelf.py", "line": 4}
    assert callers == {"symbols": [place | weigh | {"callers": [caller]}], "also": []}
    assert callees["symbols"] == [place | put_on | {"callees": [caller | {"qualified_name": "weigh", "line": 9}]}]
    assert (page["page"], "Put it there." in page["text"]) == (page_path, True)
    assert whole["page"] == "rotary-docs/index.md"
    assert database_path(Settings()).read_bytes() == before


def test_answers_have_limits(indexed):
    _, long, callers, too_many, same = ask(
        ("symbol", {"name": "very_long"}),
        ("callers", {"name": "helper"}),
        ("search", {"text": "user", "limit": 1000}),
        ("symbol", {"name": "Same"}),
    )
    (symbol,) = long["symbols"]
    assert (len(symbol["text"]), "read the rest in the file" in symbol["text_cut"]) == (MAX_TEXT_CHARACTERS, True)
    (helper,) = callers["symbols"]
    assert (len(helper["callers"]), helper["more"]) == (MAX_CALLS, 20)
    assert "less than or equal to 50" in too_many
    assert {one["qualified_name"] for one in same["symbols"]} == {"Same", "T.Same"}


def test_a_long_page_is_read_in_parts(indexed):
    parts, start = [], 0
    while start is not None:
        _, part = ask(("page", {"path": "store/many.py", "first_character": start}))
        parts.append(part["text"])
        start = part.get("next_character")
    assert len(parts) > 1
    assert "".join(parts) == (indexed / "rotary-docs/store/many.py.md").read_text()


def test_questions_that_have_no_answer_say_what_to_do(indexed):
    _, *answers = ask(
        ("symbol", {"name": "put_o"}),
        ("symbol", {"name": "put_on", "path": "store/many.py"}),
        ("page", {"path": "../../etc/passwd"}),
        ("page", {"path": "store/gone.py"}),
        ("search", {"text": "x", "repository": "nowhere"}),
        ("search", {"text": "<<"}),
    )
    words = ["look for it with search", "in store/many.py", "no page about that", "no page about that",
             "there are: stock", "give a word"]  # fmt: skip
    assert [word for word, answer in zip(words, answers, strict=True) if word not in answer] == []


def test_text_comes_from_the_commit_and_never_through_a_link(indexed, make_repository, tmp_path):
    """Of a working tree, only from a file that is still what was parsed."""
    (tmp_path / "secret").write_text("def put_on():\n    password\n")
    (indexed / "store/shelf.py").unlink()
    (indexed / "store/shelf.py").symlink_to(tmp_path / "secret")
    (indexed / "rotary-docs/store/shelf.py.md").unlink()
    (indexed / "rotary-docs/store/shelf.py.md").symlink_to(tmp_path / "secret")
    work = make_repository({"w.py": "def in_work():\n    return 1\n"}, "work")
    run("index", work, "--worktree")
    (work / "w.py").unlink()
    (work / "w.py").symlink_to(tmp_path / "secret")
    _, committed, from_disk, page = ask(
        ("symbol", {"name": "put_on"}), ("symbol", {"name": "in_work"}), ("page", {"path": "store/shelf.py"})
    )
    assert committed["symbols"][0]["text"].endswith("return weigh(thing)")
    assert from_disk["symbols"][0]["text"] is None
    assert "changed since it was indexed" in from_disk["symbols"][0]["text_missing"]
    assert "password" not in json.dumps([committed, from_disk, page])


def test_invisible_characters_are_shown_to_the_agent(make_repository):
    root = make_repository({"e.py": 'def sly():\n    """Say \u202ehi\u200b \x1b[31m."""\n    return "\u2066"\n'}, "sly")
    run("index", root)
    _, answer = ask(("symbol", {"name": "sly"}))
    assert not {"\u202e", "\u200b", "\u2066", "\x1b"} & set(answer["symbols"][0]["text"] + answer["symbols"][0]["docs"])
    assert "\\u2066" in answer["symbols"][0]["text"]


def test_a_server_that_cannot_start_says_why():
    command = [sys.executable, "-m", "rotary_batch", "mcp"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, "no database yet" in done.stderr, done.stdout) == (3, True, "")
    script = "import sys; sys.modules['mcp'] = None; from rotary_batch.cli import main; sys.argv[1:] = ['mcp']; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, "pip install 'rotary-batch[mcp]'" in done.stderr, done.stdout) == (69, True, "")
