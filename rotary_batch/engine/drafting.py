"""Draft the next tokens of a sequence by looking up where its last ones stood before (prompt lookup).

Knows token ids; knows nothing of the model, which verifies every draft: what comes out is what greedy decoding
gives.  Documentation quotes its source, so names are often found again.
"""

from __future__ import annotations

from collections.abc import Sequence

NGRAM_TOKENS = (3, 2)  # the longest match first; a single token says too little
MIN_ACCEPTED_SHARE = 0.1  # a sequence whose drafts fail more often than this stops drafting
TRIAL_TOKENS = 32  # after so many drafted tokens


class PromptLookup:
    """Where each n-gram of one sequence was last followed by something."""

    def __init__(self) -> None:
        self._follows: dict[tuple[int, ...], int] = {}
        self._num_seen = 0
        self._drafted = 0
        self._accepted = 0

    def draft(self, token_ids: Sequence[int], max_tokens: int) -> tuple[int, ...]:
        """At most `max_tokens` tokens that may come after `token_ids`, which only ever grow."""
        if self._drafted >= TRIAL_TOKENS and self._accepted < MIN_ACCEPTED_SHARE * self._drafted:
            return ()
        self._learn(token_ids)
        for size in NGRAM_TOKENS:
            place = self._follows.get(tuple(token_ids[-size:]))
            if place is not None and len(token_ids) > size and max_tokens > 0:
                found = tuple(token_ids[place : place + max_tokens])
                self._drafted += len(found)
                return found
        return ()

    def _learn(self, token_ids: Sequence[int]) -> None:
        """Take in n-grams that have a token after them."""
        for end in range(max(2, self._num_seen), len(token_ids)):
            for size in NGRAM_TOKENS:
                if end >= size:
                    self._follows[tuple(token_ids[end - size : end])] = end
        self._num_seen = len(token_ids)

    def note_accepted(self, count: int) -> None:
        """So many tokens of the last draft were right."""
        self._accepted += count
