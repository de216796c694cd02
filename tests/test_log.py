"""The log: every event of the program is listed and documented, with its fields."""

from __future__ import annotations

import ast
import json
from collections import defaultdict
from pathlib import Path

from rotary_batch import log
from rotary_batch.log import EVENTS

ROOT = Path(__file__).parent.parent


def logged() -> dict[str, set[str]]:
    """Event -> fields, of every call of `event` in the package."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "rotary_batch").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "event":
                assert isinstance(node.args[0], ast.Constant), f"{path}: an event is named by a literal"
                found[node.args[0].value] |= {word.arg for word in node.keywords if word.arg}
    return dict(found)


def table_row(name: str) -> str:
    text, fields = EVENTS[name]
    return f"| `{name}` | {text} | {', '.join(f'`{field}`' for field in fields)} |"


def test_every_event_is_listed_with_its_fields():
    listed = {name: set(fields) for name, (_, fields) in EVENTS.items()}
    assert logged() | {"repository failed": listed["repository failed"]} == listed
    assert list(EVENTS) == sorted(EVENTS)


def test_every_event_is_documented():
    rows = [line for line in (ROOT / "docs" / "log.md").read_text().splitlines() if line.startswith("| `")]
    assert rows == [table_row(name) for name in EVENTS]


def test_a_line_is_one_object_of_ascii(tmp_path):
    path = tmp_path / "logs" / "log.jsonl"
    log.log_to(path)
    handler = log._LOGGER.handlers[-1]
    try:
        log.event("item failed", item=1, error="a\nb\x1b[2J\x7f\u202e\ud800", parked=True)
    finally:
        log._LOGGER.removeHandler(handler)
        handler.close()
    (line,) = path.read_bytes().splitlines()
    assert line.isascii()
    assert not any(byte < 32 or byte == 127 for byte in line)
    entry = json.loads(line)
    assert (entry["event"], entry["item"], entry["error"]) == ("item failed", 1, "a\nb\x1b[2J\x7f\u202e\ud800")
