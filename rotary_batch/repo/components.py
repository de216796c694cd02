"""Cycles of a graph: its strongly connected components."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def strongly_connected(edges: Mapping[Node, Sequence[Node]]) -> list[list[Node]]:
    """The components of a graph, what is used before what uses it.  Tarjan's algorithm, without recursion.

    `edges` has the targets of each node; a node may be a target only.
    """
    number: dict[Node, int] = {}
    lowest: dict[Node, int] = {}
    open_nodes: dict[Node, None] = {}  # visited, of no component yet; in order
    components: list[list[Node]] = []
    for start in edges:
        if start in number:
            continue
        number[start] = lowest[start] = len(number)
        open_nodes[start] = None
        path: list[tuple[Node, Iterator[Node]]] = [(start, iter(edges.get(start, ())))]
        while path:
            node, targets = path[-1]
            target = next((one for one in targets if one not in number or one in open_nodes), None)
            if target is None:
                path.pop()
                if path:
                    above = path[-1][0]
                    lowest[above] = min(lowest[above], lowest[node])
                if lowest[node] == number[node]:
                    components.append(_taken(open_nodes, node))
            elif target in number:
                lowest[node] = min(lowest[node], number[target])
            else:
                number[target] = lowest[target] = len(number)
                open_nodes[target] = None
                path.append((target, iter(edges.get(target, ()))))
    return components


def _taken(open_nodes: dict[Node, None], first: Node) -> list[Node]:
    """Take out a node and all that were opened after it."""
    taken: list[Node] = []
    while not taken or taken[-1] != first:
        taken.append(open_nodes.popitem()[0])
    return taken[::-1]
