"""Where a sequence ends before its limit, and whether it repeats the same tokens.

Only generated tokens count, so a resumed sequence ends where an uninterrupted one does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rotary_batch.core import Reason, StopCriteria
from rotary_batch.model.answers import AnswerForm
from rotary_batch.sentences import num_sentences

LOOP_REPEATS = 3  # repetitions at the end that are a loop
LOOP_TOKENS = 24  # that they cover at least: "0, 0, 0" in a sentence is no loop
LONGEST_PERIOD = 32  # tokens


class End(NamedTuple):
    """Why a sequence ends, and how many of its last tokens are no part of the answer."""

    reason: Reason
    surplus: int


def end_of(
    generated: Sequence[int], prompt_ids: Sequence[int], criteria: StopCriteria, answers: AnswerForm
) -> End | None:
    """Whether the last generated token ends its sequence; it is asked for every token in turn."""
    if criteria.at_line_end and (surplus := answers.behind_line(generated, prompt_ids)) is not None:
        return End("stop", surplus)
    most = criteria.max_sentences
    if most is not None and num_sentences(answers.text(generated, prompt_ids)) > most:
        return End("sentences", 1)  # the word that would begin one more
    if criteria.stops_loops and (repeated := loop_tokens(generated)):
        return End("loop", repeated)
    return None


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
