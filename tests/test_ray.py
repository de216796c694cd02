"""Engines on a cluster: what a node does by itself, who is let in, and a run whose nodes die.

The contract of pools is in test_pools.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rotary_batch.cli.report import print_report
from rotary_batch.cli.status import print_status
from rotary_batch.commands.cluster import num_workers, open_on_node, placement_of
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.commands.engines import open_engine
from rotary_batch.commands.report_page import page
from rotary_batch.commands.reports import markdown
from rotary_batch.commands.run_report import RunReport
from rotary_batch.config import Settings, user_values
from rotary_batch.core import Loss, NodeStep, Request, StepReport
from rotary_batch.errors import ConfigError, DeviceMemoryError, ModelError, UnavailableError, UsageError
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.pool import ray_cluster
from rotary_batch.pool.ray_actor import Bursts, EngineHost, Orders
from rotary_batch.run_stats import RunStats
from rotary_batch.testing import FakeEngine
from tests.ray_nights import RayNight, wait_for
from tests.ray_nodes import ENVIRONMENT, RESOURCE, cluster, engines_of, environment, needs_ray

REQUESTS = tuple(Request(request_id=number, prompt_ids=(1, number), max_new_tokens=9) for number in range(1, 7))
FUNCTIONS = "".join(f"def part_{n}(a, b):\n    total = a + {n}\n    return total * b\n\n\n" for n in range(8))
FILES = {"a.py": FUNCTIONS, "b.py": FUNCTIONS.replace("part", "piece"), "src/c.py": FUNCTIONS.replace("part", "slice")}
NODES = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}, {"rotary": 3.0}]


class Engine(FakeEngine):
    rates = None

    def __init__(self) -> None:
        super().__init__(max_batch=4, answer_tokens=5)
        self.fails_at = -1
        self.num_steps = 0

    def step(self) -> StepReport:
        self.num_steps += 1
        if self.num_steps == self.fails_at:
            raise DeviceMemoryError("full")
        return replace(super().step(), step_s=0.5)


def opened(**bursts: Any) -> tuple[EngineHost, Engine]:
    engine = Engine()
    host = EngineHost(lambda _: engine, Bursts(**bursts))
    assert host.open() == ("answer", (None, []))
    engine.num_steps = 0
    return host, engine


def test_a_node_reports_some_revolutions_as_one_step():
    host, _ = opened(revolutions=3)
    kind, burst = host.step(Orders(requests=REQUESTS[:2]))
    assert (kind, burst.num_waiting) == ("answer", 0)
    assert [(new.request_id, len(new.token_ids)) for new in burst.report.new_tokens] == [(1, 3), (2, 3)]
    assert (burst.report.revolutions, burst.report.step_s, burst.report.decode_tokens) == (3, 1.5, 6)


def test_a_node_fills_free_places_by_itself_and_reports_at_once_when_it_cannot():
    host, _ = opened(revolutions=100)
    _, burst = host.step(Orders(requests=REQUESTS))
    assert [done.request_id for done in burst.report.completions] == [1, 2, 3, 4, 5, 6]
    assert burst.report.revolutions == 10, "five for four of them, five for the two that waited"
    _, burst = host.step(Orders(requests=REQUESTS[:1], dropped=frozenset({5})))
    assert (len(burst.report.completions), burst.report.revolutions) == (1, 5)


def test_an_error_after_some_revolutions_comes_with_the_next_burst():
    host, engine = opened(revolutions=4)
    engine.fails_at = 3
    _, burst = host.step(Orders(requests=REQUESTS[:1]))
    kind, error = host.step(Orders())
    assert (burst.report.revolutions, kind, type(error)) == (2, "error", DeviceMemoryError)


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        (Settings(), 2),
        (Settings(device="cuda"), 2),
        (Settings(ray_resource="rotary"), 3),
        (Settings(ray_resource="CPU=4"), 3),
        (Settings(ray_workers=7), 7),
        (Settings(ray_resource="none"), 1),
    ],
)
def test_there_are_as_many_engines_as_fit(settings, workers):
    assert num_workers(settings, NODES) == workers
    assert placement_of(Settings(device="cuda:1")).num_gpus == 1.0


@pytest.mark.parametrize("name", ["ray", "ray_resource", "ray_workers"])
def test_a_wrong_address_or_resource_is_refused(name):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: 'a b' is not"):
        user_values(flags={name: "a b"}, environment={}, folders=(), config=None)


def test_without_a_token_no_cluster_is_joined(tmp_path):
    with pytest.raises(ConfigError, match="there is no token for the Ray cluster: set RAY_AUTH_TOKEN"):
        ray_cluster._prepare({"HOME": str(tmp_path)}, insecure=False)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("x" * 32)
    values = {"HOME": str(tmp_path)}
    ray_cluster._prepare(values, insecure=False)
    assert (values["RAY_AUTH_MODE"], values["RAY_USAGE_STATS_ENABLED"]) == ("token", "0")


def test_a_node_with_other_weights_or_none_says_so(tmp_path):
    def opening(pack: Path, digest: str) -> None:
        open_on_node(Settings(), pack, digest, EngineOptions(), open_engine, lambda _: None)

    with pytest.raises(ModelError, match=f"{tmp_path}: no such pack; copy the driver's to the same path"):
        opening(tmp_path, "")
    with pytest.raises(ModelError, match="has other weights than the driver's"):
        opening(EMBEDDED, "another")


def printed(capsys, report: RunReport) -> str:
    print_report(report)
    return capsys.readouterr().out


def test_the_report_and_status_say_what_each_node_did(capsys):
    stats = RunStats(drain_s=10.0)
    stats.add_step(StepReport(nodes=(NodeStep("one/a1", 3, 100, 20, 2.0), NodeStep("two/b2", 1, 60, 10, 2.5))))
    stats.add_step(StepReport(nodes=(NodeStep("two/b2", 0, 900, 30, 2.5),)))
    stats.add_loss(Loss(request_ids=(1, 2, 3), error="gone", node="one/a1"), 3)
    lines = [
        "two/b2: 1 answer, 1,000 tokens, 100 a second of the run",
        "one/a1: 3 answers, 120 tokens, 12 a second of the run; lost 1 engine, 3 items leased again",
    ]
    plain = stats.as_dict()
    assert (stats.engines_died, plain["nodes"]["two/b2"]["step_s"]) == (1, 5.0)
    at = "2026-11-27T23:00:03+00:00"
    report = RunReport(
        run=1, command="run", database="/w.db", model=None, outcome="done", started_at=at, ended_at=at, stats=plain
    )
    alone = replace(report, stats=RunStats().as_dict())
    running = {"started_at": at, "progress": None, "activity": None, **{n: plain[n] for n in ("drain_s", "nodes")}}
    answer = {"repositories": [], "driver_pid": 1, "last_run": None, "running": running}
    for text in (printed(capsys, report), markdown(report), page(report, [])):
        assert all(line in text for line in lines), text
    for text in (printed(capsys, alone), markdown(alone), page(alone, [])):
        assert "Nodes of the cluster" not in text
    print_status(answer)
    assert capsys.readouterr().out.splitlines()[-2:] == [f"  {line}" for line in lines]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, kernels_folder):
    """A head and two nodes: a cluster of three.  Its engines have the kernels that other tests compiled."""
    cache = tmp_path_factory.mktemp("nodes")
    (cache / "rotary-batch").mkdir()
    (cache / "rotary-batch" / "kernels").symlink_to(kernels_folder)
    with environment({"XDG_CACHE_HOME": str(cache)}), cluster(num_nodes=2) as started:
        yield started


def words(root: Path, state: str, *options: str) -> tuple[list[str], dict[str, str]]:
    env = os.environ | ENVIRONMENT | {"XDG_STATE_HOME": str(root.parent / state)}
    return [sys.executable, "-m", "rotary_batch", "run", str(root), *options], env


def on_cluster(nodes: Any) -> list[str]:
    return ["--ray", nodes.address, "--ray-resource", RESOURCE, "--ray-workers", "2"]


def pages(root: Path) -> dict[Path, bytes]:
    docs = root / "rotary-docs"
    found = {path.relative_to(docs): path.read_bytes() for path in docs.rglob("*") if path.is_file()}
    shutil.rmtree(docs)
    return found


@pytest.fixture
def root(make_repository) -> Path:
    return make_repository(FILES)


@pytest.fixture
def expected(root) -> tuple[dict[Path, bytes], int]:
    """What a single process writes, and of how many tokens."""
    command, env = words(root, "single", "--json")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return pages(root), json.loads(done.stdout)[0]["decode_tokens"]


@needs_ray
def test_a_run_writes_the_same_pages_on_a_cluster(nodes, root, expected):
    command, env = words(root, "cluster", *on_cluster(nodes), "--json")
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    assert (report["open"], report["parked"], report["outcome"], report["engines_died"]) == (0, 0, "done", 0)
    of_nodes = report["nodes"].values()
    sums = [sum(one[name] for one in of_nodes) for name in ("answers", "prompt_tokens", "generated_tokens")]
    assert sums == [report["done"], report["prefill_tokens"], report["decode_tokens"]]
    assert {one["engines_lost"] for one in of_nodes} == {0}
    assert (pages(root), report["decode_tokens"]) == expected


@needs_ray
def test_a_drain_whose_engines_are_killed_loses_nothing_and_does_nothing_twice(nodes, root, expected, tmp_path):
    """All that are open: which of them has the work is chance.  What Ray says of it is not in the answer."""
    night = RayNight(root, tmp_path / "night")
    night.finish(command="index")
    drain = night.start(nodes.address, "drain")
    wait_for(night.is_in_mid_answer, "answer")
    for pid in [pid for node in nodes.worker_nodes for pid in engines_of(node)]:
        os.kill(pid, signal.SIGKILL)
    answer, errors = drain.communicate(timeout=100)
    assert drain.returncode == 0, errors
    (report,) = json.loads(answer)
    assert (report["open"], report["parked"], report["outcome"]) == (0, 0, "done")
    states, attempts = night.standing()
    assert states == {"done"}
    assert attempts <= report["engines_died"] >= 1, "one that was alone in its engine may be what killed it"
    night.finish()  # a run that finds nothing to do but the pages
    assert (night.pages(), report["decode_tokens"]) == expected


@needs_ray
def test_a_cluster_that_is_not_there_or_has_another_token_is_not_joined(nodes):
    with environment(ENVIRONMENT), pytest.raises(UnavailableError, match="cannot be reached"):
        ray_cluster._require_reachable("127.0.0.1:1")
    ray_cluster._require_closed(nodes.address)
