"""Write docs/json.md: what each command prints with `--json`, from runs on a small repository.

    python docs/json_examples.py

A test compares the keys and types on the page with those of new runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

PAGE = Path(__file__).parent / "json.md"
SOURCES = {
    "shop/box.py": 'def put(thing):\n    """Put it in."""\n    return wrap(thing)\n\n\n'
    "def wrap(thing):\n    return [thing]\n",
    "notes.txt": "Hi\n",
    "rotary.toml": 'exclude = ["old/"]\n',
    "../in.jsonl": '{"custom_id": "a", "body": {"prompt": "abc", "max_tokens": 3}}\n',
}
# Objects whose keys are data.
MAPS = {"files", "items", "verdicts", "ended", "reasons", "settings", "open", "failed", "by_class", "nodes"}
_MAX_STRING = 120  # characters of a text on the page
_INTRODUCTION = """# Answers in JSON

Every command that prints an answer takes `--json`. Then stdout has one line: the answer, in ASCII. Progress, notes and
errors are on stderr, for a person. `inspect` prints one line for each row. Later versions may add keys, so ignore those
that you do not know.

`python docs/json_examples.py` writes this page from runs on a small repository, and a test compares keys and types with
the program. Long texts are cut here, and so are lists after two entries.

## Errors

A command that fails before it has an answer prints one line in its place. stderr has the same message, and the process
ends with the same exit code:

```json
{"error": {"message": "/home/me/new: not indexed yet; run `rotary-batch index /home/me/new` first", "exit_code": 3}}
```

A wrong command line does the same, with exit code 2. When `inspect` fails after some rows, the error is the last line.
A command for several repositories does what it can: its answer is a list, in which the repositories that failed have
the keys `repository`, `error` and `exit_code`. What the exit codes mean is in the [user guide](user-guide.md).
"""

_HERE = str(Path(__file__).resolve().parents[1])  # no page names the machine that wrote it


class Example(NamedTuple):
    """A command, what is said of its answer, and how it ends."""

    command: str
    words: str = ""
    codes: tuple[int, ...] = (0,)


EXAMPLES = (
    Example("index .", "A list with one object for each repository.", (3,)),
    Example("check .", "Page paths, by what is wrong with them."),
    Example("plan ."),
    Example("drain . --limit 1", "A list with one report for each model; see [Reports](reports.md).", (75,)),
    Example("report", "Its fields are described in [Reports](reports.md)."),
    Example(
        "status",
        "In `items`, `expected` counts parts of long files that will be queued later. While a run is under way, "
        "`running` has `command`, `model`, `started_at`, `progress`, `activity`, `drain_s` and `nodes`; the last two "
        "are as in a report.",
    ),
    Example("status --parked", "`by_class` counts the items of each class."),
    Example("render ."),
    Example("retry"),
    Example("search put"),
    Example("why shop/box.py#wrap"),
    Example("explain notes.txt"),
    Example("inspect files"),
    Example("inspect symbols"),
    Example("inspect chunks"),
    Example("inspect items --state ready"),
    Example("inspect graph"),
    Example("export --sqlite ../index.db"),
    Example("export --requests ../requests.jsonl", "One object for each file; `--shards` makes several."),
    Example("export --answers ../answers.jsonl"),
    Example("import ../answers.jsonl", "In `failed`, how many rows had no usable answer, by the reason."),
    Example("agents"),
    Example("trust"),
    Example("doctor", "A list with one object for each part.", (0, 69)),
    Example(
        "models gpt-oss-20b",
        "Without NAME a list; each then has `format`, the smallest of these, instead of `formats`.",
    ),
    Example("model info"),
    Example("model verify"),
    Example("generate ../in.jsonl -o ../out.jsonl"),
    Example(
        "verify .",
        "`state` is `agrees`, `differs`, `damaged` or `not judged`; `mend` says what to do.",
    ),
    Example("gc", "`nbytes` of rows is that of their content; `is_complete` is false when the time was too short."),
    Example("forget ."),
)


def answers(folder: Path) -> dict[str, Any]:
    """Command -> its answer, of `inspect` its first row, run one after the other in a new repository in a folder."""
    root = folder / "shop"
    for name, text in SOURCES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-C", str(root)]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    state = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("STATE", "CONFIG")}
    found = {}
    for example in EXAMPLES:
        arguments = [*example.command.split(), *(["../gone"] if example.command == "index ." else [])]
        done = subprocess.run(
            [sys.executable, "-m", "rotary_batch", *arguments, "--json"],
            cwd=root, env=os.environ | state, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode in example.codes, (example.command, done.returncode, done.stderr)
        lines = done.stdout.splitlines()
        assert len(lines) == 1 or (lines and example.command.startswith("inspect")), (example.command, done.stdout)
        found[example.command] = json.loads(lines[0])
    return found


def shape(value: Any, name: str = "") -> Any:  # noqa: ANN401 - JSON
    """The keys and types of an answer; None stands for a value that may be absent, and [] for a list of anything."""
    if isinstance(value, Mapping):
        if name in MAPS:
            return "object"
        return {key: shape(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if value is None:
        return None
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def is_alike(one: Any, other: Any) -> bool:  # noqa: ANN401 - shapes
    """Whether two shapes may be of the same kind of answer."""
    if one is None or other is None or one == other:
        return True
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return not one or not other or is_alike(one[0], other[0])
    return False


def shown_answers() -> dict[str, Any]:
    """Command -> its answer on the page."""
    blocks = re.findall(
        r"^## `rotary-batch ([^`]*) --json`\n.*?^```json\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return {command: json.loads(text) for command, text in blocks}


def _page(found: Mapping[str, Any], folder: Path) -> str:
    parts = [_INTRODUCTION]
    for example in EXAMPLES:
        text = (
            json.dumps(_cut(found[example.command]), indent=1)
            .replace(str(folder), "/home/me")
            .replace(_HERE, "/home/me/rotary-batch")
        )
        parts.append(f"## `rotary-batch {example.command} --json`\n")
        parts += [f"{example.words}\n"] if example.words else []
        parts.append(f"```json\n{text}\n```\n")
    return "\n".join(parts)


def _cut(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, str):
        return value if len(value) <= _MAX_STRING else value[:_MAX_STRING] + "…"
    if isinstance(value, list):
        return [_cut(inner) for inner in value[:2]]
    return {key: _cut(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        place = Path(name).resolve()
        os.environ["XDG_CACHE_HOME"] = str(place / "cache")  # a machine that was not measured
        os.environ["ROTARY_BATCH_YIELDS"] = "false"  # whoever else is on it
        PAGE.write_text(_page(answers(place), place))
