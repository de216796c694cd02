"""Draw a diagram as SVG: layers from top to bottom, users above what they use.  Colours come from the page."""

from __future__ import annotations

import html
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rotary_batch.pages.diagram import Diagram, read_mermaid

MAX_IN_ROW = 5
SWEEPS = 4  # of the barycentre heuristic (Sugiyama, Tagawa, Toda 1981)
_CHARACTER_WIDTH = 7.4  # of a monospaced letter of 12 px, with room
_PADDING, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 14, 32, 28, 46, 8


_BLOCK = re.compile(r"^```mermaid\n(.{1,5000}?)\n```$", re.DOTALL | re.MULTILINE)


def with_drawings(page: str, links: Mapping[str, str]) -> str:
    """A page of Markdown with its diagrams drawn; `links` has label -> target of a link."""

    def drawn(block: re.Match[str]) -> str:
        graph = read_mermaid(block[1])
        return block[0] if graph is None else f'<div class="rb-diagram">{svg(graph, links)}</div>'

    return _BLOCK.sub(drawn, page)


class _Box(NamedTuple):
    x: float  # of its centre
    y: float  # of its upper edge
    width: float


def svg(graph: Diagram, links: Mapping[str, str]) -> str:
    """One line of SVG; `links` has label -> target of a link."""
    boxes = _boxes(graph)
    width = max(box.x + box.width / 2 for box in boxes) + _MARGIN
    height = max(box.y for box in boxes) + _HEIGHT + _MARGIN
    edges = "".join(_edge(boxes[user], boxes[used]) for user, used in graph.edges)
    nodes = "".join(_node(box, label, links.get(label)) for box, label in zip(boxes, graph.labels, strict=True))
    return (
        f'<svg class="rb-map" role="img" aria-label="{_description(graph)}" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" xmlns="http://www.w3.org/2000/svg">'
        '<defs><marker id="rb-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>{edges}{nodes}</svg>'
    )


def _description(graph: Diagram) -> str:
    uses = (f"{graph.labels[user]} uses {graph.labels[used]}" for user, used in graph.edges)
    return html.escape("; ".join(uses))


def _node(box: _Box, label: str, target: str | None) -> str:
    shape = (
        f'<rect x="{box.x - box.width / 2:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{_HEIGHT}" rx="5"/>'
        f'<text x="{box.x:.1f}" y="{box.y + _HEIGHT / 2 + 4:.1f}" text-anchor="middle">{html.escape(label)}</text>'
    )
    return f'<a href="{html.escape(target)}">{shape}</a>' if target else f"<g>{shape}</g>"


def _edge(user: _Box, used: _Box) -> str:
    """A curve from the lower edge of the user to the upper edge of what it uses, or round the side."""
    start_y, end_y = user.y + _HEIGHT, used.y
    if end_y <= user.y:  # upwards, or in the same row
        start_y, end_y = user.y, used.y + _HEIGHT
        if used.y == user.y:
            start_y = end_y = user.y + _HEIGHT
    bend = max(24.0, abs(end_y - start_y) / 2)
    down = bend if end_y >= start_y else -bend
    end_bend = down if used.y == user.y else -down
    return (
        f'<path class="rb-edge" marker-end="url(#rb-arrow)" d="M{user.x:.1f} {start_y:.1f}C{user.x:.1f} '
        f'{start_y + down:.1f} {used.x:.1f} {end_y + end_bend:.1f} {used.x:.1f} {end_y:.1f}"/>'
    )


def _boxes(graph: Diagram) -> list[_Box]:
    widths = [len(label) * _CHARACTER_WIDTH + 2 * _PADDING for label in graph.labels]
    rows = _rows(graph)
    row_widths = [sum(widths[node] for node in row) + _GAP_X * (len(row) - 1) for row in rows]
    boxes: dict[int, _Box] = {}
    for number, (row, row_width) in enumerate(zip(rows, row_widths, strict=True)):
        x = _MARGIN + (max(row_widths) - row_width) / 2
        for node in row:
            boxes[node] = _Box(x + widths[node] / 2, _MARGIN + number * (_HEIGHT + _GAP_Y), widths[node])
            x += widths[node] + _GAP_X
    return [boxes[node] for node in range(len(graph.labels))]


def _rows(graph: Diagram) -> list[list[int]]:
    """The nodes in rows, ordered so that few edges cross."""
    layers: dict[int, list[int]] = defaultdict(list)
    for node, layer in enumerate(_layers(graph)):
        layers[layer].append(node)
    neighbours: dict[int, list[int]] = defaultdict(list)
    for user, used in graph.edges:
        neighbours[user].append(used)
        neighbours[used].append(user)
    rows = [layer[start : start + MAX_IN_ROW] for _, layer in sorted(layers.items()) for start in _starts(layer)]
    for _ in range(SWEEPS):
        place = {node: (at + 0.5) / len(row) for row in rows for at, node in enumerate(row)}
        for row in rows:
            row.sort(key=lambda node: (_mean([place[other] for other in neighbours[node]], place[node]), node))
    return rows


def _starts(layer: Sequence[int]) -> range:
    return range(0, len(layer), MAX_IN_ROW)


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _layers(graph: Diagram) -> list[int]:
    """The layer of each node: below everything that uses it, where edges form no cycle."""
    forward = _without_cycles(graph)
    layers = [0] * len(graph.labels)
    for _ in graph.labels:  # the longest path has fewer edges than there are nodes
        for user, used in forward:
            layers[used] = max(layers[used], layers[user] + 1)
    return layers


def _without_cycles(graph: Diagram) -> list[tuple[int, int]]:
    """The edges that go down in an order of the nodes by how much more they use than they are used."""
    balance = [0] * len(graph.labels)
    for user, used in graph.edges:
        balance[user] += 1
        balance[used] -= 1
    order = sorted(range(len(balance)), key=lambda node: (-balance[node], node))
    place = {node: at for at, node in enumerate(order)}
    return [(user, used) for user, used in graph.edges if place[user] < place[used]]
