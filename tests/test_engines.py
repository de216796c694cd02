"""From settings to the options of an engine, and an engine that is opened when it is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from rotary_batch.commands.engines import engine_options
from rotary_batch.config import Settings
from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.footprint import Workload
from rotary_batch.pool.in_process import in_process_pool
from rotary_batch.testing import FakeEngine


def test_settings_of_an_engine_become_its_options():
    settings = Settings(
        device="cuda:1",
        device_memory=8,
        host_memory=9,
        max_batch=3,
        numerics="fast",
        kv="int8",
        experts="int4",
        db=Path("a.db"),
    )
    assert engine_options(settings, Workload(1, 2, 3, 5)) == EngineOptions(
        device="cuda:1",
        device_memory=8,
        host_memory=9,
        max_batch=3,
        numerics="fast",
        kv="int8",
        workload=Workload(1, 2, 3, 5),
    ), "all of them but experts, which decided which pack is opened"


def test_an_option_that_does_not_exist_is_refused(tiny_pack):
    with pytest.raises(TypeError, match="ring_slot"):
        open_engine(tiny_pack, ring_slot=3)


def test_an_engine_is_opened_once_when_it_is_first_needed():
    opened = []

    def open_now(_phase) -> FakeEngine:
        opened.append(FakeEngine())
        return opened[-1]

    unused = in_process_pool(lambda: open_now)
    assert unused.num_live == 0
    unused.close()
    assert opened == []
    pool = in_process_pool(lambda: open_now)
    request = Request(request_id=1, prompt_ids=(1, 2), max_new_tokens=1)
    assert pool.has_room(request)
    pool.admit(request)
    assert pool.num_live == 1
    assert [done.request_id for done in pool.step().completions] == [1]
    assert len(opened) == 1
