"""Replay routing over cache policies: `python -m benchmarks.cache_sim [TRACE.jsonl]`.  Writes cache_sim.md.

Without a trace the embedded model documents functions of the standard library, one at a time, and its own routing is
replayed; with one, that of `bench --sequences 1 --trace`.  Random routing of the same shape is the control.  Only
decode steps of one row count.  A hit = the expert is in its slot when its layer asks for it.  Policies: LRU over all
layers, LRU for each layer (what the engine does), a fixed set, and Belady's (which knows the future; the optimum).
"""

from __future__ import annotations

import json
import random
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.deviation import functions
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.core import ExpertKey
from rotary_batch.engine import open_engine
from rotary_batch.model.tokens import Tokenizer

HERE = Path(__file__).parent
NUM_PROMPTS, NEW_TOKENS = 60, 40
SLOTS_PER_LAYER = (1, 2, 3, 4, 6)


class Trace(NamedTuple):
    """Decode steps of one row: for each layer what was chosen, and what was predicted there for later layers."""

    num_layers: int
    num_experts: int
    top_k: int
    chosen: list[tuple[int, list[int]]]  # layer, experts
    likely: list[dict[int, list[int]]]  # distance -> experts of the layer so far ahead


def own_trace() -> Trace:
    """Routing of the embedded model on real code."""
    tokenizer, engine = Tokenizer.load(EMBEDDED), open_engine(EMBEDDED, routing=True, max_batch=1, share_prefixes=False)
    for _, source in zip(range(NUM_PROMPTS), functions(), strict=False):
        engine.generate([tokenizer.encode_chat(source)], NEW_TOKENS)
    geometry, steps = engine.manifest.geometry, engine.trace.routing
    engine.close()
    single = [step for step in steps if len(step.chosen) == 1]
    return Trace(
        geometry.num_layers,
        geometry.num_experts,
        geometry.top_k,
        [(step.layer, step.chosen[0]) for step in single],
        [step.predicted for step in single],
    )


def read_trace(path: Path) -> Trace:
    """A trace that `bench` recorded."""
    head, *steps = (json.loads(line) for line in path.read_text().splitlines())
    single = [step for step in steps if len(step["chosen"]) == 1]
    likely = [{int(d): ids for d, ids in step["likely"].items()} for step in single]
    return Trace(
        head["layers"], head["experts"], head["top_k"], [(step["layer"], step["chosen"][0]) for step in single], likely
    )


def random_trace(like: Trace) -> Trace:
    """The control: every layer of every step asks for experts drawn evenly, predictions as well."""
    draw = random.Random(0)
    pick = lambda: draw.sample(range(like.num_experts), like.top_k)  # noqa: E731
    chosen = [(layer, pick()) for layer, _ in like.chosen]
    return like._replace(chosen=chosen, likely=[{d: pick() for d in ids} for ids in like.likely])


def asked(trace: Trace) -> list[ExpertKey]:
    return [ExpertKey(layer, expert) for layer, experts in trace.chosen for expert in experts]


def lru(keys: Sequence[ExpertKey], slots: int) -> float:
    """Share of hits when the least recently used goes."""
    cache: OrderedDict[ExpertKey, None] = OrderedDict()
    hits = 0
    for key in keys:
        hits += key in cache
        cache[key] = None
        cache.move_to_end(key)
        if len(cache) > slots:
            cache.popitem(last=False)
    return hits / len(keys)


def by_layer(policy: Callable[[Sequence[ExpertKey], int], float], keys: Sequence[ExpertKey], slots: int) -> float:
    """A policy with slots of its own for each layer."""
    layers: dict[int, list[ExpertKey]] = defaultdict(list)
    for key in keys:
        layers[key.layer].append(key)
    return sum(policy(mine, slots) * len(mine) for mine in layers.values()) / len(keys)


def fixed(keys: Sequence[ExpertKey], slots: int) -> float:
    """The first experts of a layer, for good."""
    return sum(key.expert < slots for key in keys) / len(keys)


def belady(keys: Sequence[ExpertKey], slots: int) -> float:
    """The one that is asked for again last goes."""
    following: list[int] = [0] * len(keys)
    seen: dict[ExpertKey, int] = {}
    for place in range(len(keys) - 1, -1, -1):
        following[place] = seen.get(keys[place], len(keys))
        seen[keys[place]] = place
    cache: dict[ExpertKey, int] = {}
    hits = 0
    for place, key in enumerate(keys):
        hits += key in cache
        if key not in cache and len(cache) >= slots:
            victim = max(cache, key=cache.__getitem__)
            if cache[victim] < following[place]:
                continue  # the newcomer itself is needed last
            del cache[victim]
        cache[key] = following[place]
    return hits / len(keys)


def recall(trace: Trace, distance: int, width: int) -> float:
    """Share of asked experts that were among the `width` likeliest so many layers before."""
    right = total = 0
    for place, predicted in enumerate(trace.likely):
        ahead = place + distance
        if (
            distance in predicted
            and ahead < len(trace.chosen)
            and trace.chosen[ahead][0] == trace.chosen[place][0] + distance
        ):
            right += len(set(predicted[distance][:width]) & set(trace.chosen[ahead][1]))
            total += trace.top_k
    return right / max(1, total)


def reuse(trace: Trace) -> float:
    """Share of asked experts that the token before asked the same layer for."""
    last: dict[int, set[int]] = {}
    right = total = 0
    for layer, experts in trace.chosen:
        if layer in last:
            right += len(last[layer] & set(experts))
            total += len(experts)
        last[layer] = set(experts)
    return right / max(1, total)


def table(name: str, trace: Trace) -> list[str]:
    keys = asked(trace)
    lines = [
        f"## {name}",
        "",
        f"{len(trace.chosen):,} layer steps, {trace.num_layers} layers of {trace.num_experts} experts, top {trace.top_k}.",
        f"Recall of the next layer's router: {recall(trace, 1, trace.top_k):.1%} one layer ahead, {recall(trace, 2, trace.top_k):.1%} two",
        f"({trace.top_k / trace.num_experts:.0%} would be chance).  EncodedPrompt for by the token before: {reuse(trace):.1%}.",
        "",
        "| Slots a layer | LRU over all | LRU by layer | Fixed | Belady |",
        "| --- | --- | --- | --- | --- |",
    ]
    for slots in SLOTS_PER_LAYER:
        found = [
            lru(keys, slots * trace.num_layers),
            by_layer(lru, keys, slots),
            fixed(keys, slots),
            by_layer(belady, keys, slots),
        ]
        lines.append(f"| {slots} | " + " | ".join(f"{share:.1%}" for share in found) + " |")
    return [*lines, ""]


def main() -> None:
    trace = read_trace(Path(sys.argv[1])) if sys.argv[1:] else own_trace()
    lines = ["# Hits of cache policies on recorded routing", "", "Command: `python -m benchmarks.cache_sim`.", ""]
    lines += table("Embedded model, functions of the standard library" if not sys.argv[1:] else sys.argv[1], trace)
    lines += table("Random routing (control)", random_trace(trace))
    (HERE / "cache_sim.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
