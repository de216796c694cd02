"""Which experts a pack uses on held-out prompts: load, how well routers foresee each other, reuse.

Knows routing records; the figures themselves are those of the cache simulation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cache_sim import Trace, recall, reuse
from rotary_batch.engine import open_engine
from rotary_batch.model.tokens import Tokenizer
from training.corpus import Example

NEW_TOKENS = 40


class Routing(NamedTuple):
    """BenchResult of one pack."""

    loads: list[list[float]]  # for each layer, each expert's share of all assignments
    recall_1: float
    recall_2: float
    reuse: float
    chance: float
    num_steps: int


def routing(pack_dir: Path, examples: Sequence[Example]) -> Routing:
    """Answer prompts one at a time, so that a decode step has one row, and look at what was routed."""
    tokenizer = Tokenizer.load(pack_dir)
    engine = open_engine(pack_dir, routing=True, max_batch=1, share_prefixes=False, draft_tokens=0)
    for example in examples:
        engine.generate([tokenizer.encode_chat(example.prompt)], NEW_TOKENS)
    shape, steps = engine.manifest.geometry, engine.trace.routing
    engine.close()
    counts = [Counter[int]() for _ in range(shape.num_layers)]
    for step in steps:
        counts[step.layer].update(expert for chosen in step.chosen for expert in chosen)
    loads = [[count[expert] / count.total() for expert in range(shape.num_experts)] for count in counts]
    single = [step for step in steps if len(step.chosen) == 1]
    trace = Trace(
        shape.num_layers,
        shape.num_experts,
        shape.top_k,
        [(step.layer, step.chosen[0]) for step in single],
        [step.predicted for step in single],
    )
    far = [recall(trace, distance, shape.top_k) for distance in (1, 2)]
    return Routing(loads, *far, reuse(trace), shape.top_k / shape.num_experts, len(single))
