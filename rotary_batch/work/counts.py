"""Read-only queries for `status`, `plan`, `report`, pages and roll-ups."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from rotary_batch.core import Subject, Unit, Verdict, WorkItem
from rotary_batch.model.footprint import Workload
from rotary_batch.work.expected import Expected, expected
from rotary_batch.work.rows import Answer, RunRow, Speed, UnitWork, answer_of_row
from rotary_batch.work.store import WorkStore

_PATHS_IN_A_QUERY = 500
_MAX_PACES = 30  # runs
_OF_SOURCE = "unit in ('chunk', 'symbol', 'detail')"


def states(store: WorkStore, repository_id: int) -> dict[str, dict[str, int]]:
    """unit -> state -> number of items; `expected` are those that will be queued late."""
    rows = store.db.execute(
        """select unit, state, sum(n) as n from item_count where repository_id = ? and n > 0
           group by unit, state order by unit, state""",
        [repository_id],
    )
    by_unit: dict[str, dict[str, int]] = {}
    for row in rows:
        by_unit.setdefault(row["unit"], {})[row["state"]] = row["n"]
    for unit, late in expected(store, [repository_id]).items():
        if late.num_parts:
            by_unit[unit]["expected"] = late.num_parts
    return {unit: dict(sorted(by_state.items())) for unit, by_state in by_unit.items()}


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


def num_ended(store: WorkStore, repository_ids: Sequence[int]) -> int:
    """How many items are done or parked."""
    return _count(store, repository_ids, "state in ('done', 'parked')")


def expected_parts(store: WorkStore, repository_ids: Sequence[int]) -> int:
    """How many items will be queued late."""
    return sum(late.num_parts for late in expected(store, repository_ids).values())


class Tally(NamedTuple):
    """How many items some repositories have, by how far they are."""

    items: int = 0  # those that will be queued late included
    answered: int = 0
    parked: int = 0

    @property
    def open(self) -> int:
        """Neither answered nor parked."""
        return self.items - self.answered - self.parked


def tally(store: WorkStore, repository_ids: Sequence[int]) -> Tally:
    """How far the items of some repositories are."""
    items = _count(store, repository_ids, "true") + expected_parts(store, repository_ids)
    return Tally(items, _count(store, repository_ids, "state = 'done'"), parked_items(store, repository_ids))


def tokens_left(store: WorkStore, repository_ids: Sequence[int]) -> int:
    """About how many tokens the open items will read and write, those that will be queued late included.

    An answer counts as the average answer so far.
    """
    work = unit_work(store, repository_ids)
    num_open, num_done = sum(one.num_open for one in work), sum(one.num_done for one in work)
    most = sum(one.num_open * one.max_new_tokens for one in work)
    answers = num_open * sum(one.output_tokens for one in work) / num_done if num_done else most
    return int(sum(one.prompt_tokens + one.unknown_tokens for one in work) + answers)


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
    groups = f"""select root, case when {_OF_SOURCE} then 'file' else unit end as unit, path,
                       count(*) as n, coalesce(error, '') as error
                from item join repository on repository.id = repository_id
                where state = 'parked' and repository_id in ({places}) group by 1, 2, 3, 5"""
    total = int(store.db.execute(f"select count(*) as n from ({groups})", list(repository_ids)).fetchone()["n"])
    rows = store.db.execute(f"{groups} order by root, path, n desc limit ?", [*repository_ids, limit]).fetchall()
    return total, [ParkedFile(*row) for row in rows]


def open_tokens(store: WorkStore, repository_id: int) -> dict[str, dict[str, int]]:
    """unit -> items, prompt tokens known so far, most new tokens; of open items and those that will be queued late.

    `shared_tokens` are those of prompts that are not read again, as a sibling begins with them.
    """
    rows = store.db.execute(
        """select unit, count(*) as items, sum(prompt_tokens is null) as unknown,
                  coalesce(sum(read_tokens), 0) as prompt_tokens,
                  coalesce(sum(prompt_tokens - read_tokens), 0) as shared_tokens, sum(max_new_tokens) as new_tokens
           from item where repository_id = ? and state in ('waiting', 'ready', 'leased') group by unit order by unit""",
        [repository_id],
    ).fetchall()
    late = expected(store, [repository_id])
    return {row["unit"]: _with_parts(dict(row), late.get(row["unit"], Expected()).num_parts) for row in rows}


def _with_parts(row: dict[str, Any], num_parts: int) -> dict[str, int]:
    del row["unit"]
    row["new_tokens"] += num_parts * row["new_tokens"] // row["items"]
    return row | {name: row[name] + num_parts for name in ("items", "unknown")}


def workload(store: WorkStore, repository_ids: Sequence[int], longest_unknown_tokens: int) -> Workload | None:
    """The open items, for the memory planner, those that will be queued late included; None without a known prompt.

    The longest prompt that is not known yet may have `longest_unknown_tokens`.
    """
    places = ",".join("?" * len(repository_ids))
    row = store.db.execute(
        f"""select count(*) as n, sum(read_tokens) as prompt, avg(max_new_tokens) as new,
                   coalesce(avg(read_tokens) filter (where {_OF_SOURCE}), 0)
                     * sum(prompt_tokens is null and {_OF_SOURCE}) as drafts,
                   max(prompt_tokens + max_new_tokens) as longest, sum(prompt_tokens is null) as unknown,
                   coalesce(sum(prompt_tokens > read_tokens), 0) as later, sum(prompt_tokens - read_tokens) as spared
            from item where state in ('waiting', 'ready', 'leased') and repository_id in ({places})""",
        list(repository_ids),
    ).fetchone()
    if not row["n"] or row["prompt"] is None:
        return None
    unknown = longest_unknown_tokens if row["unknown"] else 0
    late = expected(store, repository_ids).values()
    num_items = row["n"] + sum(one.num_parts for one in late)
    prompt_tokens = row["prompt"] + row["drafts"] + sum(one.prompt_tokens for one in late)
    read = Workload(num_items, prompt_tokens / num_items, row["new"], max(row["longest"], unknown))
    return _with_siblings(read, row["later"], row["spared"]) if row["later"] else read


def _with_siblings(read: Workload, num_later: int, spared_tokens: int) -> Workload:
    """The workload of whole prompts; `num_later` of them do not read `spared_tokens`, which an earlier sibling did."""
    shared_tokens, siblings = spared_tokens / num_later, read.num_items / max(1, read.num_items - num_later)
    whole = read.prompt_tokens + shared_tokens - shared_tokens / siblings
    return read._replace(prompt_tokens=whole, shared_tokens=shared_tokens, siblings=siblings)


def unit_work(store: WorkStore, repository_ids: Sequence[int]) -> list[UnitWork]:
    """How much work is open or expected and what is known of it, by unit.  Reads every item."""
    places = ",".join("?" * len(repository_ids))
    rows = store.db.execute(
        f"""select unit, sum(open) as num_open,
                   coalesce(sum(read_tokens) filter (where open), 0) as prompt_tokens,
                   coalesce(sum(read_tokens), 0) as known_tokens,
                   coalesce(sum(open and prompt_tokens is null) * avg(read_tokens), 0) as draft_tokens,
                   sum(state = 'done') as num_done, sum(state = 'parked') as num_parked,
                   coalesce(sum(output_tokens) filter (where state = 'done'), 0) as output_tokens,
                   coalesce(sum(output_tokens * output_tokens) filter (where state = 'done'), 0) as output_squares,
                   avg(max_new_tokens) as max_new_tokens,
                   case when {_OF_SOURCE} then 0 when unit = 'directory'
                        then count(distinct length(path) - length(replace(path, '/', ''))) filter (where open)
                        else 1 end as num_levels
            from (select *, state in ('waiting', 'ready', 'leased') as open from item
                  where repository_id in ({places})) group by unit order by unit""",
        list(repository_ids),
    )
    late = expected(store, repository_ids)
    return [_unit_work(dict(row), late.get(row["unit"], Expected())) for row in rows]


def _unit_work(row: dict[str, Any], late: Expected) -> UnitWork:
    """A row, with what is expected of roll-ups; a chunk that waits is taken to have a prompt as long as the others."""
    row["unit"], draft_tokens = Unit(row["unit"]), row.pop("draft_tokens")
    unknown_tokens = late.prompt_tokens if row["unit"].is_rollup else draft_tokens
    row["num_open"] += late.num_parts
    row["num_levels"] += late.num_parts > 0
    return UnitWork(**row, unknown_tokens=unknown_tokens)


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
                  ended, num_sentences, num_kept, reasons
           from item where repository_id = ? order by id""",
        [repository_id],
    )
    return [dict(row) | {"reasons": json.loads(row["reasons"])} for row in rows]


def items_of(store: WorkStore, repository_id: int, subject: Subject) -> list[WorkItem]:
    """The items on one thing, of whatever job."""
    rows = store.db.execute(
        "select id from item where repository_id = ? and path = ? and unit = ? and subject = ?",
        [repository_id, subject.path, *subject.identity],
    )
    return [store.item(row["id"]) for row in rows.fetchall()]


def answers(store: WorkStore, repository_id: int, paths: Sequence[str], units: Sequence[Unit]) -> list[Answer]:
    """The answers of some units about some files and folders, without the parts of roll-ups."""
    shown: list[Answer] = []
    for start in range(0, len(paths), _PATHS_IN_A_QUERY):
        batch = paths[start : start + _PATHS_IN_A_QUERY]
        rows = store.db.execute(
            f"""select unit, path, subject, state, verdict, shown_text, label from item
                where repository_id = ? and part_of is null and path in ({",".join("?" * len(batch))})
                and unit in ({",".join("?" * len(units))})""",
            [repository_id, *batch, *units],
        )
        shown += [answer_of_row(row) for row in rows]
    return shown


def children(store: WorkStore, item_id: int) -> list[tuple[int, Answer]]:
    """(id, answer) of every item that an item reads, in order."""
    rows = store.db.execute(
        """select id, unit, path, subject, state, verdict, shown_text, label from item where parent_id = ?
           order by position, subject""",
        [item_id],
    )
    return [(row["id"], answer_of_row(row)) for row in rows]


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


def paces(store: WorkStore, model_name: str, device: str) -> list[tuple[str, dict[str, Any]]]:
    """(when it ended, what it did) of the newest runs of a model on a device that say how fast they were."""
    rows = store.db.execute(
        f"""select coalesce(ended_at, saved_at, started_at) as at, tally from run
            where model_name = ? and tally ->> '$.device' = ? and tally ->> '$.pace.seconds' > 0
            order by id desc limit {_MAX_PACES}""",
        [model_name, device],
    )
    return [(row["at"], json.loads(row["tally"])) for row in rows]


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
