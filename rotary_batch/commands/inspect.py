"""`inspect`: what the index holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rotary_batch.commands.repositories import select_repositories
from rotary_batch.core import SourceFile
from rotary_batch.errors import UsageError
from rotary_batch.pages.graph_formats import Node, dot, graphml, mermaid
from rotary_batch.repo.components import strongly_connected
from rotary_batch.work import counts
from rotary_batch.work.index import load_files, stored_chunks, stored_graph, stored_symbols
from rotary_batch.work.store import WorkStore

KINDS = ("files", "symbols", "chunks", "items", "graph")
STATES = ("waiting", "ready", "leased", "done", "parked")  # of items
TABLES = {  # the columns of a table for a person
    "files": ("path", "language", "class", "bytes", "reason"),
    "symbols": ("path", "start_line", "kind", "qualified_name", "signature"),
    "chunks": ("path", "start_line", "end_line", "tokens"),
    "items": ("subject", "unit", "state", "attempts", "error"),
    "graph": ("caller_path", "caller", "callee_path", "callee"),
}
FORMATS = ("jsonl", "graphml", "mermaid", "dot")


def inspect(store: WorkStore, kind: str, root: Path, state: str | None = None) -> Iterator[dict[str, Any]]:
    """Rows of the index; of items, those in a state, or all.  Raises UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"inspect {kind!r}: choose one of {', '.join(KINDS)}")
    (row,) = select_repositories(store, [root])
    if kind in {"items", "graph"}:
        rows = counts.items(store, row.id) if kind == "items" else _calls(store, row.id)
        yield from (one for one in rows if state is None or one["state"] == state)
        return
    if kind == "files":
        yield from (file_row(file) for file in load_files(store, row.id).files)
        return
    values: Iterator[object] = (stored_symbols if kind == "symbols" else stored_chunks)(store, row.id)
    yield from ({name: getattr(value, name) for name in _FIELDS[kind]} for value in values)


def _calls(store: WorkStore, repository_id: int) -> Iterator[dict[str, Any]]:
    """The calls; those within a cycle, such as mutual recursion, have its number, the others None."""
    numbers: dict[Node, int] = {}
    edges: dict[int, list[int]] = {}
    for call in stored_graph(store, repository_id):
        caller, callee = (numbers.setdefault(node, len(numbers)) for node in _ends(call))
        edges.setdefault(caller, []).append(callee)
    cycles = [component for component in strongly_connected(edges) if len(component) > 1]
    cycle_of = {node: number for number, component in enumerate(cycles, 1) for node in component}
    for call in stored_graph(store, repository_id):
        of_caller, of_callee = (cycle_of.get(numbers.get(node, -1)) for node in _ends(call))
        yield call | {"cycle": of_caller if of_caller == of_callee else None}


def _ends(call: dict[str, Any]) -> tuple[Node, Node]:
    return (
        Node(call["caller_path"], call["caller"], call["caller_line"]),
        Node(call["callee_path"], call["callee"], call["callee_line"]),
    )


def draw_graph(store: WorkStore, root: Path, graph_format: str) -> Iterator[str]:
    """The lines of the call graph in a format of other programs.  Raises UsageError for an unknown format."""
    if graph_format not in FORMATS[1:]:
        raise UsageError(f"--format {graph_format!r}: choose one of {', '.join(FORMATS)}")
    write = {"graphml": graphml, "mermaid": mermaid, "dot": dot}[graph_format]
    (row,) = select_repositories(store, [root])
    return write(map(_ends, stored_graph(store, row.id)))


_FIELDS = {
    "symbols": (
        "path",
        "kind",
        "name",
        "qualified_name",
        "start_line",
        "end_line",
        "start_byte",
        "end_byte",
        "signature",
        "docstring",
    ),
    "chunks": ("path", "blob", "start_byte", "end_byte", "start_line", "end_line", "tokens", "symbols"),
}


def file_row(file: SourceFile) -> dict[str, Any]:
    """A file as `inspect` and `explain` print it."""
    return {
        "path": file.path,
        "blob": file.blob,
        "bytes": file.nbytes,
        "language": file.language,
        "class": file.file_class.value,
        "reason": file.reason,
    }
