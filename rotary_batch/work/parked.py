"""Items that were set aside: which, and what is to blame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rotary_batch.work.store import WorkStore


class ParkedItem(NamedTuple):
    """One of them."""

    repository: str
    unit: str
    subject: str
    attempts: int
    error_class: str
    error: str


def parked_by_class(store: WorkStore, repository_ids: Sequence[int]) -> dict[str, int]:
    """How many there are of each class."""
    rows = store.db.execute(
        f"""select coalesce(error_class, '') as class, count(*) as n from item
            where state = 'parked' and repository_id in ({_places(repository_ids)}) group by 1 order by 1""",
        list(repository_ids),
    )
    return {row["class"]: row["n"] for row in rows}


def parked(store: WorkStore, repository_ids: Sequence[int]) -> list[ParkedItem]:
    """All of them, by class and place."""
    rows = store.db.execute(
        f"""select root, unit, subject, attempts, coalesce(error_class, ''), coalesce(error, '')
            from item join repository on repository.id = repository_id
            where state = 'parked' and repository_id in ({_places(repository_ids)})
            order by error_class, root, path, item.id""",
        list(repository_ids),
    )
    return [ParkedItem(*row) for row in rows]


def _places(ids: Sequence[int]) -> str:
    return ",".join("?" * len(ids))
