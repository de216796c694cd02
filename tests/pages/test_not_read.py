"""What was not read: every reason with its number, and never more rows than a page can show."""

from __future__ import annotations

from rotary_batch.core import FileClass, SourceFile
from rotary_batch.pages.not_read import MAX_ROWS, Unread, unread


def file(reason: str, file_class: FileClass = FileClass.VENDORED) -> SourceFile:
    return SourceFile(path=reason, blob="", nbytes=1, language=None, file_class=file_class, reason=reason)


def test_every_reason_is_counted():
    files = [file("b"), file("a"), file("b"), file("c", FileClass.TEXT), file("d", FileClass.SOURCE)]
    assert unread(files) == [Unread("text", "c", 1), Unread("vendored", "a", 1), Unread("vendored", "b", 2)]
    assert unread([]) == []


def test_thousands_of_reasons_are_counted_together():
    files = (
        [file(f"in tree {number}") for number in range(5000)] + [file("often")] * 9 + [file("x", FileClass.TEXT)] * 2
    )
    rows = unread(files)
    assert len(rows) == MAX_ROWS + 1
    assert sum(row.num_files for row in rows) == 5011
    assert {Unread("vendored", "often", 9), Unread("text", "x", 2)} < set(rows)
    assert rows[-1] == Unread("vendored", "other reasons; `explain` says which", 5000 - (MAX_ROWS - 2))
