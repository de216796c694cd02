"""The call graph in the formats of other programs: GraphML, DOT (Graphviz) and Mermaid.

Names come from a repository, so each format has one function that makes text harmless in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from html import escape
from typing import NamedTuple, TypeAlias

from rotary_batch.pages.sanitise import one_line

MAX_LABEL_CHARACTERS = 200
_NOT_XML = re.compile("[\ufffe\uffff]")  # the only ones that `one_line` leaves
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_./ ]|^[^A-Za-z]| $")  # in Mermaid; `1.` at the beginning would be a list


class Node(NamedTuple):
    """A symbol in a graph."""

    path: str
    name: str  # qualified
    line: int


Edge: TypeAlias = tuple[Node, Node]
_NodeLine = Callable[[str, Node], str]
_EdgeLine = Callable[[str, str], str]


def graphml(edges: Iterable[Edge]) -> Iterator[str]:
    """Lines of GraphML 1.0 (graphml.graphdrawing.org) with the attributes name, path and line."""
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    for name, kind in (("name", "string"), ("path", "string"), ("line", "int")):
        yield f'  <key id="{name}" for="node" attr.name="{name}" attr.type="{kind}"/>'
    yield '  <graph id="calls" edgedefault="directed">'
    yield from _lines(edges, _graphml_node, lambda one, other: f'    <edge source="{one}" target="{other}"/>')
    yield "  </graph>"
    yield "</graphml>"


def _graphml_node(key: str, node: Node) -> str:
    values = {"name": xml(node.name), "path": xml(node.path), "line": node.line}
    data = "".join(f'<data key="{name}">{value}</data>' for name, value in values.items())
    return f'    <node id="{key}">{data}</node>'


def dot(edges: Iterable[Edge]) -> Iterator[str]:
    """Lines of a digraph for Graphviz; its identifiers are quoted strings."""
    yield "digraph calls {"
    yield "  node [shape=box];"
    yield from _lines(
        edges,
        lambda key, node: f"  {key} [label={dot_string(node.name)}, tooltip={dot_string(_place(node))}];",
        lambda one, other: f"  {one} -> {other};",
    )
    yield "}"


def mermaid(edges: Iterable[Edge]) -> Iterator[str]:
    """Lines of a Mermaid flowchart.  Viewers refuse more than 500 edges unless they are told otherwise."""
    yield "flowchart LR"
    yield from _lines(
        edges,
        lambda key, node: f'  {key}["{mermaid_label(node.name)}"]',
        lambda one, other: f"  {one} --> {other}",
    )


def _lines(edges: Iterable[Edge], node_line: _NodeLine, edge_line: _EdgeLine) -> Iterator[str]:
    """A line for each node when it is first seen, and one for each edge."""
    keys: dict[Node, str] = {}
    for edge in edges:
        for node in edge:
            if node not in keys:
                keys[node] = f"n{len(keys)}"
                yield node_line(keys[node], node)
        yield edge_line(keys[edge[0]], keys[edge[1]])


def _place(node: Node) -> str:
    return f"{node.path}:{node.line}"


def xml(text: str) -> str:
    """Text of an XML element or attribute, without the characters that XML cannot hold."""
    return escape(_NOT_XML.sub("", one_line(text)))


def dot_string(text: str) -> str:
    r"""A quoted string of DOT.  Backslashes are doubled, as `\N` and `\l` mean something there."""
    cut = one_line(text, MAX_LABEL_CHARACTERS).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{cut}"'


def mermaid_label(text: str) -> str:
    """The text of a quoted Mermaid label: all but letters and digits as `#number;`."""
    return _NOT_PLAIN.sub(lambda match: f"#{ord(match.group())};", one_line(text, MAX_LABEL_CHARACTERS))
