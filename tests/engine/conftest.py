"""What several tests of the engine ask about."""

from __future__ import annotations

import pytest

from rotary_batch.engine.attention.base import Rows


@pytest.fixture
def mixed_rows() -> list[Rows]:
    """19 rows over the keys 0 to 399: one key, many, drafts, a shared prefix (10 to 79), a span of a prompt."""
    return [
        Rows(0, 1, 0, 5),
        Rows(1, 1, 150, 20),
        Rows(2, 4, 60, 200),
        Rows(6, 1, 80, 300, 10, 70),
        Rows(7, 12, 0, 330),
    ]
