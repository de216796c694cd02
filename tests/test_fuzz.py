"""Damaged input of every format: it is read, or refused by one of our errors; nothing else, and never for long.

`make fuzz` makes 10,000 mutations of each format; the default suite the first few.  A failure names the mutation,
and the same seed makes it again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rotary_batch.errors import RotaryError
from rotary_batch.repo.files import classify
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.languages import LANGUAGES
from tests.fuzz.formats import TREE_NAMES, Format, formats, odd_tree
from tests.fuzz.mutation import mutated

NUM_MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "100"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
NAMES_A_TREE = 200
LIMIT_S = 60  # for one file of at most 64 KB; a hundred times what it takes
NAMES = (
    *(f"source {name}" for name in LANGUAGES),
    "rotary.toml",
    "job",
    "prompt",
    "requests",
    "results",
    "answers",
    "config.json",
    "quantization_config",
    "manifest.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "safetensors",
    "gguf",
    "shard index",
    "rates",
    "ignore file",
    "database",
    "page",
)


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> dict[str, Format]:
    return formats(tmp_path_factory.mktemp("formats"))


@pytest.fixture
def limited():
    """End what computes for too long, however busy the machine is."""

    def expired(*_: object) -> None:
        raise AssertionError(f"took more than {LIMIT_S} s")

    before = signal.signal(signal.SIGPROF, expired)
    yield lambda: signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", NAMES)
def test_damaged_input_is_read_or_refused(known, name, tmp_path, limited):
    assert known.keys() == set(NAMES)
    target, refused, found = known[name], 0, []
    for number in range(FIRST, FIRST + NUM_MUTATIONS):
        path = tmp_path / target.name
        path.unlink(missing_ok=True)  # a link to a whole file from the round before
        path.write_bytes(mutated(target.seeds, name, number))
        limited()
        try:
            target.read(path)
        except RotaryError as error:
            refused += 1
            if not str(error) or len(str(error)) > 4000:
                found.append(f"{name} {number}: a message of {len(str(error))} characters")
        except Exception as error:  # noqa: BLE001 - all that is found is told at once
            found.append(f"{name} {number}: {type(error).__name__}: {str(error)[:200]}")
    assert found == []
    if not name.startswith("source") and name not in {"requests", "rates", "ignore file", "page"}:
        assert refused, "no mutation did any harm"


@pytest.mark.timeout(7200)
def test_trees_of_odd_names(tmp_path, limited):
    for number in range(FIRST // NAMES_A_TREE, (FIRST + NUM_MUTATIONS) // NAMES_A_TREE + 1):
        root = tmp_path / str(number)
        odd_tree(root, [mutated(TREE_NAMES, "tree", number * NAMES_A_TREE + n)[:300] for n in range(NAMES_A_TREE)])
        limited()
        files = classify(open_repository(root), docs_dir="rotary-docs")
        assert len({file.path for file in files}) == len(files) > 0


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("rotary.toml", "status --config FILE"),
        ("manifest.json", "model info FOLDER"),
        ("config.json", "model pack FOLDER NEW"),
        ("database", "status --db FILE"),
    ],
)
def test_the_command_line_says_it_in_lines(known, name, arguments, tmp_path):
    for number in range(max(1, NUM_MUTATIONS // 1000)):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / known[name].name
        path.write_bytes(mutated(known[name].seeds, f"cli {name}", number))
        words = {"FILE": str(path), "FOLDER": str(folder), "NEW": str(tmp_path / "new")}
        command = [sys.executable, "-m", "rotary_batch", *(words.get(word, word) for word in arguments.split())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parent)
        assert done.returncode in {0, 2, 3, 74}, done.stderr
        assert "Traceback" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr
