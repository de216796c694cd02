"""An example of each symbol that a test calls: the shortest test that does, as it is in its file."""

from __future__ import annotations

from collections.abc import Callable, Collection
from textwrap import dedent

from rotary_batch.core import Example, SymbolId
from rotary_batch.pages.outline import is_test_file
from rotary_batch.planner.contexts import SourceText
from rotary_batch.work import examples, page_stamps
from rotary_batch.work.store import WorkStore

MAX_EXAMPLE_LINES = 15  # of a test; longer ones show more than one thing


def plan_examples(
    store: WorkStore, repository_id: int, source_of: Callable[[str], SourceText], changed: Collection[str]
) -> None:
    """Within a transaction, when all names are resolved: choose the examples anew; `changed` are files that changed."""
    stored = examples.stored_examples(store, repository_id)
    for one in examples.shortest_tests(store, repository_id, is_test_file, MAX_EXAMPLE_LINES):
        if stored.pop(one.symbol, None) == one.test and one.test.path not in changed:
            continue
        _save(store, repository_id, one.symbol, Example(one.test, _text(source_of(one.test.path).text, one)))
    for symbol in stored:
        _save(store, repository_id, symbol, None)


def _text(source: bytes, one: examples.ShortTest) -> str:
    line_start = source.rfind(b"\n", 0, one.test.start_byte) + 1
    return dedent(source[line_start : one.end_byte].decode("utf-8", "replace"))


def _save(store: WorkStore, repository_id: int, symbol: SymbolId, one: Example | None) -> None:
    if examples.save_example(store, repository_id, symbol, one):
        page_stamps.forget(store, repository_id, [symbol.path], ())
