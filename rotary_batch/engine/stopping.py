"""Detect a sequence that repeats the same tokens.

Only generated tokens count, so a resumed sequence ends where an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Sequence

LOOP_REPEATS = 3  # repetitions at the end that are a loop
LOOP_TOKENS = 24  # that they cover at least: "0, 0, 0" in a sentence is no loop
LONGEST_PERIOD = 32  # tokens


def loop_tokens(token_ids: Sequence[int]) -> int:
    """How many tokens at the end repeat those before them; 0 when there is no loop."""
    for period in range(1, min(LONGEST_PERIOD, len(token_ids) // LOOP_REPEATS) + 1):
        if token_ids[-1] != token_ids[-1 - period]:
            continue
        repeats = max(LOOP_REPEATS, -(-LOOP_TOKENS // period))
        tail = list(token_ids[-period * repeats :])
        if len(tail) == period * repeats and tail == tail[:period] * repeats:
            return period * (repeats - 1)
    return 0
