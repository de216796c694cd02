"""Train the embedded model: `python -m training.train --out training/out --steps N`.

Weights are kept in float32; products are bf16 on CUDA and on processors with AMX, else float32.  A checkpoint every
minute or so holds the weights, the optimiser and the loss of every step; what a step sees depends on the seed, the
step and the corpus alone, so a run that was killed goes on to the same losses, and one whose corpus or shape has
changed since is refused.  Rate: warm-up, constant, linear decay over the last 30 % of the steps, which see the target
tasks only.  Knows the loop; knows nothing of where examples come from.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rotary_batch.engine.runtime.memory import tune_malloc
from rotary_batch.model.tokens import Tokenizer
from training.batches import Batch, Order, Row, collate, encode
from training.corpus import Example, held_out_examples, training_examples
from training.model import Mixtral, Shape
from training.operators import product_dtype
from training.optimizer import Optimizer
from training.vocabulary import train_tokenizer

SEED = 20261125
BALANCE_WEIGHT = 0.01
TOKENIZER_EXAMPLES = 30_000
JUDGED_EXAMPLES = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast a run goes."""

    steps: int
    peak_rate: float = 4e-3
    warmup_steps: int = 60
    decay_share: float = 0.3
    last_rate_share: float = 0.02
    batch_tokens: int = 2048
    batches_per_step: int = 4
    steps_per_checkpoint: int = 60
    steps_per_line: int = 50
    steps_per_judgement: int = 200
    seed: int = SEED

    @property
    def first_decay_step(self) -> int:
        return round(self.steps * (1 - self.decay_share))

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = (self.steps - step) / (self.steps - self.first_decay_step)
        return self.peak_rate * min(1.0, (step + 1) / self.warmup_steps, max(self.last_rate_share, left))


class StepLoss(NamedTuple):
    """What a step's tokens cost before the step: all tokens by weight, answer tokens alone."""

    all: float
    answer: float


class _Part(NamedTuple):
    gradients: tuple[Tensor, ...]
    total: float
    answer: float
    loads: Tensor


@dataclass
class Run:
    """A model in training; `history` has the loss of every step so far, `work` the weights that products are made of.

    Two threads take the batches of a step, each with one-thread operators: on two busy cores that is faster than
    operators of two threads, which wait for each other.  Gradients are added in the order of the batches, so which
    thread took which changes no bit.
    """

    model: Mixtral
    order: Order
    plan: Plan
    out: Path
    judged: list[Row] = field(default_factory=list)
    source: str = ""  # what the rows were made of
    history: list[StepLoss] = field(default_factory=list)
    threads: int = 2

    def __post_init__(self) -> None:
        self.device = next(self.model.parameters()).device
        self.work = copy.deepcopy(self.model).to(product_dtype(self.device))
        self.workers = ThreadPoolExecutor(self.threads)
        self.optimizer = Optimizer(self.model)
        self._resume()

    def fit(self) -> None:
        """All steps that are left."""
        started, tokens = time.monotonic(), 0
        while len(self.history) < self.plan.steps:
            step = len(self.history)
            batches = self.order.step(step, self.plan.first_decay_step)
            loss, loads = self._step(batches, self.plan.rate(step))
            self.history.append(loss)
            tokens += sum(batch.ids.numel() for batch in batches)
            done = step + 1
            if done % self.plan.steps_per_checkpoint == 0 or done == self.plan.steps:
                self.save()
            if done % self.plan.steps_per_line == 0:
                _print(self._line(loads, tokens / (time.monotonic() - started)))
            if self.judged and (done % self.plan.steps_per_judgement == 0 or done == self.plan.steps):
                _print(f"step {done} held-out answer loss {self.judge():.4f}")

    def _step(self, batches: list[Batch], rate: float) -> tuple[StepLoss, Tensor]:
        """One move along the gradient of all batches, each token weighing the same in whichever batch it stands."""
        weight = sum(float(batch.weights.sum()) for batch in batches)
        answers = sum(int(batch.is_answer.sum()) for batch in batches)
        self._copy_weights()
        parts = list(self.workers.map(functools.partial(self._gradient, weight, len(batches)), batches))
        sums = self.workers.map(_sum, zip(*(part.gradients for part in parts), strict=True))
        for parameter, gradient in zip(self.model.parameters(), sums, strict=True):
            parameter.grad = gradient
        self.optimizer.step(rate, self.workers)
        total, answer = sum(part.total for part in parts), sum(part.answer for part in parts)
        return StepLoss(total / weight, answer / max(1, answers)), torch.stack([part.loads for part in parts]).mean(0)

    def _gradient(self, weight: float, num_batches: int, batch: Batch) -> _Part:
        loss, each, balance, loads = self._loss(batch)
        whole = loss / weight + BALANCE_WEIGHT / num_batches * balance
        gradients = torch.autograd.grad(whole, list(self.work.parameters()))
        answer = each[batch.is_answer.flatten().to(each.device)].sum()
        return _Part(gradients, float(loss.detach()), float(answer), loads)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weighted sum, each token's own loss, the balancing loss, loads [layers, E]."""
        ids, weights = batch.ids.to(self.device), batch.weights.to(self.device)
        hidden, balance, loads = self.work(ids[:, :-1])
        loss, each = self.work.head_loss(hidden.flatten(0, 1), ids[:, 1:].flatten(), weights.flatten())
        return loss, each, balance, loads

    @torch.no_grad()
    def _copy_weights(self) -> None:
        for mine, master in zip(self.work.parameters(), self.model.parameters(), strict=True):
            mine.copy_(master)

    @torch.no_grad()
    def judge(self) -> float:
        """Mean loss of the held-out answer tokens."""
        self._copy_weights()
        total, count = 0.0, 0
        for start in range(0, len(self.judged), 10):
            batch = collate(self.judged[start : start + 10])
            each = self._loss(batch)[1][batch.is_answer.flatten().to(self.device)]
            total, count = total + float(each.sum()), count + len(each)
        return total / count

    def _line(self, loads: Tensor, speed: float) -> str:
        recent = self.history[-self.plan.steps_per_line :]
        loss = sum(one.all for one in recent) / len(recent)
        answer = sum(one.answer for one in recent) / len(recent)
        load = " ".join(f"{layer.min():.3f}-{layer.max():.3f}" for layer in loads)
        return f"step {len(self.history)} loss {loss:.4f} answer {answer:.4f} tokens/s {speed:.0f} load {load}"

    def save(self) -> None:
        """Write the checkpoint so that a kill leaves the old one or the new one."""
        path = self.out / "checkpoint.pt"
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        with path.with_suffix(".tmp").open("wb") as file:
            torch.save(state | {"of": self._identity(), "history": [tuple(loss) for loss in self.history]}, file)
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".tmp").replace(path)

    def _identity(self) -> dict[str, object]:
        """What must be the same for a checkpoint to be this run's."""
        plan = asdict(self.plan)
        return {"source": self.source, "shape": asdict(self.model.shape), "plan": plan | {"steps": None}}

    def _resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if path.is_file():
            state = torch.load(path, weights_only=True, map_location=self.device)
            if state.get("of") != self._identity():
                raise SystemExit(f"{path}: of another corpus, shape or plan; move it away to begin anew")
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history = [StepLoss(*loss) for loss in state["history"]]


def _sum(gradients: tuple[Tensor, ...]) -> Tensor:
    """In float32 and in their order."""
    return functools.reduce(Tensor.add_, gradients[1:], gradients[0].float().clone())


def new_model(shape: Shape, seed: int) -> Mixtral:
    """Seeded weights, on the device where there is one."""
    torch.manual_seed(seed)
    return Mixtral(shape).to("cuda" if torch.cuda.is_available() else "cpu")


def open_tokenizer(out: Path, examples: list[Example], vocab_size: int) -> Tokenizer:
    """The tokenizer of the folder; learnt from every so many examples when it has none."""
    if (out / "tokenizer_config.json").is_file():
        return Tokenizer.load(out)
    return train_tokenizer(_texts(examples[:: max(1, len(examples) // TOKENIZER_EXAMPLES)]), out, vocab_size)


def _texts(examples: list[Example]) -> Iterator[str]:
    for example in examples:
        yield example.prompt
        yield example.answer


def judged_rows(tokenizer: Tokenizer) -> list[Row]:
    """A fixed spread of held-out symbols, shortest first so that batches hold little padding."""
    rows = encode([example for example in held_out_examples() if example.task == "symbol"], tokenizer)
    return sorted(rows[:: max(1, len(rows) // JUDGED_EXAMPLES)], key=lambda row: len(row.ids))


def _digest(rows: list[Row]) -> str:
    """Of what a step can see; the code that made it may have been written otherwise since."""
    found = hashlib.sha256()
    for row in rows:
        found.update(row.ids.tobytes() + f" {row.num_prompt} {row.task} ".encode())
    return found.hexdigest()


def _print(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    """Build or load the corpus, train, go on from a checkpoint where there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    for name, value in (("layers", Shape.num_layers), ("intermediate", Shape.intermediate_size)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rate", type=float, default=Plan(steps=1).peak_rate)
    arguments = parser.parse_args()
    tune_malloc()
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")  # a kernel for every shape; 1,024 by itself
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    shape = replace(Shape(), num_layers=arguments.layers, intermediate_size=arguments.intermediate)
    examples = training_examples()
    tokenizer = open_tokenizer(arguments.out, examples, shape.vocab_size)
    rows, judged = encode(examples, tokenizer), judged_rows(tokenizer)
    _print(f"{len(rows)} examples, {sum(len(row.ids) for row in rows):,} tokens; judged by {len(judged)}")
    plan = Plan(steps=arguments.steps, peak_rate=arguments.rate)
    order = Order(rows, plan.seed, plan.batch_tokens, plan.batches_per_step)
    source = f"rows {_digest(rows)}, tokenizer {tokenizer.digest}"
    Run(new_model(shape, plan.seed), order, plan, arguments.out, judged, source, threads=arguments.threads).fit()


if __name__ == "__main__":
    main()
