"""Which chunk waits for the answers on which others: those that it uses, without cycles, and not many after each other.

A chunk in a cycle waits for nothing in it.  A chain of waits has at most MAX_WAITS links, so that batches stay wide: a
chunk does not wait for one that waits itself through that many.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from rotary_batch.repo.components import strongly_connected

MAX_WAITS = 4
Node = TypeVar("Node", bound=Hashable)


def waits(edges: Mapping[Node, Sequence[Node]]) -> dict[Node, list[Node]]:
    """Node -> those that it waits for, each before those that wait for it.  `edges` has what each node uses."""
    component: dict[Node, int] = {}
    level: dict[int, int] = {}
    order: dict[Node, list[Node]] = {}
    for number, nodes in enumerate(strongly_connected(edges)):
        component |= dict.fromkeys(nodes, number)
        kept = {node: _outside(node, edges.get(node, ()), component, level) for node in nodes}
        levels = [level[component[target]] + 1 for targets in kept.values() for target in targets]
        level[number] = max(levels, default=0)
        order |= kept
    return order


def _outside(
    node: Node, targets: Sequence[Node], component: Mapping[Node, int], level: Mapping[int, int]
) -> list[Node]:
    """The targets in other components whose own chain of waits has room for one more."""
    own = component[node]
    return [one for one in targets if component[one] != own and level[component[one]] < MAX_WAITS]
