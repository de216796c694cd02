"""Greedy choice of the next token and its log-probability; rows without finite logits are told apart."""

from __future__ import annotations

from typing import NamedTuple

import torch

from rotary_batch.engine.numerics import in_tiles


class Choice(NamedTuple):
    """The next token of one row; None when its logits are not finite."""

    token_id: int | None
    logprob: float


def choose(logits: torch.Tensor) -> list[Choice]:
    """float32 logits [rows, vocabulary] -> one choice a row; the lowest id wins a tie."""
    if not len(logits):
        return []
    best, token_ids = logits.max(-1)
    total = in_tiles(lambda rows: rows.logsumexp(-1), logits)
    finite = torch.isfinite(total) & torch.isfinite(best)  # one NaN or infinity in a row makes its sum one
    columns = torch.stack([part.double() for part in (token_ids, best - total, finite)])  # the device is asked once
    rows = zip(*columns.tolist(), strict=True)
    return [Choice(int(token_id) if good else None, logprob) for token_id, logprob, good in rows]
