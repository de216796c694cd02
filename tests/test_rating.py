"""The machine's rates around a run, and what `plan` says of them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.commands.plan import as_last_run
from rotary_batch.commands.rates import RateWatch, refresh_rates
from rotary_batch.config import Settings
from rotary_batch.core import StepReport
from rotary_batch.engine.measuring import measure
from rotary_batch.model.footprint import Workload
from rotary_batch.model.format_shares import dense_shares, expert_shares, formats_of
from rotary_batch.model.manifest import ORIGINAL, Manifest
from rotary_batch.model.rates import Rates, cached_rates, rates_path, save_rates
from rotary_batch.run_stats import Progress, RunStats
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import last_speed
from rotary_batch.work.runs import end_run, start_run
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore
from tests.model.test_rates import KEPT

FAST = Settings(numerics="fast")
NOW = 2e9
MANIFEST = Manifest.load(EMBEDDED)


@pytest.fixture
def path() -> Path:
    """Where the rates of this test's user are kept."""
    return rates_path("cpu", Path(os.environ["XDG_CACHE_HOME"]) / "rotary-batch")


@pytest.fixture
def measured(monkeypatch) -> list[str]:
    """What was measured; the machine is a fake one that does twice what was kept."""
    calls = []

    def everything(device: str, folder: Path) -> Rates:
        calls.append("everything")
        return KEPT

    def probe(kept: Rates, pack: Path, manifest: Manifest, kv: str) -> Rates:
        calls.append("probe")
        return kept.raised(2.0, 2e9)

    monkeypatch.setattr(measure, "measure_machine", everything)
    monkeypatch.setattr(measure, "probe_machine", probe)
    monkeypatch.setattr(measure, "machine_name", lambda _device: KEPT.machine)
    return calls


def test_a_run_probes_the_machine_and_keeps_the_best(path, measured):
    save_rates(KEPT, path)
    refresh_rates(FAST, EMBEDDED, MANIFEST, NOW)
    assert measured == ["probe"]
    assert cached_rates("cpu", path.parent) == KEPT.best_of(KEPT.raised(2.0, 2e9))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        json.dumps(KEPT.as_dict() | {"version": 4}),
        json.dumps(dataclasses.replace(KEPT, machine="another").as_dict()),
    ],
)
def test_rates_that_are_damaged_or_of_another_machine_are_measured_anew(path, measured, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    refresh_rates(FAST, EMBEDDED, MANIFEST, NOW)
    assert measured == ["everything"]
    assert cached_rates("cpu", path.parent) == KEPT


def test_rates_that_a_run_exceeded_are_measured_anew_once_and_the_better_are_kept(path, monkeypatch, measured):
    """A model that was always faster than its bound cost a minute at every run."""
    monkeypatch.setattr(measure, "measure_machine", lambda *_arguments: measured.append("everything") or new)
    new = dataclasses.replace(KEPT, disk_nbytes_per_s=9e9, measured_at=NOW, probed_at=NOW)
    raised = KEPT.raised(1.2, 1.5e9)
    save_rates(raised, path)
    refresh_rates(FAST, EMBEDDED, MANIFEST, NOW)
    kept = cached_rates("cpu", path.parent)
    assert kept == dataclasses.replace(
        raised, disk_nbytes_per_s=9e9, measured_at=NOW, probed_at=NOW, num_measured=3, is_exceeded=False
    )
    for now, what in [(NOW + 60, "probe"), (NOW - 60, "probe"), (NOW + 86_400, "everything")]:
        save_rates(kept.raised(1.2, NOW + 30), path)
        refresh_rates(FAST, EMBEDDED, MANIFEST, now)
        assert measured.pop() == what
    assert measured == ["everything"]


def test_rates_that_cannot_be_written_end_no_run(path, measured, caplog):
    (path / "a folder in their place").mkdir(parents=True)
    with caplog.at_level("INFO", "rotary_batch"):
        refresh_rates(FAST, EMBEDDED, MANIFEST, NOW)
        engine, stats = FakeEngine(), RunStats()
        report = StepReport(step_s=10.0, roofline_s=20.0)
        progress = Progress(stats=stats, report=report, prompts={}, num_live=1, num_allowed=None, elapsed_s=10.0)
        RateWatch(engine, FAST, lambda _progress: None)(progress)
    assert (measured, engine.rates.is_exceeded, stats.rates_raised) == (["everything"], True, 2.0)
    assert list(path.parent.glob(f"{path.stem}*")) == [path], "nothing unfinished is left"
    assert {"rates not refreshed", "rates not kept"} <= set(caplog.messages)


def test_nothing_is_measured_for_exact_numerics_or_on_a_machine_that_never_was(path, measured):
    refresh_rates(FAST, EMBEDDED, MANIFEST, NOW)
    save_rates(KEPT, path)
    refresh_rates(Settings(numerics="exact"), EMBEDDED, MANIFEST, NOW)
    assert measured == []
    assert cached_rates("cpu", path.parent) == KEPT


OWN = {"gate_up": "ggml:Q4_K", "down": "int8:128:f16"}
MIXED = dataclasses.replace(
    MANIFEST,
    experts=ORIGINAL,
    layer_formats=dict.fromkeys(MANIFEST.geometry.moe_layers, OWN),
    dense="bf16",
    dense_formats={"head": "int4:64:f32:ordered", "embed": "int4:64:f32:ordered"},
)


def test_the_formats_of_a_model_have_the_shares_of_its_numbers():
    assert expert_shares(MIXED) == {"ggml:Q4_K": pytest.approx(2 / 3), "int8:128:f16": pytest.approx(1 / 3)}
    assert dense_shares(MIXED) == {"bf16": 1.0}
    assert formats_of(MIXED) == ["ggml:Q4_K", "int8:128:f16", "bf16", "int4:64:f32"]
    mixed_s = KEPT.mixed_weights_s({"bf16": 0.25, "int8": 0.75}, 16)
    assert mixed_s == pytest.approx(0.25 * KEPT.weights_s("bf16", 16) + 0.75 * KEPT.weights_s("int8", 16))


def test_a_model_s_own_formats_are_measured_before_its_first_run_and_kept(path, monkeypatch, measured):
    monkeypatch.setattr(measure, "MATRIX", (128, 256))
    save_rates(KEPT, path)
    refresh_rates(FAST, EMBEDDED, MIXED, NOW)
    first = cached_rates("cpu", path.parent).weight_s
    assert first.keys() == KEPT.weight_s.keys() | set(formats_of(MIXED))
    monkeypatch.setattr(measure, "_matrix", None)  # nothing is missing any more
    refresh_rates(FAST, EMBEDDED, MIXED, NOW)
    second = cached_rates("cpu", path.parent).weight_s
    assert second == {name: [(rows, s / 2) for rows, s in table] for name, table in first.items()}


def test_a_probe_measures_the_formats_of_the_model_and_ends_in_time(monkeypatch, tiny_pack):
    monkeypatch.setattr(measure, "MATRIX", (256, 128))
    monkeypatch.setattr(measure, "PROBE_S", 100.0)
    manifest = Manifest.load(tiny_pack)
    rates = measure.probe_machine(KEPT, tiny_pack, manifest, "bf16")
    assert list(rates.weight_s) == list(dict.fromkeys((manifest.experts, manifest.dense)))
    assert all(table[0][0] == 1 and all(s > 0 for _, s in table) for table in rates.weight_s.values())
    assert (rates.disk_nbytes_per_s > 0, rates.machine, rates.measured_at) == (True, KEPT.machine, KEPT.measured_at)
    monkeypatch.setattr(measure, "PROBE_S", 0.0)
    late = measure.probe_machine(KEPT, tiny_pack, manifest, "bf16")
    assert (set(map(tuple, late.weight_s.values())), late.attention_nbytes_per_s) == ({()}, {})
    assert KEPT.best_of(late).weight_s == KEPT.weight_s, "what is not measured stays"


class FakeEngine:
    def __init__(self) -> None:
        self.rates = KEPT

    def use_rates(self, rates: Rates) -> None:
        self.rates = rates


def test_a_run_that_beats_the_bound_raises_the_rates(path):
    """A run once reached 150 % of a bound from rates that were measured beside other work."""
    engine, stats, looks = FakeEngine(), RunStats(), []
    watch = RateWatch(engine, FAST, looks.append)
    for step in range(4):
        report = StepReport(
            step_s=1.0, roofline_s=1.5 * KEPT.weights_s("bf16", 1) / engine.rates.weights_s("bf16", 1) ** 1
        )
        report = dataclasses.replace(
            report, roofline_s=1.5 * engine.rates.weights_s("bf16", 1) / KEPT.weights_s("bf16", 1)
        )
        stats.add_step(report)
        watch(Progress(stats=stats, report=report, prompts={}, num_live=1, num_allowed=None, elapsed_s=float(step)))
    assert len(looks) == 4
    assert (engine.rates.num_measured, stats.rates_raised) == (2, pytest.approx(1.5)), "once, after two seconds"
    assert stats.roofline_s / stats.step_s == pytest.approx(1.0)
    kept = cached_rates("cpu", path.parent)
    assert kept == engine.rates
    assert kept.weights_s("bf16", 1) == pytest.approx(KEPT.weights_s("bf16", 1) / 1.5)


def test_a_run_within_its_bound_leaves_the_rates_alone(path):
    engine, stats = FakeEngine(), RunStats()
    watch = RateWatch(engine, FAST, lambda _progress: None)
    for bound_s in (0.0, 0.9, 1.04, 0.5):
        report = StepReport(step_s=1.0, roofline_s=bound_s)
        stats.add_step(report)
        watch(Progress(stats=stats, report=report, prompts={}, num_live=1, num_allowed=None, elapsed_s=1.0))
    assert (engine.rates, path.exists(), stats.rates_raised) == (KEPT, False, 1.0)


def test_the_last_run_of_a_model_on_a_device_is_what_counts(tmp_path):
    db = open_database(tmp_path / "w.sqlite")
    migrate(db)
    store = WorkStore(db)
    for model, stats in [
        ("m", RunStats(device="cpu", prefill_tokens=900, decode_tokens=100, step_s=10.0)),
        ("m", RunStats(device="cuda", prefill_tokens=9000, decode_tokens=1000, step_s=10.0)),
        ("other", RunStats(device="cpu", prefill_tokens=1, decode_tokens=1, step_s=10.0)),
        ("m", RunStats(device="cpu")),  # everything was reused
    ]:
        end_run(store, start_run(store, command="drain", model_name=model, pid=1), "done", stats.as_dict())
    speed = last_speed(store, "m", "cpu")
    assert speed is not None
    assert (speed.tokens_per_s, last_speed(store, "m", "cuda:1")) == (100.0, None)
    forecast = as_last_run(speed, Workload(num_items=60, prompt_tokens=500, new_tokens=100, longest_tokens=600))
    assert forecast == {"last_run": speed.at, "last_run_tokens_per_s": 100.0, "hours_as_last_run": 0.1}
    assert as_last_run(None, Workload(60, 500, 100, 600)) == {}


def rotary(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rotary_batch.cli", *map(str, arguments)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode in (0, 75), done.stderr
    return done.stdout


def test_plan_right_after_a_drain_knows_how_long_the_rest_takes(make_repository):
    """It said that hours are not known, whatever had been written a minute before."""
    root = make_repository({f"{name}.py": f"def {name}():\n    return 1\n" for name in "abcdefgh"})
    rotary("index", root)
    assert "hours are not known" in rotary("plan", root)
    rotary("drain", root, "--limit", 2)
    shown = rotary("plan", root)
    assert "at the speed of its last run" in shown
    assert "hours are not known" not in shown
    (model,) = json.loads(rotary("plan", root, "--json"))["models"]
    assert model["hours_as_last_run"] > 0
