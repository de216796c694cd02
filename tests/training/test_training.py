"""A run that is killed goes on to the very losses of one that is not; what is trained is what is published."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.batches import MAX_TOKENS, Order, Row, collate
from training.model import Mixtral, Shape
from training.optimizer import Optimizer, orthogonal
from training.train import Plan, Run, StepLoss, new_model

SHAPE = Shape(vocab_size=64, hidden_size=32, intermediate_size=16, num_layers=2, num_heads=2, num_kv_heads=1)
PLAN = Plan(steps=36, warmup_steps=4, batch_tokens=256, batches_per_step=2, steps_per_checkpoint=3)
ROOT = Path(__file__).parents[2]


def rows(count: int = 200) -> list[Row]:
    """Examples that count upwards: something to learn."""
    generator = np.random.default_rng(7)
    found = []
    for place in range(count):
        length, first = int(generator.integers(6, 60)), int(generator.integers(4, 40))
        ids = (first + np.arange(length) * 3) % 60 + 4
        found.append(Row(ids.astype(np.uint16), length // 2, ("symbol", "text", "name")[place % 3]))
    return found


def run(out: Path, plan: Plan = PLAN, source: str = "numbers") -> Run:
    """A tiny run in a folder, with what it has there."""
    torch.set_num_threads(1)
    order = Order(rows(), plan.seed, plan.batch_tokens, plan.batches_per_step)
    return Run(new_model(SHAPE, plan.seed), order, plan, out, source=source)


def test_a_killed_run_goes_on_to_the_same_losses(tmp_path):
    """Same seed, same order: every one of the losses and every weight is equal to the bit."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    undisturbed = run(whole)
    undisturbed.fit()
    child = subprocess.run(
        [sys.executable, __file__, str(killed), "20"], env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT
    )
    assert child.returncode == -signal.SIGKILL
    resumed = run(killed)
    assert len(resumed.history) == 18, "the last checkpoint before step 20"

    resumed.fit()

    assert undisturbed.history == resumed.history
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_losses_fall(tmp_path):
    history = (only := run(tmp_path), only.fit())[0].history
    assert isinstance(history[0], StepLoss)
    assert history[-1].answer < history[0].answer - 0.3


def test_the_order_is_a_function_of_seed_and_step():
    first, again = (Order(rows(), 5, 256, 2) for _ in range(2))
    far = first.step(500, 10**6)
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(far, again.step(500, 10**6), strict=True))


def test_an_epoch_shows_every_row_once_and_the_decay_the_target_tasks_only():
    order = Order(rows(), 5, 256, 2)
    everything = sorted(index for batch in order._epoch(3, False) for index in batch)
    targets = sorted(index for batch in order._epoch(3, True) for index in batch)
    assert everything == list(range(200))
    assert targets == [index for index, row in enumerate(order.rows) if row.task != "text"]
    assert max(size * longest for size, longest in shapes(order)) <= 256
    assert SHAPE.max_position == MAX_TOKENS


def shapes(order: Order) -> list[tuple[int, int]]:
    """Rows and longest row of the batches of an epoch."""
    lengths = [[len(order.rows[index].ids) for index in batch] for batch in order._epoch(0, False)]
    return [(len(batch), max(batch)) for batch in lengths]


def test_a_batch_is_padded_to_few_lengths():
    batch = collate(
        [Row(np.arange(1, 20, dtype=np.uint16), 5, "symbol"), Row(np.arange(1, 8, dtype=np.uint16), 3, "name")]
    )
    assert batch.ids.shape == (2, 33), "32 tokens and the one that the last of them predicts"
    assert batch.ids[0, :19].tolist() == list(range(1, 20))
    assert not batch.ids[0, 19:].any()
    assert not batch.weights[0, 18:].any()
    assert batch.is_answer.nonzero().tolist() == [[0, n] for n in range(4, 18)] + [[1, n] for n in range(2, 6)]


def test_the_rate_warms_up_stays_and_decays():
    plan = replace(PLAN, steps=100, warmup_steps=10, peak_rate=1.0)
    assert [round(plan.rate(step), 2) for step in (0, 9, 50, 70, 85, 99)] == [0.1, 1.0, 1.0, 1.0, 0.5, 0.03]


def test_orthogonal_makes_singular_values_about_one():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(11, 16, 24)).float())
    assert 0.6 < float(values.min()) < float(values.max()) < 1.3


def test_every_matrix_has_an_optimiser():
    model = Mixtral(SHAPE)
    held = Optimizer(model)
    others = sum(parameter.numel() for group in held._others.param_groups for parameter in group["params"])
    inside = sum(parameter.numel() for parameter in held._matrices.values())
    assert inside + others == sum(parameter.numel() for parameter in model.parameters())


def test_a_checkpoint_of_another_shape_or_corpus_is_refused(tmp_path):
    short = replace(PLAN, steps=3)
    run(tmp_path, short).fit()
    assert len(run(tmp_path, PLAN).history) == 3, "another number of steps is no other run"
    with pytest.raises(SystemExit, match="another corpus, shape or plan"):
        run(tmp_path, replace(PLAN, peak_rate=1.0))
    with pytest.raises(SystemExit, match="another corpus, shape or plan"):
        run(tmp_path, PLAN, source="other words")


def kill_after(step: int, training: Run) -> None:
    """SIGKILL in the middle of a step."""
    inner = training._gradient

    def gradient(*arguments):
        if len(training.history) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments)

    training._gradient = gradient
    training.fit()


if __name__ == "__main__":
    kill_after(int(sys.argv[2]), run(Path(sys.argv[1])))
