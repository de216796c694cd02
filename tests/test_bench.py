"""`bench`, `plan` and the rates between them, through the command line and through a small measured machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rotary_batch import commands
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.config import Settings
from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.measuring import bench, measure
from rotary_batch.engine.measuring.timeline import save_timeline
from rotary_batch.engine.packs.synthetic import synthetic_pack
from rotary_batch.engine.runtime.trace import Interval
from rotary_batch.errors import ModelError, UnavailableError
from rotary_batch.model.footprint import Workload
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.rates import Rates, rates_path, save_rates
from rotary_batch.model.shapes import SHAPES

RATES = Rates(
    machine="a test",
    device="cpu",
    device_memory_nbytes=10**9,
    activation_nbytes=4,
    move_nbytes_per_s=1e9,
    disk_nbytes_per_s=1e9,
    memory_nbytes_per_s=1e10,
    attention_nbytes_per_s={"bf16": 1e10, "int8": 1e10},
    weight_s={name: [(1, 1e-10), (512, 1e-9)] for name in ("bf16", "int8", "int4")},
    measured_at=1e9,
    probed_at=1e9,
)
FIELDS = {
    "shape",
    "experts",
    "kv",
    "device",
    "device_memory",
    "sequences",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "bound_decode_tokens_per_s",
    "share_of_bound",
    "binding",
    "link_bytes_per_s",
    "stall_s",
    "peak_device_bytes",
    "peak_host_bytes",
    "ring_hits",
    "wasted_prefetch_bytes",
    "bytes_to_host",
}


def rotary(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.fixture
def measured() -> None:
    """A machine that was measured before."""
    path = rates_path("cpu", Path(os.environ["XDG_CACHE_HOME"]) / "rotary-batch")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RATES.as_dict()))


def test_bench_gives_every_figure_a_timeline_and_a_trace(measured, tmp_path):
    options = ["--sequences", 3, "--lengths", "20+6", "--device-memory", "9MB", "--json"]
    done = rotary("bench", *options, "--timeline", tmp_path / "t.svg", "--trace", tmp_path / "r.jsonl", "--kv", "int8")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) >= FIELDS
    assert (found["sequences"], found["kv"], found["bytes_to_host"]) == (3, "int8", 0)
    assert 0 < found["ring_slots"] < 32
    assert found["decode_tokens_per_s"] > 0
    assert found["share_of_bound"] > 0
    assert found["peak_device_bytes"] <= 9_000_000 <= found["peak_host_bytes"]
    assert (tmp_path / "t.svg").read_text().count("<rect") > 20
    head, *steps = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert head == {"layers": 4, "experts": 8, "top_k": 2}
    assert {step["layer"] for step in steps} == {0, 1, 2, 3}
    assert all(len(row) == 2 for step in steps for row in step["chosen"])


def test_a_timeline_is_a_picture_or_trace_events_in_which_nothing_on_a_track_overlaps(tmp_path):
    intervals = [
        Interval("read", 10.0, 10.5, "0.0"),
        Interval("read", 10.25, 11.0, "0.1"),
        Interval("read", 10.5, 10.75, "0.2"),
        Interval("compute", 10.5, 10.625, "0.0"),
    ]
    save_timeline(intervals, tmp_path / "t.svg")
    assert (tmp_path / "t.svg").read_text().count("<rect") == 1 + len(intervals)
    save_timeline(intervals, tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert [(one["tid"], one["args"]["name"]) for one in events if one["ph"] == "M"] == [
        (1, "reads"),
        (2, "reads"),
        (3, "experts"),
    ]
    complete = [(one["tid"], one["cat"], one["name"], one["ts"], one["dur"]) for one in events if one["ph"] == "X"]
    assert complete == [
        (1, "read", "0.0", 0.0, 500_000.0),
        (1, "read", "0.2", 500_000.0, 250_000.0),
        (2, "read", "0.1", 250_000.0, 750_000.0),
        (3, "compute", "0.0", 500_000.0, 125_000.0),
    ]


def test_bench_says_what_does_not_fit_and_what_is_unknown(measured):
    for options, code, words in [
        (
            ["--sequences", 400, "--lengths", "700+100", "--device-memory", "25MB"],
            69,
            "sequences of 700 + 100 tokens fit, not 400",
        ),
        (["--device-memory", "2MB"], 69, "try --device-memory"),
        (["--shape", "huge"], 2, "'huge' is not one of small, medium"),
        (["--shape", "small", "--model", EMBEDDED], 2, "exclude each other"),
        (["--lengths", "many"], 2, "600+100"),
        (["--sequences", 40, "--lengths", "200+2", "--device-memory", "25MB"], 2, "no revolution decoded all 40"),
    ]:
        done = rotary("bench", *options)
        assert done.returncode == code, done.stderr
        assert words in done.stderr


def test_prompts_that_are_skipped_cost_no_revolution_and_end_like_others():
    engine = open_engine(EMBEDDED, max_batch=8, device_memory=40_000_000)
    engine.memory_plan = engine.memory_plan._replace(prefill_tokens=64)
    reports = bench.run(engine, sequences=8, prompt_tokens=40, new_tokens=6, prefill_steps=2, decode_steps=9)
    engine.close()
    assert [report.prefill_tokens for report in reports] == [64, 64, 0, 0, 0, 0, 0]
    engine = open_engine(EMBEDDED, max_batch=8, device_memory=40_000_000)
    whole = bench.run(engine, sequences=2, prompt_tokens=40, new_tokens=6, prefill_steps=4)
    engine.close()
    assert [report.prefill_tokens for report in whole] == [80, 0, 0, 0, 0, 0], "nothing was left to skip"
    done = sorted((one.request_id, len(one.token_ids)) for report in reports for one in report.completions)
    assert done == [(number, 6) for number in range(8)]


def test_measuring_a_machine_gives_rates_that_plan_and_a_file_can_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "MATRIX", (256, 128))
    monkeypatch.setattr(measure, "ROTATED_NBYTES", 2**20)
    monkeypatch.setattr(measure, "DISK_NBYTES", 2 * measure.READ_NBYTES)
    found = measure.measure_machine("cpu", tmp_path)
    assert found.device == "cpu"
    numbers = [found.move_nbytes_per_s, found.memory_nbytes_per_s, *found.attention_nbytes_per_s.values()]
    assert all(number > 0 for number in numbers)
    assert sorted(found.weight_s) == ["bf16", "int4", "int8"]
    assert all([rows for rows, _ in table] == list(measure.ROW_COUNTS) for table in found.weight_s.values())
    assert list(tmp_path.iterdir()) == [], "the file that was read is gone"
    save_rates(found, tmp_path / "rates.json")
    assert Rates.from_dict(json.loads((tmp_path / "rates.json").read_text())) == found


def test_a_probe_multiplies_as_many_copies_of_a_matrix_as_the_full_measurement(monkeypatch):
    """Half as many stay in the caches: it was too fast by a third, and the best of both is kept."""
    found: list[list[int]] = [[], []]
    monkeypatch.setattr(measure, "MATRIX", (256, 128))
    monkeypatch.setattr(measure, "ROTATED_NBYTES", 3 * 256 * 128 * 2)
    for copies, until in zip(found, (None, time.monotonic() + 1000), strict=True):
        monkeypatch.setattr(
            measure, "_multiply", lambda _matmul, _x, matrices, copies=copies: copies.append(len(matrices))
        )
        for stored_as in ("bf16", "int8"):
            assert [rows for rows, _ in measure._matrix(stored_as, torch.device("cpu"), (1, 8), 1, until)] == [1, 8]
    assert found == [[3] * 4 + [5] * 4] * 2, "of two bytes, and of one and its scales"


def test_a_disk_is_as_fast_as_what_was_read_and_a_short_file_is_an_error(tmp_path):
    """What could not be read counted as read in no time."""
    path = tmp_path / "experts.safetensors"
    path.write_bytes(bytes(2**16))
    assert measure.disk_nbytes_per_s(path, [(0, 2**15), (2**15, 2**15)]) > 0
    num_open = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ModelError, match=r"experts\.safetensors: 65,536 of 98,304 bytes could be read; pack the model"):
        measure.disk_nbytes_per_s(path, [(0, 2**15), (2**15, 2**15), (2**16, 2**15)])
    with pytest.raises(ModelError, match=r"missing: cannot be read \(No such file or directory\)"):
        measure.disk_nbytes_per_s(tmp_path / "missing", [(0, 2**15)])
    with pytest.raises(ModelError, match=r"cannot be read \(Is a directory\)"):
        measure.disk_nbytes_per_s(tmp_path, [(0, 2**15)])
    assert len(list(Path("/proc/self/fd").iterdir())) == num_open


def test_plan_knows_hours_once_the_machine_was_measured(make_repository, measured):
    root = make_repository({"a.py": "def f():\n    return 1\n\n\ndef g():\n    return f()\n"})
    assert rotary("index", root).returncode == 0
    found = json.loads(rotary("plan", root, "--for", "1h", "--device-memory", "40MB", "--json").stdout)
    (model,) = found["models"]
    assert model["items"] == sum(row["items"] for row in found["repositories"][0]["open"].values())
    assert (model["binding"] in {"compute", "moving experts"}, model["items_by_deadline"]) == (True, model["items"])
    assert 0 < model["hours"] < 1
    shown = rotary("plan", root).stdout
    assert "least time for everything" in shown
    assert "exact numerics, as set here, take longer" in shown


def test_plan_without_rates_names_the_command_that_measures(make_repository):
    root = make_repository({"a.py": "def f():\n    return 1\n"})
    assert rotary("index", root).returncode == 0
    done = rotary("plan", root)
    assert done.returncode == 0
    assert "bench --machine --device cpu" in done.stdout


def test_the_best_next_action_is_the_one_that_shortens_the_night_most(monkeypatch, tmp_path):
    """`small` in bf16 behind a slow link: int4 experts, by far."""
    manifest = Manifest.load(synthetic_pack(tmp_path / "p", "tiny", SHAPES["small"], "bf16", "bf16", repeated=True))
    monkeypatch.setattr(commands.plan, "cached_rates", lambda *_: RATES)
    settings = Settings(device_memory=500_000_000, numerics="fast")
    found = commands.plan.forecast(manifest, settings, Workload(500, 300, 100, 600), window_s=60.0)
    assert found["binding"] == "moving experts"
    assert found["best_next"].startswith("int4 experts: ")
    assert found["items_by_deadline"] < 500
    with pytest.raises(UnavailableError, match="try --device-memory"):
        commands.plan.forecast(manifest, Settings(device_memory=10**8), Workload(500, 300, 100, 600), None)


def test_a_drain_that_computes_otherwise_than_the_index_is_refused(make_repository):
    root = make_repository({"a.py": "def f():\n    return 1\n"})
    assert rotary("index", root).returncode == 0
    for flags in (["--numerics", "fast"], ["--kv", "int8"]):
        done = rotary("drain", root, *flags)
        assert done.returncode == 3
        assert "indexed with another job, prompts, numerics or --kv" in done.stderr
    assert rotary("index", root, "--kv", "int8").returncode == 0
    assert rotary("drain", root, "--kv", "int8").returncode == 0


def test_repeated_slabs_make_an_engine_like_any_other(tmp_path):
    import dataclasses

    geometry = dataclasses.replace(
        SHAPES["small"], hidden_size=128, head_dim=8, intermediate_size=256, num_layers=2, vocab_size=300
    )
    small = synthetic_pack(tmp_path / "few", "few", geometry, "int4", "int8", repeated=True)
    full = synthetic_pack(tmp_path / "all", "all", geometry, "int4", "int8")
    assert (small / "experts.safetensors").stat().st_size * 3 < (full / "experts.safetensors").stat().st_size
    answers = []
    for folder in (small, full):
        engine = open_engine(folder, numerics="exact")
        answers.append(engine.logits([1, 2, 3]))
        engine.close()
    assert torch.equal(*answers)


@pytest.mark.parametrize(("numerics", "has_bound"), [("fast", True), ("exact", False)])
def test_a_revolution_is_beside_a_bound_of_its_own_numerics_or_of_none(measured, tiny_pack, numerics, has_bound):
    """Exact numerics once showed 7 % of what fast ones could do: rates are measured in fast ones alone."""
    engine = open_engine(tiny_pack, numerics=numerics)
    engine.admit(Request(request_id=1, prompt_ids=(5, 6, 7), max_new_tokens=2))
    assert (engine.step().roofline_s > 0) is has_bound
    engine.close()
