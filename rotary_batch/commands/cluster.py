"""Engines on the nodes of a Ray cluster: how many, where, and that each has the same model."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rotary_batch.commands.engines import OpenEngine, open_measured
from rotary_batch.config import Settings, named_amount
from rotary_batch.errors import ModelError
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.pool.hosted import Opener, Phase, RatedEngine
from rotary_batch.pool.pool import Pool
from rotary_batch.pool.ray_cluster import connect, node_resources
from rotary_batch.pool.ray_pool import Placement, ray_pool


def placement_of(settings: Settings) -> Placement:
    """What an engine needs of a node: the resource that is named, else a GPU, else a processor."""
    if settings.ray_resource is not None:
        name, amount = named_amount(settings.ray_resource)
        return Placement(resources={name: amount})
    return Placement(num_gpus=1.0) if settings.device.startswith("cuda") else Placement(num_cpus=1.0)


def num_workers(settings: Settings, nodes: Sequence[dict[str, float]]) -> int:
    """How many engines there are: as set, else as many as fit; an engine without a GPU uses a whole node."""
    if settings.ray_workers is not None:
        return settings.ray_workers
    fits = [placement_of(settings).fits(node) for node in nodes]
    is_whole_node = settings.ray_resource is None and settings.device == "cpu"
    return max(1, sum(min(one, 1) if is_whole_node else one for one in fits))


def cluster_pool(
    settings: Settings, opener: Callable[[], Opener], phase: Phase, opening: Callable[[], AbstractContextManager[None]]
) -> Pool:
    """The engines of a cluster; nothing is opened yet.  Raises ConfigError, UnavailableError."""
    phase("joining the Ray cluster")
    with opening():
        connect(settings.ray or "", insecure=settings.insecure_ray)
    nodes, placement = node_resources(), placement_of(settings)
    is_placed = any(placement.fits(node) for node in nodes)
    phase("opening the model on the nodes" if is_placed else "waiting for a node that has what --ray-resource names")
    return ray_pool(opener, num_engines=num_workers(settings, nodes), placement=placement, opening=opening)


def open_on_node(
    settings: Settings, pack: Path, digest: str, options: EngineOptions, open_engine: OpenEngine, phase: Phase
) -> RatedEngine:
    """Open the pack of this node.  Raises ModelError unless its weights are those of the driver's."""
    where = f"node {socket.gethostname()}: {pack}"
    if not (pack / MANIFEST_NAME).is_file():
        raise ModelError(f"{where}: no such pack; copy the driver's to the same path on every node")
    if Manifest.load(pack).weights_digest != digest:
        raise ModelError(f"{where}: has other weights than the driver's; copy that one again")
    return open_measured(settings, pack, options, open_engine, phase)
