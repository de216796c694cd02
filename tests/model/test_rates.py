"""Rates of a machine: the best of several measurements, believed no longer than a run proves them wrong."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from rotary_batch.config import EXPERT_FORMATS
from rotary_batch.model.rates import JUDGED_S, Rates, cached_rates, exceeded_by, rates_path, save_rates

KEPT = Rates(
    machine="a test",
    device="cpu",
    device_memory_nbytes=10**9,
    activation_nbytes=4,
    move_nbytes_per_s=2e9,
    disk_nbytes_per_s=2e9,
    memory_nbytes_per_s=1e10,
    attention_nbytes_per_s={"bf16": 1e10, "int8": 1e10},
    weight_s={name: [(1, 1e-10), (16, 2e-10), (512, 8e-10)] for name in EXPERT_FORMATS},
    measured_at=1e9,
    probed_at=1e9,
)


def probe(**found: object) -> Rates:
    nothing = {"attention_nbytes_per_s": {}, "weight_s": {}, "probed_at": 2e9}
    return dataclasses.replace(KEPT, **nothing | found)


def test_a_probe_beside_other_work_changes_nothing_but_the_date():
    slow = probe(
        move_nbytes_per_s=1e9,
        disk_nbytes_per_s=1e9,
        memory_nbytes_per_s=1e9,
        attention_nbytes_per_s={"bf16": 1.0},
        weight_s={"bf16": [(1, 1.0), (512, 1.0)]},
    )
    assert KEPT.best_of(slow) == dataclasses.replace(KEPT, probed_at=2e9, num_measured=2)


def test_a_probe_that_is_faster_raises_what_it_measured_and_that_alone():
    fast = probe(
        disk_nbytes_per_s=3e9, attention_nbytes_per_s={"bf16": 2e10}, weight_s={"bf16": [(1, 5e-11), (512, 1e-9)]}
    )
    assert KEPT.best_of(fast) == dataclasses.replace(
        KEPT,
        disk_nbytes_per_s=3e9,
        attention_nbytes_per_s={"bf16": 2e10, "int8": 1e10},
        weight_s=dict(KEPT.weight_s) | {"bf16": [(1, 5e-11), (16, 2e-10), (512, 8e-10)]},
        probed_at=2e9,
        num_measured=2,
    )


def test_a_gain_reaches_four_times_the_rows_that_were_probed_and_a_quarter_of_them():
    """A probe that ended after one row raised the rates of 512 rows as well."""
    rows = (1, 4, 7, 8, 32, 128, 129, 512)
    kept = dataclasses.replace(KEPT, weight_s={"bf16": [(count, 1e-10) for count in rows]})
    raised = kept.best_of(probe(weight_s={"bf16": [(1, 5e-11), (32, 2.5e-11)]})).weight_s["bf16"]
    assert [1e-10 / s for _, s in raised] == pytest.approx([2, 2, 1, 4, 4, 4, 1, 1])


def test_the_order_of_measurements_does_not_matter():
    """Rates were measured once, beside other work, and a run then reached 150 % of the bound."""
    times = [3e-10, 1e-10, 5e-11, 2e-10]
    probes = [probe(weight_s={"bf16": [(1, s)]}, disk_nbytes_per_s=1 / s) for s in times]
    kept = [KEPT, KEPT]
    for number, order in enumerate((probes, probes[::-1])):
        for one in order:
            kept[number] = kept[number].best_of(one)
    assert [(r.weights_s("bf16", 1), r.disk_nbytes_per_s) for r in kept] == [(5e-11, pytest.approx(2e10))] * 2
    assert kept[0].num_measured == 5


@pytest.mark.parametrize(
    ("bound_s", "step_s", "gain"),
    [
        (1.5 * JUDGED_S, JUDGED_S, 1.5),
        (1.04 * JUDGED_S, JUDGED_S, None),  # rounding of clocks
        (1.0, 0.5, None),  # too little to say anything
        (30.0, 100.0, None),
        (0.0, 100.0, None),  # no rates are known
        (0.0, 0.0, None),
    ],
)
def test_a_run_is_believed_when_it_is_faster_than_the_bound_for_long_enough(bound_s, step_s, gain):
    assert exceeded_by(bound_s, step_s) == (None if gain is None else pytest.approx(gain))


def test_raised_rates_are_as_much_faster_in_everything():
    raised = KEPT.raised(1.5, 3e9)
    assert raised.weights_s("int4", 300) == pytest.approx(KEPT.weights_s("int4", 300) / 1.5)
    assert (raised.move_nbytes_per_s, raised.attention_nbytes_per_s["int8"]) == (3e9, 1.5e10)
    assert (raised.measured_at, raised.probed_at, raised.num_measured) == (1e9, 3e9, 2)


def test_rates_say_when_they_were_measured_and_of_how_many_they_are_the_best(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert KEPT.told() == "measured 2001-09-09 01:46"
    assert (
        KEPT.best_of(probe()).told() == "measured 2001-09-09 01:46; best of 2 measurements, the last 2033-05-18 03:33"
    )
    monkeypatch.undo()
    time.tzset()


def test_rates_survive_their_file(tmp_path):
    path = rates_path("cpu", tmp_path)
    save_rates(KEPT, path)
    assert cached_rates("cpu", tmp_path) == KEPT
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_two_that_write_the_rates_at_once(tmp_path, monkeypatch):
    """They shared the name of the unfinished file: one took away that of the other."""
    path, replace_file = rates_path("cpu", tmp_path), Path.replace

    def second(temporary: Path, target: Path) -> Path:
        monkeypatch.undo()
        save_rates(KEPT.raised(2.0, 2e9), path)
        return replace_file(temporary, target)

    monkeypatch.setattr(Path, "replace", second)
    save_rates(KEPT, path)
    assert cached_rates("cpu", tmp_path) == KEPT
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 4},
        {"weight_s": []},
        {"weight_s": {"bf16": [[1, 1e-10]]}},
        *(
            {"weight_s": KEPT.weight_s | {"bf16": table}}
            for table in ([], [[1, 0.0]], 3, [[16, 1e-10], [1, 1e-10]], [[1]])
        ),
        {"disk_nbytes_per_s": "fast"},
        {"disk_nbytes_per_s": -1.0},
        {"move_nbytes_per_s": None},
        {"attention_nbytes_per_s": [1]},
        {"measured_at": "today"},
        {"memory_nbytes_per_s": float("nan")},
        {"disk_nbytes_per_s": float("inf")},
        {"more": 1},
        {"num_measured": 0},
        {"measured_at": None},
        {"probed_at": 1e20},
    ],
)
def test_damaged_rates_are_none(tmp_path, damage):
    path = rates_path("cpu", tmp_path)
    path.write_text(json.dumps(KEPT.as_dict() | damage))
    assert cached_rates("cpu", tmp_path) is None


def test_rates_that_lack_a_format_are_none(tmp_path):
    """Measured before this version stored experts in it."""
    for name in EXPERT_FORMATS:
        others = {other: table for other, table in KEPT.weight_s.items() if other != name}
        save_rates(dataclasses.replace(KEPT, weight_s=others), rates_path("cpu", tmp_path))
        assert cached_rates("cpu", tmp_path) is None


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"[1]", b"null", b"3", b'"x"', b"{", b"\xff\x00", b"[" * 100_000, b'{"version": 7}']
)
def test_a_file_of_anything_else_is_none(tmp_path, content):
    rates_path("cpu", tmp_path).write_bytes(content)
    assert cached_rates("cpu", tmp_path) is None
