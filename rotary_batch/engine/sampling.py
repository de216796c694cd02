"""Greedy choice of the next token and its log-probability; rows without finite logits are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from rotary_batch.engine.kernels.numerics import in_tiles

HEAD_ROWS = 64  # rows of logits computed at once; bounds the workspace


class Choice(NamedTuple):
    """The next token of one row; None when its logits are not finite."""

    token_id: int | None
    logprob: float


def choose(hidden: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor]) -> list[Choice]:
    """Final hidden states [rows, H], and what makes float32 logits of them -> one choice a row.

    The lowest id wins a tie.  The host asks the device once.
    """
    if not len(hidden):
        return []
    parts = [_best(head(part)) for part in torch.split(hidden, HEAD_ROWS)]
    rows = zip(*torch.cat(parts, 1).tolist(), strict=True)
    return [Choice(int(token_id) if good else None, logprob) for token_id, logprob, good in rows]


def _best(logits: torch.Tensor) -> torch.Tensor:
    """[rows, vocabulary] -> token id, log-probability and whether all was finite, [3, rows] float64."""
    best, token_ids = logits.max(-1)
    total = in_tiles(lambda rows: rows.logsumexp(-1), logits)
    finite = torch.isfinite(total) & torch.isfinite(best)  # one NaN or infinity in a row makes its sum one
    return torch.stack([part.double() for part in (token_ids, best - total, finite)])
