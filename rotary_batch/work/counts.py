"""Read-only queries for `status`, `plan`, `report`, pages and roll-ups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from rotary_batch.core import Subject, Unit, Verdict
from rotary_batch.model.footprint import Workload
from rotary_batch.work.rows import Answer, RunRow, Speed, UnitWork
from rotary_batch.work.store import WorkStore

_PATHS_IN_A_QUERY = 500


def states(store: WorkStore, repository_id: int) -> dict[str, dict[str, int]]:
    """unit -> state -> number of items."""
    rows = store.db.execute(
        """select unit, state, sum(n) as n from item_count where repository_id = ? and n > 0
           group by unit, state order by unit, state""",
        [repository_id],
    )
    by_unit: dict[str, dict[str, int]] = {}
    for row in rows:
        by_unit.setdefault(row["unit"], {})[row["state"]] = row["n"]
    return by_unit


def open_items(store: WorkStore, repository_ids: Sequence[int]) -> int:
    """How many items are neither done nor parked."""
    return _count(store, repository_ids, "state in ('waiting', 'ready', 'leased')")


def parked_items(store: WorkStore, repository_ids: Sequence[int]) -> int:
    """How many items are parked."""
    return _count(store, repository_ids, "state = 'parked'")


def _count(store: WorkStore, repository_ids: Sequence[int], condition: str) -> int:
    places = ",".join("?" * len(repository_ids))
    query = f"select coalesce(sum(n), 0) as n from item_count where {condition} and repository_id in ({places})"
    return int(store.db.execute(query, list(repository_ids)).fetchone()["n"])


def num_ended(store: WorkStore, repository_ids: Sequence[int]) -> tuple[int, int]:
    """(items that are done or parked, all items)."""
    return _count(store, repository_ids, "state in ('done', 'parked')"), _count(store, repository_ids, "true")


class Tally(NamedTuple):
    """How many items some repositories have, by how far they are."""

    items: int = 0
    answered: int = 0
    parked: int = 0

    @property
    def open(self) -> int:
        """Neither answered nor parked."""
        return self.items - self.answered - self.parked


def tally(store: WorkStore, repository_ids: Sequence[int]) -> Tally:
    """How far the items of some repositories are."""
    items = _count(store, repository_ids, "true")
    return Tally(items, _count(store, repository_ids, "state = 'done'"), parked_items(store, repository_ids))


def tokens_left(store: WorkStore, repository_ids: Sequence[int]) -> int:
    """About how many tokens the open items will read and write.

    A prompt that is not known yet counts as the average one, an answer as the average answer so far.
    """
    places = ",".join("?" * len(repository_ids))
    row = store.db.execute(
        f"""select sum(is_open) as n, sum(is_open * prompt_tokens) as known, avg(prompt_tokens) as prompt,
                  sum(is_open and prompt_tokens is null) as unknown, avg(output_tokens) as answer,
                  sum(is_open * max_new_tokens) as most
            from (select *, state in ('waiting', 'ready', 'leased') as is_open from item
                  where repository_id in ({places}))""",
        list(repository_ids),
    ).fetchone()
    if not row["n"]:
        return 0
    answers = row["n"] * row["answer"] if row["answer"] is not None else row["most"]
    return int((row["known"] or 0) + row["unknown"] * (row["prompt"] or 0) + answers)


class ParkedFile(NamedTuple):
    """Items of one file or folder that failed for one reason."""

    root: str
    unit: str  # file, directory or repository
    path: str
    num_items: int
    error: str


def parked_by_file(store: WorkStore, repository_ids: Sequence[int], limit: int) -> tuple[int, list[ParkedFile]]:
    """How many files and folders have parked items, by reason, and the first of them."""
    places = ",".join("?" * len(repository_ids))
    groups = f"""select root, case unit when 'chunk' then 'file' else unit end as unit, path, count(*) as n,
                       coalesce(error, '') as error
                from item join repository on repository.id = repository_id
                where state = 'parked' and repository_id in ({places}) group by 1, 2, 3, 5"""
    total = int(store.db.execute(f"select count(*) as n from ({groups})", list(repository_ids)).fetchone()["n"])
    rows = store.db.execute(f"{groups} order by root, path, n desc limit ?", [*repository_ids, limit]).fetchall()
    return total, [ParkedFile(*row) for row in rows]


def open_tokens(store: WorkStore, repository_id: int) -> dict[str, dict[str, int]]:
    """unit -> items, prompt tokens known so far, most new tokens; of open items."""
    rows = store.db.execute(
        """select unit, count(*) as items, sum(prompt_tokens is null) as unknown,
                  coalesce(sum(prompt_tokens), 0) as prompt_tokens, sum(max_new_tokens) as new_tokens
           from item where repository_id = ? and state in ('waiting', 'ready', 'leased') group by unit order by unit""",
        [repository_id],
    )
    return {row["unit"]: {name: row[name] for name in row.keys() if name != "unit"} for row in rows}  # noqa: SIM118


def workload(store: WorkStore, repository_ids: Sequence[int], longest_unknown_tokens: int) -> Workload | None:
    """The open items, for the memory planner; None when no prompt is known yet.

    Prompts of roll-ups that are not known yet count as the average one; the longest may have `longest_unknown_tokens`.
    """
    places = ",".join("?" * len(repository_ids))
    row = store.db.execute(
        f"""select count(*) as n, avg(prompt_tokens) as prompt, avg(max_new_tokens) as new,
                   max(prompt_tokens + max_new_tokens) as longest, sum(prompt_tokens is null) as unknown
            from item where state in ('waiting', 'ready', 'leased') and repository_id in ({places})""",
        list(repository_ids),
    ).fetchone()
    if not row["n"] or row["prompt"] is None:
        return None
    unknown = longest_unknown_tokens if row["unknown"] else 0
    return Workload(row["n"], row["prompt"], row["new"], max(row["longest"], unknown))


def unit_work(store: WorkStore, repository_ids: Sequence[int]) -> list[UnitWork]:
    """How much work is open and what is known of it, by unit.  Reads every item."""
    places = ",".join("?" * len(repository_ids))
    rows = store.db.execute(
        f"""select unit, sum(open) as num_open, sum(open and prompt_tokens is null) as num_unknown,
                   coalesce(sum(prompt_tokens) filter (where open), 0) as prompt_tokens,
                   count(prompt_tokens) as num_known, coalesce(sum(prompt_tokens), 0) as known_tokens,
                   sum(state = 'done') as num_done, sum(state = 'parked') as num_parked,
                   coalesce(sum(output_tokens) filter (where state = 'done'), 0) as output_tokens,
                   coalesce(sum(output_tokens * output_tokens) filter (where state = 'done'), 0) as output_squares,
                   avg(max_new_tokens) as max_new_tokens,
                   case unit when 'chunk' then 0 when 'directory'
                        then count(distinct length(path) - length(replace(path, '/', ''))) filter (where open)
                        else 1 end as num_levels
            from (select *, state in ('waiting', 'ready', 'leased') as open from item
                  where repository_id in ({places})) group by unit order by unit""",
        list(repository_ids),
    )
    return [UnitWork(**dict(row) | {"unit": Unit(row["unit"])}) for row in rows]


def text_counts(store: WorkStore, repository_id: int) -> tuple[int, int]:
    """(items, items whose answer is shown)."""
    row = store.db.execute(
        "select coalesce(sum(n), 0), coalesce(sum(n * (verdict = ?)), 0) from item_count where repository_id = ?",
        [Verdict.SHOWN, repository_id],
    ).fetchone()
    return row[0], row[1]


def verdicts(store: WorkStore, repository_id: int) -> dict[str, int]:
    """verdict -> number of answered items."""
    rows = store.db.execute(
        """select verdict, sum(n) as n from item_count where repository_id = ? and verdict <> '' and n > 0
           group by verdict order by verdict""",
        [repository_id],
    )
    return {row["verdict"]: row["n"] for row in rows}


def items(store: WorkStore, repository_id: int) -> list[dict[str, Any]]:
    """Every item, as `inspect items` shows it."""
    rows = store.db.execute(
        """select id, key, job, unit, subject, state, attempts, prompt_tokens, output_tokens, error, verdict,
                  ended
           from item where repository_id = ? order by id""",
        [repository_id],
    )
    return [dict(row) for row in rows]


def answers(store: WorkStore, repository_id: int, paths: Sequence[str], units: Sequence[Unit]) -> list[Answer]:
    """The answers of some units about some files and folders, without the parts of roll-ups."""
    shown: list[Answer] = []
    for start in range(0, len(paths), _PATHS_IN_A_QUERY):
        batch = paths[start : start + _PATHS_IN_A_QUERY]
        rows = store.db.execute(
            f"""select unit, path, subject, state, verdict, shown_text from item
                where repository_id = ? and part_of is null and path in ({",".join("?" * len(batch))})
                and unit in ({",".join("?" * len(units))})""",
            [repository_id, *batch, *units],
        )
        shown += [_answer(row) for row in rows]
    return shown


def children(store: WorkStore, item_id: int) -> list[tuple[int, Answer]]:
    """(id, answer) of every item that an item reads, in order."""
    rows = store.db.execute(
        """select id, unit, path, subject, state, verdict, shown_text from item where parent_id = ?
           order by position, subject""",
        [item_id],
    )
    return [(row["id"], _answer(row)) for row in rows]


def _answer(row: Any) -> Answer:  # noqa: ANN401 - a sqlite3.Row
    verdict = None if row["verdict"] is None else Verdict(row["verdict"])
    subject = Subject.parse(row["unit"], row["path"], row["subject"])
    return Answer(subject=subject, state=row["state"], verdict=verdict, shown_text=row["shown_text"])


def last_speed(store: WorkStore, model_name: str, device: str) -> Speed | None:
    """The speed of the newest run of a model on a device that generated any token."""
    row = store.db.execute(
        """select coalesce(ended_at, started_at) as at, tally ->> 'prefill_tokens' as prefill,
                  tally ->> 'decode_tokens' as decode, tally ->> 'step_s' as step_s
           from run where model_name = ? and coalesce(nullif(tally ->> 'device', ''), ?) = ?
             and tally ->> 'decode_tokens' > 0 and tally ->> 'step_s' > 0 order by id desc limit 1""",
        [model_name, device, device],
    ).fetchone()
    return None if row is None else Speed(row["at"], (row["prefill"] + row["decode"]) / row["step_s"])


def last_run(store: WorkStore, repository_ids: Sequence[int] | None = None) -> RunRow | None:
    """The newest run, or the newest that any of some repositories was part of."""
    row = store.db.execute(
        """select * from run where :all or id in
             (select run_id from run_repository where repository_id in (select value from json_each(:ids)))
           order by id desc limit 1""",
        {"all": repository_ids is None, "ids": json.dumps(list(repository_ids or []))},
    ).fetchone()
    return None if row is None else _run(row)


def run_row(store: WorkStore, run_id: int) -> RunRow:
    """One run."""
    return _run(store.db.execute("select * from run where id = ?", [run_id]).fetchone())


def _run(row: Any) -> RunRow:  # noqa: ANN401 - a sqlite3.Row
    columns = dict(row)
    stats = json.loads(columns.pop("tally"))
    return RunRow(**columns, stats=stats)


def roots_of_run(store: WorkStore, run_id: int) -> dict[int, tuple[str, str]]:
    """Id -> (root, docs folder within it) of the repositories of a run."""
    rows = store.db.execute(
        """select id, root, docs_dir from repository
           where id in (select repository_id from run_repository where run_id = ?) order by root""",
        [run_id],
    )
    return {row["id"]: (row["root"], row["docs_dir"]) for row in rows}
