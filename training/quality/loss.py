"""Teacher-forced loss: bits that a model needs for each byte of what the author wrote.

Knows token ids and logits; knows nothing of packs.  The stop token is part of an answer, its byte is not: a model has
to say where a sentence ends.  B = sequences, T = tokens of the longest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from transformers import MixtralForCausalLM

from rotary_batch.model.tokens import Tokenizer
from training.corpus import Example
from training.quality.mixture import Row

BATCH_TOKENS = 4096


class Bits(NamedTuple):
    """A loss over some answers."""

    bits: float
    num_answers: int
    num_bytes: int
    num_tokens: int

    @property
    def per_byte(self) -> float:
        """Bits per byte of docstring."""
        return self.bits / max(1, self.num_bytes)

    @property
    def nats_per_token(self) -> float:
        """The loss as training prints it."""
        return self.bits * math.log(2) / max(1, self.num_tokens)


def encode(examples: Iterable[Example], tokenizer: Tokenizer) -> Iterator[Row]:
    """The token ids of examples as the engine would read and write them."""
    stop = min(tokenizer.stop_ids)
    for example in examples:
        prompt = tokenizer.encode_chat(example.prompt) if example.prompt else []
        answer = [*tokenizer.encode(example.answer), stop]
        yield Row(example.task, np.array(prompt, np.int32), np.array(answer, np.int32))


@torch.inference_mode()
def answer_bits(model: MixtralForCausalLM, rows: Sequence[Row]) -> list[float]:
    """Bits of each row's answer given its prompt."""
    found = [0.0] * len(rows)
    for batch in _batches(rows):
        ids = torch.zeros(len(batch), max(_length(rows[place]) for place in batch), dtype=torch.long)  # [B, T]
        for line, place in zip(ids, batch, strict=True):
            row = rows[place]
            line[: _length(row)] = torch.from_numpy(row.whole)
        # Pads stand behind, where causal attention never looks from a real token.
        hidden = model.model(ids).last_hidden_state
        for line, place in zip(hidden, batch, strict=True):
            row = rows[place]
            logits = model.lm_head(line[len(row.prompt) - 1 : _length(row) - 1])
            answer = torch.from_numpy(row.answer).long()
            found[place] = F.cross_entropy(logits, answer, reduction="sum").item() / math.log(2)
    return found


def _length(row: Row) -> int:
    return len(row.prompt) + len(row.answer)


def _batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    batch: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: (_length(rows[place]), place)):
        if batch and (len(batch) + 1) * _length(rows[place]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def total(examples: Sequence[Example], rows: Sequence[Row], bits: Sequence[float]) -> Bits:
    """Add up."""
    num_bytes = sum(len(example.answer.encode()) for example in examples)
    return Bits(sum(bits), len(rows), num_bytes, sum(len(row.answer) for row in rows))
