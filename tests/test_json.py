"""With `--json` stdout has the answer or the error, in the documented form, and nothing else."""

from __future__ import annotations

import importlib.util
import inspect
import json
from pathlib import Path

import pytest
from test_cli import answer, rotary

from rotary_batch.cli import COMMANDS, MODEL_COMMANDS

PAGE = Path(__file__).parent.parent / "docs" / "json_examples.py"


def load_examples():
    spec = importlib.util.spec_from_file_location("json_examples", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_but_the_server_has_json():
    commands = [command for group in COMMANDS.values() for command in group] + list(MODEL_COMMANDS)
    without = {command.__name__ for command in commands if "json" not in inspect.signature(command).parameters}
    assert without == {"mcp"}


def test_the_documented_answers_have_the_keys_and_types_of_real_ones(tmp_path):
    examples = load_examples()
    shown, found = examples.shown_answers(), examples.answers(tmp_path)
    assert shown.keys() == found.keys()
    for command, real in found.items():
        one, other = examples.shape(shown[command]), examples.shape(real)
        assert examples.is_alike(one, other), f"{command}: run `python docs/json_examples.py`\n{one}\n{other}"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["status"], 3, "no database yet"),
        (["index", "/nowhere/at/all", "--db", "/proc/nothing/work.db"], 74, "/proc/nothing"),
        (["drain", "--until", "25:99"], 2, "25:99"),
        (["index", "--no-such-flag"], 2, "no such option"),
        (["no-such-command"], 2, "no-such-command"),
        (["inspect", "files", "--state", "parked"], 2, "only items have a state"),
        (["model", "info", "/nowhere"], 3, "/nowhere"),
        (["generate", "/nowhere.jsonl", "-o", "out.jsonl"], 3, "/nowhere.jsonl"),
    ],
)
def test_an_error_is_one_line_of_json_and_one_for_a_person(arguments, code, words, make_repository):
    done = rotary(*arguments, "--json", cwd=make_repository({"a.py": "x = 1\n"}))
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["exit_code"], words in error["message"]) == (code, code, True), done.stdout
    assert " ".join(error["message"].split()) in " ".join(done.stderr.split())


def test_an_error_after_the_answer_is_not_a_second_line(tmp_path, tiny_pack):
    damaged = tmp_path / "pack"
    damaged.mkdir()
    for file in tiny_pack.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    with (damaged / "experts.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff\xff")
    assert answer("model", "verify", damaged, code=3)["damaged"] == ["experts.safetensors: layer 0 expert 0"]


def test_items_by_state_and_tables_for_a_person(make_repository):
    root = make_repository({"a.py": "def f():\n    return 1\n"})
    answer("index", root)
    rows = [json.loads(line) for line in rotary("inspect", "items", root, "--state", "ready").stdout.splitlines()]
    assert {row["state"] for row in rows} == {"ready"}
    assert rotary("inspect", "items", root, "--state", "parked").stdout == ""
    plain = rotary("inspect", "items", root)
    assert (plain.stdout, plain.returncode) == (rotary("inspect", "items", root, "--json").stdout, 0)
    for kind in ("files", "symbols", "chunks", "items"):
        lines = rotary("inspect", kind, root, "--table").stdout.splitlines()
        assert "a.py" in " ".join(lines[1:]), kind
    assert rotary("inspect", "files", root, "--table", "--json").returncode == 2
