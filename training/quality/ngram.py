"""Interpolated modified Kneser-Ney over token ids (Chen and Goodman 1998): the baseline of the loss.

Knows counts; knows nothing of text or of prompts.  Every n-gram has a number, and its key is
(number of its first n - 1 tokens) * base + last token, so that a table of any order is one sorted array of int64
whatever the vocabulary.  Each row is preceded by `order - 1` pads, which are never predicted.
V = vocabulary, T = positions, U = different n-grams of one order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Table(NamedTuple):
    """The n-grams of one order."""

    keys: Ints  # [U] ascending
    counts: Ints  # [U] occurrences at the top, different predecessors below (Kneser and Ney's counts)
    totals: Ints  # [contexts] counts summed over all continuations
    backoff: Floats  # [contexts] share of the mass that goes to the next lower order
    discounts: Floats  # [4] by count: 0, 1, 2, 3 and more


class KneserNey:
    """Probabilities of the next token that sum to one over the vocabulary, whatever the context."""

    def __init__(self, rows: Sequence[ArrayLike], vocab_size: int, order: int = 5) -> None:
        self.vocab_size, self.order = vocab_size, order
        self._base = vocab_size + 1  # the last id is the pad
        stream = self._stream(rows)
        grams, keys, first = self._number(stream)
        self._tables = [
            self._table(keys[n], self._counts(n, stream, grams, keys, first), len(keys[n - 1]) if n else 1)
            for n in range(order)
        ]

    def _stream(self, rows: Sequence[ArrayLike]) -> Ints:
        """All rows in one array, pads before each."""
        pads = np.full(self.order - 1, self.vocab_size, dtype=np.int64)
        return np.concatenate([part for row in rows for part in (pads, np.asarray(row, dtype=np.int64))])

    def _number(self, stream: Ints) -> tuple[list[Ints], list[Ints], list[Ints]]:
        """For each order: the n-gram that ends at each position from n - 1 on, all keys, where each stands first."""
        grams, keys, first = [stream], [np.arange(self._base)], [np.zeros(0, dtype=np.int64)]
        for n in range(1, self.order):
            found, places, numbers = np.unique(
                grams[-1][:-1] * self._base + stream[n:], return_index=True, return_inverse=True
            )
            grams.append(numbers.astype(np.int64))
            keys.append(found)
            first.append(places)
        return grams, keys, first

    def _counts(self, n: int, stream: Ints, grams: list[Ints], keys: list[Ints], first: list[Ints]) -> Ints:
        """Occurrences of the longest n-grams; of the shorter ones how many different tokens stand before them."""
        if n + 1 == self.order:
            ends = grams[n][stream[n:] != self.vocab_size]
        else:
            ends = grams[n][first[n + 1][self._predicted(keys[n + 1])] + 1]
        return np.bincount(ends, minlength=len(keys[n])).astype(np.int64)

    def _predicted(self, keys: Ints) -> NDArray[np.bool_]:
        return keys % self._base != self.vocab_size

    def _table(self, keys: Ints, counts: Ints, num_contexts: int) -> Table:
        discounts = _discounts(counts)
        context = keys // self._base
        totals = np.bincount(context, counts, num_contexts)
        freed = np.bincount(context, discounts[np.minimum(counts, 3)], num_contexts)
        backoff = np.divide(freed, totals, out=np.ones(num_contexts), where=totals > 0)
        return Table(keys, counts, totals.astype(np.int64), backoff, discounts)

    def probabilities(self, rows: Sequence[ArrayLike]) -> Floats:
        """Probability of every token of every row after those before it, rows one after the other."""
        stream = self._stream(rows)
        predicted = stream != self.vocab_size
        found = np.full(len(stream), 1 / self.vocab_size)
        context = np.zeros(len(stream), dtype=np.int64)  # number of the n - 1 tokens before, -1 = never seen
        for table in self._tables:
            place, seen = _find(table.keys, context * self._base + stream, context)
            found = _interpolate(table, context, np.where(seen, table.counts[place], 0), found)
            ending = np.where(seen, place, -1)
            context = np.concatenate([[-1], ending[:-1]])
        return found[predicted]

    def distribution(self, context: Sequence[int]) -> Floats:
        """Probability of every token of the vocabulary after a context, [V]."""
        found = self.probabilities([[*context, token] for token in range(self.vocab_size)])
        return found[len(context) :: len(context) + 1]


def _find(keys: Ints, wanted: Ints, context: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, (context >= 0) & (keys[place] == wanted)


def _interpolate(table: Table, context: Ints, counts: Ints, lower: Floats) -> Floats:
    totals = np.where(context >= 0, table.totals[context], 0)
    kept = np.maximum(counts - table.discounts[np.minimum(counts, 3)], 0.0)
    return np.where(totals > 0, kept / np.maximum(totals, 1) + table.backoff[context] * lower, lower)


def _discounts(counts: Ints) -> Floats:
    """What is taken off counts of 0, 1, 2 and more, from how many n-grams have each count up to 4."""
    once, twice, thrice, four = (max(1, int((counts == n).sum())) for n in (1, 2, 3, 4))
    share = once / (once + 2 * twice)
    raw = [1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * four / thrice]
    return np.array([0.0, *(min(max(value, 0.1), most) for value, most in zip(raw, (0.95, 1.95, 2.95), strict=True))])
