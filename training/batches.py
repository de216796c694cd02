"""Examples as token ids, and which of them a step sees: a pure function of the seed and the step.

A step is a few small batches, each of examples of like length, so that little is padding; the batches come in a
seeded order, so that a step mixes lengths and with them tasks.  Knows tokens and order; knows nothing of the model.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rotary_batch.model.tokens import Tokenizer
from training.corpus import Example

MAX_TOKENS = 1024
TARGET_TASKS = ("symbol", "file", "directory", "name")  # what the decay of the rate is spent on
_LENGTH_MULTIPLE = 16  # few lengths: oneDNN compiles its kernels for each
READ_WEIGHT = 0.2  # of a token that is read, beside 1 for a token of an answer


class Row(NamedTuple):
    """One example: its tokens, and how many of them are prompt (all of a plain text are)."""

    ids: NDArray[np.uint16]
    num_prompt: int
    task: str


def encode(examples: Sequence[Example], tokenizer: Tokenizer) -> list[Row]:
    """Token ids of prompt, answer and stop; what exceeds the context is left out, a plain text is cut."""
    stop = min(tokenizer.stop_ids)
    begin = tokenizer.encode_chat("")[0]
    rows = []
    for example in examples:
        answer = tokenizer.encode(example.answer)
        if example.task == "text":
            ids = [begin, *answer][:MAX_TOKENS]
            rows.append(Row(np.array(ids, dtype=np.uint16), len(ids), example.task))
            continue
        prompt = tokenizer.encode_chat(example.prompt)
        ids = [*prompt, *answer, stop]
        if len(ids) <= MAX_TOKENS:
            rows.append(Row(np.array(ids, dtype=np.uint16), len(prompt), example.task))
    return rows


class Batch(NamedTuple):
    """Token ids [B, T + 1], the loss weight of every next token [B, T], and which are tokens of an answer."""

    ids: torch.Tensor
    weights: torch.Tensor
    is_answer: torch.Tensor


def collate(rows: Sequence[Row]) -> Batch:
    length = 1 + -(-(max(len(row.ids) for row in rows) - 1) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    weights = torch.zeros(len(rows), length - 1)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.from_numpy(row.ids.astype(np.int64))
        weights[place, : row.num_prompt - 1] = READ_WEIGHT
        weights[place, row.num_prompt - 1 : len(row.ids) - 1] = 1.0
    return Batch(ids, weights, weights == 1.0)


@dataclass(frozen=True, eq=False)
class Order:
    """The order of all steps.  The last `decay_steps` see the target tasks only."""

    rows: Sequence[Row]
    seed: int
    batch_tokens: int  # of one small batch, padding included
    batches_per_step: int

    def step(self, step: int, first_decay_step: int) -> list[Batch]:
        """The batches of a step."""
        is_decay = step >= first_decay_step
        start = (step - first_decay_step if is_decay else step) * self.batches_per_step
        return [self._batch(start + place, is_decay=is_decay) for place in range(self.batches_per_step)]

    def _batch(self, number: int, *, is_decay: bool) -> Batch:
        size = len(self._epoch(0, is_decay))
        epoch = self._epoch(number // size, is_decay)
        return collate([self.rows[index] for index in epoch[number % size]])

    @functools.lru_cache(maxsize=6)  # noqa: B019  one order a process
    def _epoch(self, epoch: int, is_decay: bool) -> list[list[int]]:  # noqa: FBT001
        """One pass over the rows, the same number of batches in every epoch."""
        generator = random.Random(f"{self.seed} {epoch} {is_decay}")
        chosen = [n for n, row in enumerate(self.rows) if not is_decay or row.task in TARGET_TASKS]
        generator.shuffle(chosen)
        chosen.sort(key=lambda n: len(self.rows[n].ids))  # stable: equal lengths stay shuffled
        found: list[list[int]] = [[]]
        for index in chosen:
            if found[-1] and (len(found[-1]) + 1) * len(self.rows[index].ids) > self.batch_tokens:
                found.append([])
            found[-1].append(index)
        generator.shuffle(found)
        return found
