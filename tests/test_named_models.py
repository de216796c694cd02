"""Models by name: their sizes are those of `transformers`, and every figure of `models` and `plan --model` follows."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from typer.testing import CliRunner

from rotary_batch.cli import app
from rotary_batch.errors import ModelError
from rotary_batch.model.known_models import BITS, known_models
from rotary_batch.model.rates import Rates, rates_path, save_rates

ROOT = Path(__file__).parent.parent
RATES = Rates(
    machine="of a test",
    device="cuda",
    device_memory_nbytes=24 * 10**9,
    activation_nbytes=2,
    move_nbytes_per_s=25e9,
    disk_nbytes_per_s=5e9,
    memory_nbytes_per_s=900e9,
    attention_nbytes_per_s={"bf16": 800e9, "int8": 800e9},
    weight_s={name: [(1, 1e-12), (1024, 2e-11)] for name in ("bf16", "int8", "int4")},
    measured_at=1.8e9,
    probed_at=1.8e9,
)
# Classes whose default configuration is, in all that decides a size, the model of this name; and what is not.
DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "mixtral-8x7b": ("Mixtral", {}),
    "qwen3.6-35b-a3b": ("Qwen3_5MoeText", {}),
    "qwen3-next-80b": ("Qwen3Next", {}),
    "qwen3-coder-30b": ("Qwen3Moe", {"num_hidden_layers": 48, "head_dim": 128}),
    "gpt-oss-120b": ("GptOss", {}),
    "glm-4.5-air": ("Glm4Moe", {"head_dim": 128, "attention_bias": True}),
    "glm-4.7-flash": ("Glm4MoeLite", {}),
    "deepseek-v3": ("DeepseekV3", {}),
    "phi-3.5-moe": ("Phimoe", {"attention_bias": True, "lm_head_bias": True}),
    "ernie-4.5-21b-a3b": ("Ernie4_5_Moe", {}),
    "minimax-m2.5": ("MiniMaxM2", {}),
    "olmoe-1b-7b": ("Olmoe", {"intermediate_size": 1024}),
}


@pytest.fixture
def rated():
    """A machine whose rates were measured."""
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "rotary-batch"
    save_rates(RATES, rates_path("cuda", cache))


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, (arguments, done.output, done.exception)
    return done.stdout


def answer(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_known_model_has_as_many_parameters_as_transformers_gives_it(name):
    model, (stem, differing) = known_models()[name], DEFAULTS[name]
    config = getattr(transformers, f"{stem}Config")(**differing)
    cls = getattr(transformers, f"{stem.removesuffix('Text')}ForCausalLM")
    with torch.device("meta"):
        theirs = cls(config)
    biases = [one for name, one in theirs.named_buffers() if name.endswith("e_score_correction_bias")]
    assert model.num_params == sum(one.numel() for one in (*theirs.parameters(), *biases))


def test_every_known_model_is_complete_and_named_as_it_is_typed():
    for name, model in known_models().items():
        assert name == model.name == name.lower()
        assert set(model.formats) <= BITS.keys()
        assert [BITS[one] for one in model.formats] == sorted((BITS[one] for one in model.formats), reverse=True)
        assert model.repository.count("/") == 1
        assert model.num_active_params < model.num_params


def test_models_are_listed_with_sizes_and_the_command_that_gets_them(rated):
    listed = {one["name"]: one for one in answer("models", "--device", "cuda", "--host-memory", "8GB")}
    assert listed.keys() == known_models().keys()
    one = listed["qwen3-coder-30b"]
    assert one["download"] == ("hf download Qwen/Qwen3-Coder-30B-A3B-Instruct --local-dir Qwen3-Coder-30B-A3B-Instruct")
    assert (one["params"], one["is_opened"], one["licence"]) == (30_532_122_624, True, "Apache-2.0")
    size, here = one["format"], one["format"]["here"]
    assert size["experts_nbytes"] == 48 * 128 * size["expert_nbytes"]
    assert here["decode_tokens_per_s"] > 0
    assert here["binding"] in {"compute", "moving experts", "reading the disk"}
    assert "needs 3" in listed["glm-4.7"]["format"]["here"]["does_not_fit"], "its dense part is larger than the card"
    assert "qwen3-coder-30b" in run("models", "--device", "cuda")


def test_one_model_is_shown_in_each_of_its_formats(rated):
    one = answer("models", "gpt-oss-20b", "--device", "cuda")
    assert [size["experts"] for size in one["formats"]] == ["mxfp4"]
    assert answer("models", "OpenAI/gpt-oss-20b", "--device", "cuda") == one
    shown = run("models", "qwen3-next-80b", "--device", "cuda")
    assert "hf download Qwen/Qwen3-Next-80B-A3B-Instruct --local-dir Qwen3-Next-80B-A3B-Instruct" in shown
    assert "state of a sequence" in shown
    assert all(f"{name} experts on cuda" in shown for name in ("bf16", "fp8", "Q4_K_M"))


def test_without_rates_the_command_that_measures_is_named():
    assert "run `rotary-batch bench --machine --device cuda` once" in " ".join(
        run("models", "--device", "cuda").split()
    )


def test_an_unknown_name_is_answered_with_the_nearest(make_repository):
    done = CliRunner().invoke(app, ["models", "qwen3-codr-30b"])
    assert isinstance(done.exception, ModelError)
    assert str(done.exception) == "qwen3-codr-30b: no such model; did you mean 'qwen3-coder-30b'?"
    run("index", make_repository({"a.py": "def f():\n    return 1\n"}))
    done = CliRunner().invoke(app, ["plan", "--model", "nothing-like-it"])
    assert "or name one that `rotary-batch models` lists" in str(done.exception)


def test_plan_says_how_long_another_model_takes_for_the_queue(rated, make_repository, tiny_checkpoint):
    root = make_repository({f"m{n}.py": f"def f{n}():\n    return {n}\n" for n in range(3)})
    run("index", root)
    mine = answer("plan", root, "--device", "cuda")
    other = answer("plan", root, "--device", "cuda", "--model", "qwen3-coder-30b")
    assert other["repositories"] == mine["repositories"]
    (model,) = other["models"]
    assert (model["model"], model["items"]) == ("qwen3-coder-30b", mine["models"][0]["items"])
    assert model["hours"] > 0
    (packed,) = answer("plan", root, "--device", "cuda", "--model", tiny_checkpoint)["models"]
    assert (packed["model"], packed["items"]) == (tiny_checkpoint.name, model["items"])
    assert answer("plan", root, "--device", "cuda") == mine, "nothing is changed"


def test_the_table_in_the_readme_is_what_the_planner_computes():
    script = runpy.run_path(str(ROOT / "docs" / "named_plans.py"))
    assert script["text"]() in (ROOT / "README.md").read_text(encoding="utf-8")
