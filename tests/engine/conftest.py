"""What several tests of the engine ask about."""

from __future__ import annotations

import pytest

from rotary_batch.engine.attention.base import QuerySegment


@pytest.fixture
def mixed_segments() -> list[QuerySegment]:
    """19 rows over the keys 0 to 399: one key, many, drafts, a shared prefix (10 to 79), a span of a prompt."""
    return [
        QuerySegment(0, 1, 0, 5),
        QuerySegment(1, 1, 150, 20),
        QuerySegment(2, 4, 60, 200),
        QuerySegment(6, 1, 80, 300, 10, 70),
        QuerySegment(7, 12, 0, 330),
    ]
