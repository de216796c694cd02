"""Prompt lookup: draft the next tokens of a sequence from the place where its last ones occurred before.

The model verifies every draft, so the output is that of greedy decoding.  Documentation quotes its source, so names
often occur again.
"""

from __future__ import annotations

from collections.abc import Sequence

NGRAM_TOKENS = (3, 2)  # the longest match first; a single token predicts too little
MIN_ACCEPTED_SHARE = 0.1  # of drafted tokens; below it a sequence stops drafting
TRIAL_TOKENS = 32  # drafted tokens before it can stop


class PromptLookup:
    """The n-grams of one sequence, each with the position after its last occurrence."""

    def __init__(self) -> None:
        self._position_after: dict[tuple[int, ...], int] = {}
        self._num_indexed = 0
        self._num_drafted = 0
        self._num_accepted = 0

    def draft(self, token_ids: Sequence[int], max_tokens: int) -> tuple[int, ...]:
        """Up to `max_tokens` tokens that may follow `token_ids`, which only ever grow."""
        if self._num_drafted >= TRIAL_TOKENS and self._num_accepted < MIN_ACCEPTED_SHARE * self._num_drafted:
            return ()
        self._index(token_ids)
        for size in NGRAM_TOKENS:
            position = self._position_after.get(tuple(token_ids[-size:]))
            if position is not None and len(token_ids) > size and max_tokens > 0:
                draft = tuple(token_ids[position : position + max_tokens])
                self._num_drafted += len(draft)
                return draft
        return ()

    def _index(self, token_ids: Sequence[int]) -> None:
        """Add the n-grams that a token follows."""
        for end in range(max(2, self._num_indexed), len(token_ids)):
            for size in NGRAM_TOKENS:
                if end >= size:
                    self._position_after[tuple(token_ids[end - size : end])] = end
        self._num_indexed = len(token_ids)

    def note_accepted(self, count: int) -> None:
        """Count how many tokens of the last draft were right."""
        self._num_accepted += count
