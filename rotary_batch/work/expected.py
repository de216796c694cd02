"""The items that will be queued late: parts of roll-ups whose notes will not fit into one prompt.

A roll-up gets its prompt, or its parts, when all that it reads is answered.  Until then its notes are counted by their
number and the length of notes so far, so that a run knows from its first step what it will be asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from rotary_batch.core import Unit
from rotary_batch.work.store import WorkStore

NOTE_TOKENS = 45.0  # of one, while few are known: 40 to 52 in five packages of Python with the embedded model
FEW_NOTES = 50  # of a unit; with as many known ones, half of their mean is what they had


class NoteRoom(NamedTuple):
    """What the prompt of a roll-up has room for, in tokens."""

    frame_tokens: int  # of the prompt without notes
    notes_tokens: int  # most of all notes


class Expected(NamedTuple):
    """What is expected of the roll-ups of one unit that have no prompt yet."""

    num_parts: int = 0  # that they will get
    prompt_tokens: float = 0.0  # theirs and those of their parts

    def plus(self, count: int, each: Expected) -> Expected:
        """This, and so many times the other."""
        return Expected(self.num_parts + count * each.num_parts, self.prompt_tokens + count * each.prompt_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rollups:
    """Roll-ups of one repository and unit that read as many notes each."""

    repository_id: int
    unit: Unit
    is_known: bool  # whether they have prompts; those without wait
    num_notes: int  # of each
    count: int
    prompt_tokens: int  # of all


def save_rooms(store: WorkStore, repository_id: int, rooms: Mapping[Unit, NoteRoom]) -> None:
    """Within a transaction: store the room of each unit; others of the repository are forgotten."""
    store.db.execute("delete from note_room where repository_id = ?", [repository_id])
    store.db.executemany(
        "insert into note_room (repository_id, unit, frame_tokens, notes_tokens) values (?, ?, ?, ?)",
        [(repository_id, unit, *room) for unit, room in rooms.items()],
    )


def expected(store: WorkStore, repository_ids: Sequence[int]) -> dict[Unit, Expected]:
    """What is expected of each unit that has roll-ups without a prompt.  Reads every roll-up."""
    rooms, rollups = _rooms(store, repository_ids), _rollups(store, repository_ids)
    lengths = _note_tokens(rollups, rooms)
    totals: dict[Unit, Expected] = {}
    for one in rollups:
        if not one.is_known:
            each = of_notes(one.num_notes, lengths[one.unit], rooms.get((one.repository_id, one.unit)))
            totals[one.unit] = totals.get(one.unit, Expected()).plus(one.count, each)
    return totals


def of_notes(num_notes: int, note_tokens: float, room: NoteRoom | None) -> Expected:
    """What is expected of one roll-up: parts read its notes, and parts of parts their notes, until one prompt can."""
    if room is None:  # nothing was planned by `index`
        return Expected(prompt_tokens=num_notes * note_tokens)
    most = max(2, int(room.notes_tokens // note_tokens))  # notes in a prompt; parts of one note would not get fewer
    num_parts, num_read = 0, num_notes
    while num_notes > most:
        num_notes = ceil(num_notes / most)
        num_parts, num_read = num_parts + num_notes, num_read + num_notes
    return Expected(num_parts, (1 + num_parts) * room.frame_tokens + num_read * note_tokens)


def _note_tokens(rollups: Sequence[_Rollups], rooms: Mapping[tuple[int, Unit], NoteRoom]) -> dict[Unit, float]:
    """The length of a note by unit, going by the prompts that are known."""
    tokens = {one.unit: FEW_NOTES * NOTE_TOKENS for one in rollups}
    num_notes = dict.fromkeys(tokens, FEW_NOTES)
    for one in rollups:
        if one.is_known and (room := rooms.get((one.repository_id, one.unit))):
            tokens[one.unit] += max(0, one.prompt_tokens - one.count * room.frame_tokens)
            num_notes[one.unit] += one.count * one.num_notes
    return {unit: tokens[unit] / num_notes[unit] for unit in tokens}


def _rooms(store: WorkStore, repository_ids: Sequence[int]) -> dict[tuple[int, Unit], NoteRoom]:
    rows = store.db.execute(
        f"select * from note_room where repository_id in ({','.join('?' * len(repository_ids))})", list(repository_ids)
    )
    return {
        (row["repository_id"], Unit(row["unit"])): NoteRoom(row["frame_tokens"], row["notes_tokens"]) for row in rows
    }


def _rollups(store: WorkStore, repository_ids: Sequence[int]) -> list[_Rollups]:
    rows = store.db.execute(
        f"""select repository_id, unit, prompt_tokens is not null as is_known,
                   (select count(*) from item as note where note.parent_id = item.id) as num_notes,
                   count(*) as count, coalesce(sum(prompt_tokens), 0) as prompt_tokens
            from item where unit <> 'chunk' and (state = 'waiting' or prompt_tokens is not null)
              and repository_id in ({",".join("?" * len(repository_ids))}) group by 1, 2, 3, 4""",
        list(repository_ids),
    )
    return [_Rollups(**dict(row) | {"unit": Unit(row["unit"]), "is_known": bool(row["is_known"])}) for row in rows]
