"""What the nodes of a cluster did, in words: a line for each, in reports and in `status`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rotary_batch.sizes import count


def node_lines(nodes: Mapping[str, Mapping[str, Any]], drain_s: float) -> list[str]:
    """The node that did most comes first.  `nodes` are those of `run_stats.RunStats`, as plain data."""
    rows = sorted(nodes.items(), key=lambda row: (-_num_tokens(row[1]), row[0]))
    return [f"{name}: {_did(node, drain_s)}{_lost(node)}" for name, node in rows]


def _num_tokens(node: Mapping[str, Any]) -> int:
    return int(node["prompt_tokens"] + node["generated_tokens"])


def _did(node: Mapping[str, Any], drain_s: float) -> str:
    num_tokens = _num_tokens(node)
    rate = f", {num_tokens / drain_s:,.0f} a second of the run" if drain_s else ""
    return f"{count(node['answers'], 'answer')}, {count(num_tokens, 'token')}{rate}"


def _lost(node: Mapping[str, Any]) -> str:
    if not node["engines_lost"]:
        return ""
    engines, items = count(node["engines_lost"], "engine"), count(node["items_leased_again"], "item")
    return f"; lost {engines}, {items} leased again"
