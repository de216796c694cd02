"""Sizes and durations in words: what is suggested is enough, and reads well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.config import parse_nbytes
from rotary_batch.sizes import duration_text, enough_size, size_text


@given(st.integers(1, 10**13))
def test_a_suggested_size_is_enough_and_at_most_a_tenth_more(nbytes):
    assert nbytes <= parse_nbytes(enough_size(nbytes)) <= max(nbytes * 1.1, nbytes + 10**6)


@pytest.mark.parametrize(
    ("nbytes", "shown", "suggested"),
    [
        (13_400_000, "13.4 MB", "14MB"),
        (10**6, "1.0 MB", "1MB"),
        (999_000_001, "999.0 MB", "1GB"),
        (1_510_000_000, "1.5 GB", "1.6GB"),
        (22_000_000_000, "22.0 GB", "22GB"),
        (22_000_000_001, "22.0 GB", "23GB"),
    ],
)
def test_sizes(nbytes, shown, suggested):
    assert (size_text(nbytes), enough_size(nbytes)) == (shown, suggested)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (45.4, "45 s"),
        (90, "1 min 30 s"),
        (599.6, "10 min"),
        (1800 - 1e-6, "30 min"),
        (76_800, "21 h 20 min"),
        (7200, "2 h"),
        (3600 * 2000, "2,000 h"),
    ],
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text
