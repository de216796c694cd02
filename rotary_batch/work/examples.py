"""The examples of symbols: short tests that call them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import NamedTuple

from rotary_batch.core import Example, SymbolId
from rotary_batch.work.store import WorkStore


class ShortTest(NamedTuple):
    """The shortest test that calls a symbol."""

    symbol: SymbolId
    test: SymbolId
    end_byte: int  # of the test


def shortest_tests(
    store: WorkStore, repository_id: int, is_test_file: Callable[[str], bool], max_lines: int
) -> Iterator[ShortTest]:
    """The shortest test of each symbol that one calls, and that is in no test itself; none with more lines."""
    rows = store.db.execute(
        """select callee_path, callee_start_byte, symbol.path, symbol.start_byte, symbol.end_byte
           from call cross join symbol on symbol.repository_id = call.repository_id and symbol.path = call.path
             and symbol.start_byte = call.start_byte
           where call.repository_id = ? and callee_path <> call.path and end_line - start_line < ?
             and kind in ('function', 'method')
           order by 1, 2, end_line - start_line, 3, 4""",
        [repository_id, max_lines],
    )
    for symbol, calls in groupby(rows, lambda row: SymbolId(row[0], row[1])):
        tests = (ShortTest(symbol, SymbolId(call[2], call[3]), call[4]) for call in calls if is_test_file(call[2]))
        test = None if is_test_file(symbol.path) else next(tests, None)
        if test is not None:
            yield test


def stored_examples(store: WorkStore, repository_id: int) -> dict[SymbolId, SymbolId]:
    """Symbol -> the test that is its example."""
    query = "select path, start_byte, test_path, test_start_byte from example where repository_id = ?"
    return {SymbolId(row[0], row[1]): SymbolId(row[2], row[3]) for row in store.db.execute(query, [repository_id])}


def examples_of(store: WorkStore, repository_id: int, path: str) -> dict[SymbolId, Example]:
    """The examples of the symbols of one file."""
    rows = store.db.execute(
        "select * from example where repository_id = ? and path = ? order by start_byte", [repository_id, path]
    )
    return {
        SymbolId(path, row["start_byte"]): Example(SymbolId(row["test_path"], row["test_start_byte"]), row["text"])
        for row in rows
    }


def save_example(store: WorkStore, repository_id: int, symbol: SymbolId, one: Example | None) -> bool:
    """Within a transaction: store the example of a symbol, or that it has none; returns whether that is a change."""
    if one is None:
        done = store.db.execute(
            "delete from example where repository_id = ? and path = ? and start_byte = ?", [repository_id, *symbol]
        )
    else:
        done = store.db.execute(
            """insert into example (repository_id, path, start_byte, test_path, test_start_byte, text)
               values (?, ?, ?, ?, ?, ?)
               on conflict do update set test_path = excluded.test_path, text = excluded.text,
                 test_start_byte = excluded.test_start_byte
               where (test_path, test_start_byte, text)
                 is not (excluded.test_path, excluded.test_start_byte, excluded.text)""",
            [repository_id, *symbol, *one.test, one.text],
        )
    return done.rowcount > 0
