"""Rows to train on: the ids of a prompt and of all its answers, which each see the prompt and themselves.

A row's answers begin with an opening, which is not learnt, and end with the token that ends the assistant's turn.
Knows arrays; knows nothing of where the text came from.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_WINDOW_ROWS = 2048  # of which rows of one length are put together
_MULTIPLE = 64  # of the tokens of a row in a batch: few shapes, and masks that are aligned


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids; `openings` and `lengths` are of each answer, the opening counted in its length."""

    prompt: np.ndarray
    answers: tuple[np.ndarray, ...]
    openings: tuple[int, ...]

    @property
    def num_tokens(self) -> int:
        """Of the prompt and all answers."""
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows side by side, padded at the right."""

    ids: Tensor  # [batch, tokens]
    positions: Tensor  # [batch, tokens]
    segments: Tensor  # [batch, tokens]: 0 = prompt, n = the n-th answer, -1 = padding
    sources: Tensor  # flat indices of the tokens before those that are learnt
    targets: Tensor  # the ids that are learnt

    @property
    def num_tokens(self) -> int:
        """Without padding."""
        return int((self.segments >= 0).sum())

    def to(self, device: torch.device) -> Batch:
        """On another device."""
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__slots__))

    def mask(self, dtype: torch.dtype) -> Tensor:
        """[batch, 1, tokens, tokens], added to scores: 0 where a token may look, else minus infinity."""
        seen, place = self.segments[:, None, :], torch.arange(self.ids.shape[1], device=self.ids.device)
        allowed = (seen == self.segments[:, :, None]) | (seen == 0)
        allowed &= place[None, :, None] >= place[None, None, :]
        return (
            torch.zeros(allowed.shape, dtype=dtype, device=self.ids.device)
            .masked_fill_(~allowed, float("-inf"))
            .unsqueeze(1)
        )


def save_rows(rows: Sequence[Row], path: Path) -> None:
    """As one compressed file."""
    arrays = {
        "ids": np.concatenate([np.concatenate([row.prompt, *row.answers]) for row in rows]).astype(np.uint16),
        "prompts": np.array([len(row.prompt) for row in rows], np.uint16),
        "answers": np.array([len(row.answers) for row in rows], np.uint8),
        "lengths": np.array([len(answer) for row in rows for answer in row.answers], np.uint16),
        "openings": np.array([opening for row in rows for opening in row.openings], np.uint16),
    }
    np.savez_compressed(path, **arrays)


def load_rows(path: Path) -> list[Row]:
    """What `save_rows` wrote."""
    arrays = np.load(path)
    ids, lengths, openings = arrays["ids"].astype(np.int32), arrays["lengths"], arrays["openings"]
    rows, place, number = [], 0, 0
    for prompt, count in zip(arrays["prompts"].tolist(), arrays["answers"].tolist(), strict=True):
        start, place = place, place + prompt
        answers = []
        for length in lengths[number : number + count].tolist():
            answers.append(ids[place : place + length])
            place += length
        rows.append(Row(ids[start : start + prompt], tuple(answers), tuple(openings[number : number + count].tolist())))
        number += count
    return rows


def collate(rows: Sequence[Row]) -> Batch:
    """A batch of rows."""
    width = -(-max(row.num_tokens for row in rows) // _MULTIPLE) * _MULTIPLE
    ids, positions = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    segments = np.full((len(rows), width), -1, np.int64)
    sources: list[np.ndarray] = []
    targets: list[np.ndarray] = []
    for number, row in enumerate(rows):
        place = len(row.prompt)
        ids[number, :place], positions[number, :place], segments[number, :place] = row.prompt, np.arange(place), 0
        last_of_prompt = place - 1
        for segment, (answer, opening) in enumerate(zip(row.answers, row.openings, strict=True), 1):
            stop = place + len(answer)
            ids[number, place:stop], segments[number, place:stop] = answer, segment
            positions[number, place:stop] = len(row.prompt) + np.arange(len(answer))
            before = np.arange(place + opening - 1, stop - 1)
            if opening == 0:
                before[0] = last_of_prompt
            sources.append(number * width + before)
            targets.append(answer[opening:])
            place = stop
    return Batch(
        ids=torch.from_numpy(ids),
        positions=torch.from_numpy(positions),
        segments=torch.from_numpy(segments),
        sources=torch.from_numpy(np.concatenate(sources)),
        targets=torch.from_numpy(np.concatenate(targets).astype(np.int64)),
    )


def batches(rows: Sequence[Row], max_tokens: int, seed: int | None) -> Iterator[list[Row]]:
    """All rows once, rows of like length together; in a seeded random order, or by length without a seed."""
    order = list(range(len(rows)))
    draw = random.Random(seed)
    if seed is not None:
        draw.shuffle(order)
    window = _WINDOW_ROWS if seed is not None else len(order)
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda number: rows[number].num_tokens)
        groups: list[list[Row]] = [[]]
        for number in near:
            row = rows[number]
            width = -(-row.num_tokens // _MULTIPLE) * _MULTIPLE
            if groups[-1] and (len(groups[-1]) + 1) * width > max_tokens:
                groups.append([])
            groups[-1].append(row)
        if seed is not None:
            draw.shuffle(groups)
        yield from groups
