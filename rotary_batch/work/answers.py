"""The answers about symbols, by the place of what they are about."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from rotary_batch.core import Subject, Unit, Verdict
from rotary_batch.work.store import WorkStore


def shown_by_symbol(store: WorkStore, repository_id: int) -> Iterator[tuple[str, dict[int, str]]]:
    """(path, {first byte of a symbol: what is shown of its answer}), file by file."""
    rows = store.db.execute(
        "select path, subject, shown_text from item "
        "where repository_id = ? and unit = ? and verdict = ? and shown_text is not null order by path",
        [repository_id, Unit.SYMBOL, Verdict.SHOWN],
    )
    for path, group in groupby(rows, itemgetter("path")):
        subjects = ((Subject.parse(Unit.SYMBOL, path, row["subject"]), row["shown_text"]) for row in group)
        yield path, {subject.span[0]: text for subject, text in subjects if subject.span}
