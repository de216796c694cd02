"""Every change of the queue, each in one transaction.

    waiting -> ready -> leased -> done
                 ^         |-> ready (failed, retried; or the run that held it is dead)
                 |         `-> parked
                 `- retry  <- parked

Which items exist is planned in `items.py`.  `index.py` has the index of repositories, `runs.py` the record of runs and
`counts.py` the queries.  A store belongs to one thread of one process.
"""

from __future__ import annotations

import array
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from typing import Any

from rotary_batch.core import (
    Completion,
    ErrorClass,
    ItemState,
    Lease,
    NewTokens,
    Request,
    StopCriteria,
    Subject,
    ValidationResult,
    WorkItem,
)
from rotary_batch.work.connection import explained
from rotary_batch.work.patience import Connection
from rotary_batch.work.rows import Claim, Failed, Finished, StoredResult

_PLAIN_COLUMNS = ("id", "repository_id", "job", "key", "attempts", "prompt_tokens", "output_tokens", "ended", "error")
_ITEM = f"{', '.join(_PLAIN_COLUMNS)}, unit, path, subject, state, error_class"

# Queries of every step, each for one repository: only then does an index give both the rows and their order.
_READY = """select id, priority, position from item where state = 'ready' and repository_id = ?
  and (not_before is null or not_before <= ?) order by priority desc, position, id limit ?"""
_LEASE = "update item set state = 'leased', run_id = ?, epoch = epoch + 1 where id = ? returning *"
_RENEW = """update item set epoch = epoch + 1
  where id = :item_id and run_id = :run_id and epoch = :epoch and state = 'leased' returning *"""
_NEXT_RETRY = """select min(not_before) as at from item
  where state = 'ready' and not_before is not null and repository_id = ?"""
_UNBLOCKED = f"""select {_ITEM} from item where state = 'waiting' and blockers = 0 and repository_id = ?
  order by id limit ?"""
_PROMPT = """select prompt.token_ids, shared_prompt.token_ids as shared_ids from prompt
  left join shared_prompt on shared_prompt.id = prompt.shared_id where item_id = ?"""
_SHARED = """insert into shared_prompt (digest, token_ids) values (?, ?)
  on conflict (digest) do update set digest = excluded.digest returning id"""
_ANSWERED_BEFORE = """select id from item where state = 'ready' and repository_id = ?
  and exists (select 1 from result where result.key = item.key)"""


MAX_REASONS = 20  # of one answer


class WorkStore:
    """The queue in one database."""

    def __init__(self, db: Connection) -> None:
        self.db = db

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit everything in the block or nothing; within another transaction, join it.

        A transaction must stay below 100 MB of changes: whoever comes after a kill rolls it back within
        lock.RECOVERY_PATIENCE_S.

        Raises DatabaseError when the disk refuses, BusyError or StoppedError when another program has the file locked.
        """
        is_nested = self.db.in_transaction
        if is_nested:
            yield
            return
        with explained(self.db.path):
            self.db.execute("begin immediate")
            try:
                yield
                self.db.execute("commit")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("rollback")
                raise
            self.db.bound_log()

    def add_parts(self, item_id: int, runs: Sequence[Sequence[int]]) -> None:
        """Insert a part between an item and each run of its children; the part reduces their notes to one."""
        with self.transaction():
            query = "select coalesce(part_of, id) as id from item where id = ?"
            root = self.db.execute(query, [item_id]).fetchone()["id"]
            whole = self.item(root).subject
            num_parts = self.db.execute("select count(*) as n from item where part_of = ?", [root]).fetchone()["n"]
            for position, children in enumerate(runs):
                part_id = self.db.execute(
                    """insert into item (repository_id, job, unit, subject, path, position, parent_id, part_of, state,
                                         priority, max_new_tokens, max_sentences)
                       select repository_id, job, unit, :subject, path, :position, id, :root, 'waiting', priority,
                              max_new_tokens, max_sentences from item where id = :id returning id""",
                    {
                        "subject": replace(whole, part=num_parts + position + 1).text,
                        "position": position,
                        "root": root,
                        "id": item_id,
                    },
                ).fetchone()["id"]
                self.db.executemany(
                    "update item set parent_id = ? where id = ?", [(part_id, child) for child in children]
                )

    def unblocked(self, repository_ids: Sequence[int], limit: int | None = None) -> list[WorkItem]:
        """WAITING items all of whose children are DONE or PARKED, the oldest first."""
        sql_limit = -1 if limit is None else limit
        rows = _each(self.db, _UNBLOCKED, [(repository_id, sql_limit) for repository_id in repository_ids])
        return [_item(row) for row in sorted(rows, key=itemgetter("id"))[:limit]]

    def answered_before(self, repository_ids: Sequence[int]) -> list[int]:
        """Ids of READY items whose results are stored already."""
        rows = _each(self.db, _ANSWERED_BEFORE, [(repository_id,) for repository_id in repository_ids])
        return [row["id"] for row in rows]

    def item(self, item_id: int) -> WorkItem:
        """One item."""
        return _item(self.db.execute(f"select {_ITEM} from item where id = ?", [item_id]).fetchone())

    def prompt_ids(self, item_id: int) -> tuple[int, ...]:
        """The prompt of an item without an answer; empty when it has none."""
        shared, own = self._prompt(item_id)
        return shared + own

    def _prompt(self, item_id: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the prompts of its siblings begin with too, and the rest."""
        row = self.db.execute(_PROMPT, [item_id]).fetchone()
        return (_ids(row["shared_ids"] or b""), _ids(row["token_ids"])) if row else ((), ())

    def make_ready(
        self,
        item_id: int,
        *,
        key: str,
        prompt_ids: Sequence[int],
        num_markers: int,
        shared_ids: Sequence[int] = (),
        is_first: bool = True,
    ) -> None:
        """Give a WAITING item its prompt; `is_first` as in `PlannedItem`."""
        tokens = len(shared_ids) + len(prompt_ids)
        with self.transaction():
            self.db.execute(
                """update item set state = 'ready', key = ?, prompt_tokens = ?, read_tokens = ?, num_markers = ?,
                          error = null, error_class = null where id = ? and state = 'waiting'""",
                [key, tokens, tokens if is_first else len(prompt_ids), num_markers, item_id],
            )
            self.save_prompt(item_id, prompt_ids, shared_ids)

    def save_prompt(self, item_id: int, prompt_ids: Sequence[int], shared_ids: Sequence[int] = ()) -> None:
        """Within a transaction: store the prompt of an item that has none; `shared_ids` come before the others."""
        self.db.execute(
            "insert into prompt (item_id, token_ids, shared_id) values (?, ?, ?)",
            [item_id, _blob(prompt_ids), self._save_shared(shared_ids) if shared_ids else None],
        )

    def _save_shared(self, token_ids: Sequence[int]) -> int:
        blob = _blob(token_ids)
        row = self.db.execute(_SHARED, [hashlib.sha256(blob).hexdigest(), blob]).fetchone()
        return int(row["id"])

    def complete_reused(self, item_id: int, key: str, result: StoredResult, validation: ValidationResult) -> None:
        """Complete an item with a stored result."""
        completion = result.completion
        with self.transaction():
            self.db.execute("delete from prompt where item_id = ?", [item_id])
            self.db.execute(
                """update item set state = 'done', key = ?, output_tokens = ?, ended = ?, verdict = ?, shown_text = ?,
                          num_sentences = ?, num_kept = ?, reasons = ?, error = null, error_class = null, reused = 1
                   where id = ? and state in ('waiting', 'ready')""",
                [key, len(completion.token_ids), completion.reason, *_checked(validation), item_id],
            )

    def result(self, key: str) -> StoredResult | None:
        """The result with this key."""
        row = self.db.execute("select * from result where key = ?", [key]).fetchone()
        if row is None:
            return None
        completion = Completion(
            request_id=0,
            token_ids=_ids(row["token_ids"]),
            logprob_sum=row["logprob_sum"],
            num_scored=row["num_scored"],
            reason=row["reason"],
        )
        return StoredResult(text=row["text"], completion=completion)

    def park(self, item_id: int, error: str) -> None:
        """Set an item that cannot be asked aside until `retry`."""
        with self.transaction():
            self.db.execute(
                "update item set state = 'parked', error = ?, error_class = ?, run_id = null where id = ?",
                [error, ErrorClass.BAD_ITEM, item_id],
            )

    def claim(self, run_id: int, *, limit: int, now: float, repository_ids: Sequence[int]) -> list[Claim]:
        """Lease READY items, those of the highest priority first, with the tokens that earlier runs generated."""
        with self.transaction():
            ready = _each(self.db, _READY, [(repository_id, now, limit) for repository_id in repository_ids])
            first = sorted((-row["priority"], row["position"], row["id"]) for row in ready)[:limit]
            return [self._claimed(self.db.execute(_LEASE, [run_id, item_id]).fetchone()) for *_, item_id in first]

    def _claimed(self, row: sqlite3.Row) -> Claim:
        shared_ids, own_ids = self._prompt(row["id"])
        partials = self.db.execute(
            "select token_ids, logprob_sum from partial where item_id = ? order by position", [row["id"]]
        ).fetchall()
        request = Request(
            request_id=row["id"],
            prompt_ids=shared_ids + own_ids,
            max_new_tokens=row["max_new_tokens"],
            generated_ids=tuple(token for partial in partials for token in _ids(partial["token_ids"])),
            logprob_sum=partials[-1]["logprob_sum"] if partials else 0.0,
            stop=StopCriteria(row["max_sentences"], stops_loops=True, at_line_end=bool(row["at_line_end"])),
            shared_tokens=len(shared_ids),
        )
        lease = Lease(item_id=row["id"], run_id=row["run_id"], epoch=row["epoch"])
        return Claim(lease=lease, item=_item(row), request=request, read_tokens=row["read_tokens"])

    def next_retry_at(self, repository_ids: Sequence[int]) -> float | None:
        """When the next item that failed may be claimed again; None when there is no such item."""
        rows = _each(self.db, _NEXT_RETRY, [(repository_id,) for repository_id in repository_ids])
        return min((row["at"] for row in rows if row["at"] is not None), default=None)

    def commit_step(
        self, progress: Sequence[tuple[Lease, NewTokens]], finished: Sequence[Finished], failed: Sequence[Failed]
    ) -> None:
        """Store all that one step gave, in one transaction.  A lease that was lost changes nothing."""
        with self.transaction():
            for lease, new in progress:
                self._append_partial(lease, new)
            for done in finished:
                self._finish(done)
            for lost in failed:
                self._fail(lost)

    def _append_partial(self, lease: Lease, new: NewTokens) -> None:
        self.db.execute(
            """insert into partial (item_id, position, token_ids, logprob_sum)
               select id, (select coalesce(max(position) + 1, 0) from partial where item_id = item.id), :ids, :sum
               from item where id = :item_id and run_id = :run_id and epoch = :epoch and state = 'leased'""",
            {"ids": _blob(new.token_ids), "sum": new.logprob_sum, **_fence(lease)},
        )

    def _finish(self, done: Finished) -> None:
        completion, key = done.completion, done.claim.item.key
        changed = self.db.execute(
            """update item set state = 'done', run_id = null, output_tokens = :tokens, ended = :ended,
                      verdict = :verdict, shown_text = :shown, num_sentences = :sentences, num_kept = :kept,
                      reasons = :reasons, error = null, error_class = null
               where id = :item_id and run_id = :run_id and epoch = :epoch and state = 'leased'""",
            {
                "tokens": len(completion.token_ids),
                "ended": completion.reason,
                **dict(
                    zip(("verdict", "shown", "sentences", "kept", "reasons"), _checked(done.validation), strict=True)
                ),
                **_fence(done.claim.lease),
            },
        )
        if not changed.rowcount:
            return
        assert key is not None
        self.save_result(key, StoredResult(text=done.text, completion=completion), done.provenance)
        for table in ("partial", "prompt"):
            self.db.execute(f"delete from {table} where item_id = ?", [done.claim.item.id])

    def save_result(self, key: str, result: StoredResult, provenance: Mapping[str, Any]) -> None:
        """Within a transaction: store an answer under its key; the first one stays."""
        completion = result.completion
        self.db.execute(
            """insert into result (key, token_ids, text, logprob_sum, num_scored, reason, provenance)
               values (?, ?, ?, ?, ?, ?, ?) on conflict (key) do nothing""",
            [
                key,
                _blob(completion.token_ids),
                result.text,
                completion.logprob_sum,
                completion.num_scored,
                completion.reason,
                json.dumps(provenance),
            ],
        )

    def _fail(self, lost: Failed) -> None:
        state = ItemState.PARKED if lost.retry_at is None else ItemState.READY
        self.db.execute(
            """update item set state = :state, run_id = null, attempts = attempts + 1, error = :error,
                      error_class = :class, not_before = :at
               where id = :item_id and run_id = :run_id and epoch = :epoch and state = 'leased'""",
            {
                "state": state,
                "error": lost.error,
                "class": lost.error_class,
                "at": lost.retry_at,
                **_fence(lost.claim.lease),
            },
        )

    def renew(self, claims: Sequence[Claim]) -> list[Claim]:
        """Lease claimed items anew, with the tokens generated so far.  What still comes for the old leases is void."""
        with self.transaction():
            rows = [self.db.execute(_RENEW, _fence(claim.lease)).fetchone() for claim in claims]
            return [self._claimed(row) for row in rows if row is not None]

    def release(self, leases: Sequence[Lease]) -> None:
        """Return leased items to READY; their generated tokens are kept."""
        with self.transaction():
            for lease in leases:
                self.db.execute(
                    """update item set state = 'ready', run_id = null
                       where id = :item_id and run_id = :run_id and epoch = :epoch and state = 'leased'""",
                    _fence(lease),
                )

    def reap(self, run_id: int) -> int:
        """Return the leased items of other runs to READY; returns how many.

        Under the driver's lock every other run is dead.  Retry times are by the clock of the run that set them, so they
        are dropped.
        """
        with self.transaction():
            self.db.execute("update item set not_before = null where state = 'ready' and not_before is not null")
            reaped = self.db.execute(
                "update item set state = 'ready', run_id = null where state = 'leased' and run_id <> ?", [run_id]
            )
            return int(reaped.rowcount)


def _each(db: Connection, query: str, parameters: Sequence[Sequence[float]]) -> list[sqlite3.Row]:
    return [row for given in parameters for row in db.execute(query, given).fetchall()]


def _checked(validation: ValidationResult) -> tuple[str, str | None, int, int, str]:
    """What is stored of a verdict."""
    reasons = json.dumps(validation.reasons[:MAX_REASONS])
    return validation.verdict, validation.shown_text, validation.num_sentences, validation.num_kept, reasons


def _fence(lease: Lease) -> dict[str, int]:
    return {"item_id": lease.item_id, "run_id": lease.run_id, "epoch": lease.epoch}


def _item(row: sqlite3.Row) -> WorkItem:
    subject = Subject.parse(row["unit"], row["path"], row["subject"])
    return WorkItem(
        **{name: row[name] for name in _PLAIN_COLUMNS},
        subject=subject,
        state=ItemState(row["state"]),
        error_class=row["error_class"] and ErrorClass(row["error_class"]),
    )


def _blob(token_ids: Sequence[int]) -> bytes:
    """Token ids as little-endian uint32."""
    return array.array("I", token_ids).tobytes()


def _ids(blob: bytes) -> tuple[int, ...]:
    return tuple(array.array("I", blob))
