"""Strongly connected components: whole, in order, and without recursion."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.repo.components import strongly_connected


def reach(edges: dict[int, list[int]], start: int) -> set[int]:
    seen, waiting = {start}, [start]
    while waiting:
        for target in edges.get(waiting.pop(), ()):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


@given(st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=4), max_size=9))
def test_nodes_that_reach_each_other_are_together_and_what_is_used_comes_first(edges):
    nodes = set(edges) | {target for targets in edges.values() for target in targets}
    reached = {node: reach(edges, node) for node in nodes}
    components = strongly_connected(edges)
    assert sorted(node for one in components for node in one) == sorted(nodes)
    for one in components:
        assert set(one) == {node for node in reached[one[0]] if one[0] in reached[node]}
    place = {node: number for number, one in enumerate(components) for node in one}
    assert all(place[node] >= place[target] for node in edges for target in edges[node])


def test_a_ring_and_a_chain_of_100_000_take_no_recursion():
    ring = {number: [(number + 1) % 100_000] for number in range(100_000)}
    assert [len(one) for one in strongly_connected(ring)] == [100_000]
    chain = {number: [number + 1] for number in range(100_000)}
    assert strongly_connected(chain)[0] == [100_000]
