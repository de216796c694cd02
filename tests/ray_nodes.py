"""A small Ray cluster on this machine: real nodes, each with processes of its own, and with a token."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TOKEN = "a token of the tests, which is long enough"
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_USAGE_STATS_ENABLED": "0",
    "ROTARY_BATCH_NUMERICS": "exact",  # with fast ones, answers depend on what else is in the batch
    "RAY_worker_niceness": "0",  # else engines get what other tests leave them
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of a change that is to come
}
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}  # the least that Ray takes is 75 MB
RESOURCE = "rotary"
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed: the extra [ray]")


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set for Ray, which reads it when it is imported, and for the nodes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        here = Path(__file__).parent
        patch.setenv("PYTHONPATH", f"{here.parent}{os.pathsep}{here}", prepend=os.pathsep)
        yield


@contextmanager
def cluster(*, num_nodes: int) -> Iterator[Any]:
    """A head that runs no engine, and nodes that run two each."""
    with environment(ENVIRONMENT):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
        nodes = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(num_nodes):
                add_node(nodes)
            yield nodes
        finally:
            import ray

            ray.shutdown()
            nodes.shutdown()


def add_node(nodes: Any) -> Any:
    return nodes.add_node(**NODE, resources={RESOURCE: 2}, wait=False)


def engines_of(node: Any) -> list[int]:
    """The processes of the engines on a node: Ray renames them."""
    raylet = node.all_processes["raylet"][0].process.pid
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    return [int(pid) for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::EngineHost")]
