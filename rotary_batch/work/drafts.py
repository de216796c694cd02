"""Prompts that cannot be made yet, as they tell what a model said of something else: their sources, what they need.

A chunk needs the answers on symbols that it uses and that no author describes.  Until the last of these is there, its
items wait, and its source is kept as a draft: at that time the repository may have changed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

from rotary_batch.core import Subject
from rotary_batch.work.rows import Answer, answer_of_row
from rotary_batch.work.store import WorkStore


class ChunkId(NamedTuple):
    """A chunk within one repository; or a topic, which needs answers too: its start byte is minus its number."""

    path: str
    start_byte: int


def topic_place(topic: Subject) -> ChunkId:
    """Where the needs of a topic are."""
    return ChunkId(topic.path, -(topic.part or 0))


class ContextLine(NamedTuple):
    """A line of the context of a chunk; the answer of the item that it needs comes behind it."""

    text: str
    item_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What the prompt of a chunk is made from."""

    start_line: int
    language: str
    source: str
    lines: tuple[ContextLine, ...] = ()  # most useful first


def save_draft(store: WorkStore, repository_id: int, chunk: ChunkId, draft: Draft) -> None:
    """Within a transaction: store or replace a draft."""
    text = zlib.compress(json.dumps(asdict(draft)).encode())
    store.db.execute(
        "insert or replace into draft (repository_id, path, start_byte, text) values (?, ?, ?, ?)",
        [repository_id, *chunk, text],
    )


def load_draft(store: WorkStore, repository_id: int, chunk: ChunkId) -> Draft | None:
    """The draft of a chunk, if it has one."""
    query = "select text from draft where repository_id = ? and path = ? and start_byte = ?"
    row = store.db.execute(query, [repository_id, *chunk]).fetchone()
    if row is None:
        return None
    values = json.loads(zlib.decompress(row["text"]))
    return Draft(**values | {"lines": tuple(ContextLine(*line) for line in values["lines"])})


def drop_draft(store: WorkStore, repository_id: int, chunk: ChunkId) -> None:
    """Within a transaction: delete the draft of a chunk when nothing waits for it."""
    store.db.execute(
        """delete from draft where repository_id = :id and path = :path and start_byte = :start and not exists
             (select 1 from item where repository_id = :id and path = :path and +state = 'waiting'
                and chunk_start = :start)""",
        {"id": repository_id, "path": chunk.path, "start": chunk.start_byte},
    )


def drop_drafts(store: WorkStore, repository_id: int) -> None:
    """Within a transaction: delete all drafts for which nothing waits, and the needs of chunks that are gone."""
    store.db.execute(
        """delete from draft where repository_id = ? and not exists
             (select 1 from item where item.repository_id = draft.repository_id and item.path = draft.path
                and +item.state = 'waiting' and item.chunk_start = draft.start_byte)""",
        [repository_id],
    )
    store.db.execute(
        """delete from need where repository_id = ? and start_byte >= 0 and not exists
             (select 1 from chunk where chunk.repository_id = need.repository_id and chunk.path = need.path
                and chunk.start_byte = need.start_byte)""",
        [repository_id],
    )


def save_needs(store: WorkStore, repository_id: int, chunk: ChunkId, item_ids: Iterable[int]) -> None:
    """Within a transaction: replace the items whose answers a chunk tells."""
    store.db.execute(
        "delete from need where repository_id = ? and path = ? and start_byte = ?", [repository_id, *chunk]
    )
    store.db.executemany(
        "insert into need (repository_id, path, start_byte, item_id) values (?, ?, ?, ?)",
        [(repository_id, *chunk, item_id) for item_id in item_ids],
    )


def with_lines(draft: Draft, lines: Sequence[ContextLine]) -> Draft:
    """A draft with another context."""
    return replace(draft, lines=tuple(lines))


def needs_of(store: WorkStore, repository_id: int, chunk: ChunkId) -> set[int]:
    """The items whose answers one chunk tells."""
    query = "select item_id from need where repository_id = ? and path = ? and start_byte = ?"
    return {row["item_id"] for row in store.db.execute(query, [repository_id, *chunk])}


def stored_needs(store: WorkStore, repository_id: int) -> dict[ChunkId, set[int]]:
    """The items whose answers each chunk tells; chunks without any are left out."""
    needs: dict[ChunkId, set[int]] = {}
    for path, start_byte, item_id in store.db.execute(
        "select path, start_byte, item_id from need where repository_id = ?", [repository_id]
    ):
        needs.setdefault(ChunkId(path, start_byte), set()).add(item_id)
    return needs


def needed_answers(store: WorkStore, repository_id: int, place: ChunkId) -> list[Answer]:
    """What a model said of the things whose answers a chunk or a topic needs."""
    ids = sorted(needs_of(store, repository_id, place))
    rows = store.db.execute(
        """select unit, path, subject, state, verdict, shown_text, label from item
           where id in (select value from json_each(?)) order by unit, path, position""",
        [json.dumps(ids)],
    )
    return [answer_of_row(row) for row in rows]


def make_wait(store: WorkStore, repository_id: int, chunk: ChunkId, item_ids: Sequence[int]) -> None:
    """Within a transaction: begin items of a chunk anew; they wait for what it needs, which is stored already."""
    for table in ("partial", "prompt"):
        store.db.executemany(f"delete from {table} where item_id = ?", [(item_id,) for item_id in item_ids])
    store.db.executemany(
        """update item set state = 'waiting', key = null, epoch = epoch + 1, run_id = null, attempts = 0,
                  not_before = null, error = null, error_class = null, ended = null, prompt_tokens = null,
                  read_tokens = null, output_tokens = null, verdict = null, shown_text = null, reused = 0,
                  num_sentences = 0, num_kept = 0, reasons = '[]', unchecked = 0,
                  blockers = (select count(*) from need join item as needed on needed.id = need.item_id
                              where need.repository_id = ? and need.path = ? and need.start_byte = ?
                                and needed.state not in ('done', 'parked'))
           where id = ?""",
        [(repository_id, *chunk, item_id) for item_id in item_ids],
    )


def answer_of(store: WorkStore, item_id: int) -> str | None:
    """What a model said, if it may be shown."""
    row = store.db.execute("select shown_text from item where id = ?", [item_id]).fetchone()
    return row["shown_text"] if row else None


def place_of(store: WorkStore, item_id: int) -> tuple[ChunkId, str]:
    """The chunk that an item is asked in, and what it is called there."""
    row = store.db.execute("select path, chunk_start, label from item where id = ?", [item_id]).fetchone()
    return ChunkId(row["path"], row["chunk_start"]), row["label"]
