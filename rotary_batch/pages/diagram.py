"""Which part of a folder uses which other: a small graph, as Mermaid text that code forges draw.

The built site has no Mermaid, which themes load from another host: `drawing.py` draws the same text as SVG.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from rotary_batch.pages.sanitise import one_line

MAX_NODES = 12
MAX_EDGES = 24
MAX_LABEL_CHARACTERS = 40
_HEAD = "flowchart TD"
_NODE = re.compile(r'  n(\d+)\["([^"\n]*)"\]')
_EDGE = re.compile(r"  n(\d+) --> n(\d+)")
_PLAIN = re.compile(r"[^\w ./+\-]")


class Diagram(NamedTuple):
    """A directed graph; an edge is a pair of positions in `labels`."""

    labels: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]


def diagram(uses: Mapping[tuple[str, str], int], left_out: Iterable[str] = ()) -> Diagram | None:
    """The heaviest edges between the parts of a folder; None when there is nothing to draw.

    `uses` has (user, used) -> number of uses.
    """
    without = set(left_out)
    edges = {pair: n for pair, n in uses.items() if pair[0] != pair[1] and without.isdisjoint(pair)}
    weights: Counter[str] = Counter()
    for pair, number in edges.items():
        weights.update(dict.fromkeys(pair, number))
    names = sorted(sorted(weights, key=lambda name: (-weights[name], name))[:MAX_NODES])
    position = {name: place for place, name in enumerate(names)}
    heaviest = sorted(edges, key=lambda pair: (-edges[pair], pair))
    kept = [pair for pair in heaviest if pair[0] in position and pair[1] in position][:MAX_EDGES]
    shown = sorted((position[user], position[used]) for user, used in kept)
    return Diagram(tuple(map(label_of, names)), tuple(shown)) if shown else None


def label_of(name: str) -> str:
    """A label of letters that mean nothing to Mermaid."""
    text = _PLAIN.sub("_", one_line(name)) or "_"
    return text if len(text) <= MAX_LABEL_CHARACTERS else text[: MAX_LABEL_CHARACTERS - 1] + "…"


def mermaid(graph: Diagram) -> str:
    """The fenced block of a diagram."""
    nodes = [f'  n{place}["{label}"]' for place, label in enumerate(graph.labels)]
    edges = [f"  n{user} --> n{used}" for user, used in graph.edges]
    return "\n".join(["```mermaid", _HEAD, *nodes, *edges, "```"])


def read_mermaid(text: str) -> Diagram | None:
    """Read back what `mermaid` wrote between the fences; None for any other text."""
    lines = text.strip("\n").split("\n")
    if lines[0] != _HEAD or len(lines) > 1 + MAX_NODES + MAX_EDGES:
        return None
    nodes = [match for line in lines[1:] if (match := _NODE.fullmatch(line))]
    edges = [match for line in lines[1:] if (match := _EDGE.fullmatch(line))]
    pairs = tuple((int(match[1]), int(match[2])) for match in edges)
    is_ours = len(nodes) + len(edges) + 1 == len(lines) and [int(node[1]) for node in nodes] == list(range(len(nodes)))
    if not is_ours or not nodes or any(place >= len(nodes) for pair in pairs for place in pair):
        return None
    return Diagram(tuple(node[2] for node in nodes), pairs)
