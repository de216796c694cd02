"""What needs no model works without the libraries of the extra `[engine]`; what needs one says what to install."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rotary_batch.errors import ENGINE_LIBRARIES
from tests.without_engine import hide_engine

FILES = {"src/a.py": 'def add(a, b):\n    """Adds."""\n    return a + b\n\n\ndef twice(a):\n    return add(a, a)\n'}
MISSING = "torch is not installed, and the model needs it; run `pip install 'rotary-batch[engine]'`"


@pytest.fixture
def bare(tmp_path):
    """Run the program where the libraries cannot be found."""
    environment = os.environ | hide_engine(tmp_path / "hide")

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)

    return run


def test_the_hidden_libraries_are_those_of_the_extra():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=]", one)[0] for one in project["optional-dependencies"]["engine"]}
    assert names == set(ENGINE_LIBRARIES)
    assert not names & {re.split(r"[<>=]", one)[0] for one in project["dependencies"]}


def test_everything_that_needs_no_model_works_without_the_engine(make_repository, tmp_path, bare):
    root = make_repository(FILES)
    done = bare("index", root)
    assert done.returncode == 0, done.stderr
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    assert bare("export", "--requests", requests).returncode == 0
    choice = {"index": 0, "text": " Adds both.", "finish_reason": "stop", "logprobs": {"token_logprobs": [-0.1]}}
    response = {"status_code": 200, "body": {"model": "m", "choices": [choice]}}
    with requests.open() as asked, results.open("w") as given:
        for line in asked:
            row = {"custom_id": json.loads(line)["custom_id"], "response": response, "error": None}
            given.write(json.dumps(row) + "\n")
    done = bare("import", results, "--json")
    assert (done.returncode, json.loads(done.stdout)["stored"]) == (0, 1), done.stderr
    refused = bare("drain", root)
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (69, f"rotary-batch: {root}: {MISSING}")
    for command in (
        ["status"], ["report"], ["search", "add"], ["jobs", "list"], ["plan", root], ["why", "src/a.py", root],
        ["inspect", "items", root], ["render", root], ["check", root], ["explain", "src/a.py", root], ["retry"],
        ["site", root], ["export", "--sqlite", tmp_path / "code.db"], ["docstrings", root], ["agents", root],
        ["models"], ["model", "info"], ["config", "show"], ["index", root, "--dry-run"], ["verify"], ["gc"],
        ["forget", root],
    ):  # fmt: skip
        done = bare(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert (root / "rotary-site" / "index.html").exists()


def test_what_needs_the_model_says_what_to_install(make_repository, tmp_path, tiny_checkpoint, bare):
    root, requests = make_repository(FILES), tmp_path / "in.jsonl"
    requests.write_text('{"custom_id": "1", "body": {"prompt": "def f(): ", "max_tokens": 4}}\n')
    for command in (
        ["run", root], ["generate", requests, "-o", tmp_path / "out.jsonl"], ["bench"], ["bench", "--machine"],
        ["model", "pack", tiny_checkpoint, tmp_path / "pack"], ["index", root, "--model", tiny_checkpoint],
    ):  # fmt: skip
        done = bare(*command)
        last = re.sub(r"(numpy|safetensors) is not", "torch is not", done.stderr.splitlines()[-1])
        assert (done.returncode, last.endswith(MISSING)) == (69, True), (command, done.stderr)
    assert not (root / "rotary-docs").exists()  # it is said before anything is read


def test_doctor_says_what_works_without_the_engine(bare):
    done = bare("doctor", "--json")
    assert done.returncode == 69
    assert "it, numpy or safetensors is not installed" in done.stdout
    assert "its kernels are part of the engine, which is not installed" in done.stdout
