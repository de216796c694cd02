"""What was not read of a repository, counted by class and reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from rotary_batch.core import FileClass, SourceFile

MAX_ROWS = 40  # each tree of other people's code has a reason of its own, and there may be thousands
LEFT_OUT = {FileClass.IGNORED, FileClass.DOCS}  # by the user's will
_NOT_LISTED = {FileClass.SOURCE, FileClass.STUB, *LEFT_OUT}


class Unread(NamedTuple):
    """Files that were not read for one reason."""

    file_class: str
    reason: str
    num_files: int


def unread(files: Iterable[SourceFile]) -> list[Unread]:
    """By class and reason; the rarest reasons of a class are counted together when there are too many."""
    shown = (file for file in files if file.file_class not in _NOT_LISTED)
    counts = Counter((file.file_class.value, file.reason) for file in shown)
    often = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_ROWS])
    others: Counter[str] = Counter()
    for (file_class, _), number in counts.items() - often.items():
        others[file_class] += number
    rows = [Unread(file_class, reason, number) for (file_class, reason), number in sorted(often.items())]
    return rows + [
        Unread(file_class, "other reasons; `explain` says which", n) for file_class, n in sorted(others.items())
    ]
