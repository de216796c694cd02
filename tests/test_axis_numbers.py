"""The numbers at the axis of a plot."""

from __future__ import annotations

import pytest

from rotary_batch.commands.plots import _value_ticks, written


@pytest.mark.parametrize("top", [0.3, 1.2, 2.0, 7.0, 12.0, 140.0, 9_000.0, 2_000_000.0])
def test_every_tick_shows_its_own_value(top):
    ticks = _value_ticks(top)
    assert [float(written(tick).replace(",", "")) for tick in ticks] == pytest.approx(ticks)
