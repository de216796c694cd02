"""What a model is told about the code around a chunk: lines, the most useful first, as many as a budget has room for.

Only what the index knows.  A callee is told by its signature and the words of its author; where it has none, by what
the model said of it, if the chunk may wait for that.  A caller is told by its signature, not by the line of the call:
so an edit of its body asks nothing again about what it uses.  Adapters are trained on lines of these forms.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from rotary_batch.core import Chunk, Symbol, SymbolId
from rotary_batch.pages.authored.reading import authored_summary
from rotary_batch.pages.page import brief
from rotary_batch.work import around
from rotary_batch.work.drafts import ChunkId, ContextLine
from rotary_batch.work.store import WorkStore

_IMPORTS = "imports: "
_MAX_SIGNATURE = 160  # characters


def chunk_context(breadcrumb: str) -> str:
    """Where a chunk is in its file, and the imported names that it uses."""
    lines = breadcrumb.splitlines()
    imports = [line.removeprefix(_IMPORTS) for line in lines if line.startswith(_IMPORTS)]
    place = [line for line in lines if not line.startswith(_IMPORTS)]
    within = [f"Within: {' / '.join(place)}"] if place else []
    return "\n".join([*within, *(f"Imports: {names}" for names in imports)])


def context_lines(
    store: WorkStore, repository_id: int, chunk: Chunk, items: Mapping[SymbolId, int], waited: Collection[int]
) -> tuple[ContextLine, ...]:
    """The lines of one chunk.  `items` are those on symbols; the chunk may wait for the answers of `waited`."""
    place = ChunkId(chunk.path, chunk.start_byte)
    return (
        *(ContextLine(line) for line in chunk_context(chunk.breadcrumb).splitlines()),
        *_used(around.callees(store, repository_id, place, chunk.end_byte), items, waited),
        *(
            # Without the folder: one that is moved asks nothing again.
            ContextLine(f"Used in {PurePosixPath(user.path).name}: {_signature(user)}")
            for user in around.callers(store, repository_id, place, chunk.end_byte)
        ),
        *_outline(list(around.outline_names(store, repository_id, place, chunk.end_byte))),
    )


def _used(
    callees: Sequence[around.Used], items: Mapping[SymbolId, int], waited: Collection[int]
) -> Iterator[ContextLine]:
    for symbol, language in callees:
        text = f"Uses `{_signature(symbol)}`"
        by_author = brief(authored_summary(symbol.docstring, language)) if symbol.docstring else ""
        item_id = items.get(symbol.id)
        if by_author:
            yield ContextLine(f"{text}: {by_author}")
        else:
            yield ContextLine(text, item_id if item_id in waited else None)


def _signature(symbol: Symbol) -> str:
    return (" ".join(symbol.signature.split()) or symbol.qualified_name)[:_MAX_SIGNATURE]


def _outline(names: Sequence[str]) -> Iterator[ContextLine]:
    if names:
        yield ContextLine(f"Outline: {', '.join(names)}")
