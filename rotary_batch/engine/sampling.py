"""Greedy choice of the next token, with its log-probability; rows whose logits are not finite give no token."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from rotary_batch.engine.kernels.numerics import map_row_tiles

HEAD_ROWS = 64  # rows of logits that are computed at once; bounds the workspace


class Choice(NamedTuple):
    """The next token of one row; None when its logits are not finite."""

    token_id: int | None
    logprob: float


def choose(hidden: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor]) -> list[Choice]:
    """Choose a token for each row of the final hidden states [rows, H]; `head` computes float32 logits.

    The lowest id wins a tie.  The host waits for the device once.
    """
    return choices_of(best_tokens(hidden, head)) if len(hidden) else []


def best_tokens(hidden: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """What `choices_of` reads, [3, rows] float64 on the device."""
    return torch.cat([_argmax(head(part)) for part in torch.split(hidden, HEAD_ROWS)], 1)


def choices_of(best: torch.Tensor) -> list[Choice]:
    """The choices of all rows; the host waits for the device."""
    rows = zip(*best.tolist(), strict=True)
    return [Choice(int(token_id) if is_finite else None, logprob) for token_id, logprob, is_finite in rows]


def _argmax(logits: torch.Tensor) -> torch.Tensor:
    """[rows, vocabulary] -> token id, log-probability and whether all logits are finite, [3, rows] float64."""
    best, token_ids = logits.max(-1)
    total = map_row_tiles(lambda rows: rows.logsumexp(-1), logits)
    is_finite = torch.isfinite(total) & torch.isfinite(best)  # one NaN or infinity in a row makes its sum one
    return torch.stack([part.double() for part in (token_ids, best - total, is_finite)])
