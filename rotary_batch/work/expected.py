"""The items that will be queued late: parts of roll-ups whose notes will not fit into one prompt.

A roll-up gets its prompt, or its parts, when all that it reads is answered.  Until then the length of its notes is
guessed from the structure of what they describe, and from how many tokens such notes had so far.  So a run knows
from its first step what it will be asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from rotary_batch.core import Unit
from rotary_batch.work.store import WorkStore

NOTE_CHARS = 150  # of a note whose structure is not known, as that on a file
CHAR_TOKENS = 0.32  # tokens of a character, while few notes are known: what `mypy` has with the embedded model
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
        """This, and the other `count` times."""
        return Expected(self.num_parts + count * each.num_parts, self.prompt_tokens + count * each.prompt_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rollups:
    """Roll-ups of one repository and unit, whose notes are alike or which all have prompts."""

    repository_id: int
    unit: Unit
    count: int
    num_notes: int  # of each; of all when they have prompts
    note_chars: int  # of these notes, by their structure
    prompt_tokens: int | None  # of all; None = they wait for theirs


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
    char_tokens = _char_tokens(rollups, rooms)
    totals: dict[Unit, Expected] = {}
    for one in rollups:
        if one.prompt_tokens is None:
            note_tokens = one.note_chars * char_tokens[one.unit] / max(1, one.num_notes)
            each = of_notes(one.num_notes, note_tokens, rooms.get((one.repository_id, one.unit)))
            totals[one.unit] = totals.get(one.unit, Expected()).plus(one.count, each)
    return totals


def expected_each(store: WorkStore, repository_ids: Sequence[int]) -> dict[int, Expected]:
    """Item -> what is expected of it, for every roll-up without a prompt."""
    rooms = _rooms(store, repository_ids)
    char_tokens = _char_tokens(_rollups(store, repository_ids), rooms)
    rows = store.db.execute(
        f"""select item.id, item.repository_id, item.unit, count(note.id) as num_notes,
                   coalesce(sum(coalesce(note.note_chars, {NOTE_CHARS})) filter (where note.id), 0) as note_chars
            from item left join item as note on note.parent_id = item.id
            where item.unit not in ('chunk', 'symbol') and item.unit <> 'detail'
              and item.state = 'waiting' and item.prompt_tokens is null
              and item.repository_id in ({",".join("?" * len(repository_ids))}) group by item.id""",
        list(repository_ids),
    )
    found = {}
    for item_id, repository_id, unit, num_notes, note_chars in rows:
        note_tokens = note_chars * char_tokens[Unit(unit)] / max(1, num_notes)
        found[item_id] = of_notes(num_notes, note_tokens, rooms.get((repository_id, Unit(unit))))
    return found


def of_notes(num_notes: int, note_tokens: float, room: NoteRoom | None) -> Expected:
    """What is expected of one roll-up: parts read its notes, and parts of parts their notes, until one prompt can."""
    if room is None:  # nothing was planned by `index`
        return Expected(prompt_tokens=num_notes * note_tokens)
    most = max(2, int(room.notes_tokens // max(1.0, note_tokens)))  # in a prompt; parts of one note would not get fewer
    num_parts, num_read = 0, num_notes
    while num_notes > most:
        num_notes = ceil(num_notes / most)
        num_parts, num_read = num_parts + num_notes, num_read + num_notes
    return Expected(num_parts, (1 + num_parts) * room.frame_tokens + num_read * note_tokens)


def _char_tokens(rollups: Sequence[_Rollups], rooms: Mapping[tuple[int, Unit], NoteRoom]) -> dict[Unit, float]:
    """Tokens of a character of notes by unit, going by the prompts that are known."""
    chars = {one.unit: FEW_NOTES * NOTE_CHARS for one in rollups}
    tokens = {unit: count * CHAR_TOKENS for unit, count in chars.items()}
    for one in rollups:
        if one.prompt_tokens is not None and (room := rooms.get((one.repository_id, one.unit))):
            tokens[one.unit] += max(0, one.prompt_tokens - one.count * room.frame_tokens)
            chars[one.unit] += one.note_chars
    return {unit: tokens[unit] / chars[unit] for unit in chars}


def _rooms(store: WorkStore, repository_ids: Sequence[int]) -> dict[tuple[int, Unit], NoteRoom]:
    rows = store.db.execute(
        f"select * from note_room where repository_id in ({','.join('?' * len(repository_ids))})", list(repository_ids)
    )
    return {
        (row["repository_id"], Unit(row["unit"])): NoteRoom(row["frame_tokens"], row["notes_tokens"]) for row in rows
    }


def _rollups(store: WorkStore, repository_ids: Sequence[int]) -> list[_Rollups]:
    places = ",".join("?" * len(repository_ids))
    each = f"""select item.repository_id, item.unit, item.prompt_tokens, count(note.id) as num_notes,
                      coalesce(sum(coalesce(note.note_chars, {NOTE_CHARS})) filter (where note.id), 0) as note_chars
               from item left join item as note on note.parent_id = item.id
               where item.unit not in ('chunk', 'symbol') and item.unit <> 'detail'
                 and item.repository_id in ({places}) and {{which}}
               group by item.id"""
    waiting = each.format(which="item.state = 'waiting' and item.prompt_tokens is null")
    known = each.format(which="item.prompt_tokens is not null")
    rows = store.db.execute(
        f"""select repository_id, unit, count(*) as count, num_notes, note_chars, null as prompt_tokens
            from ({waiting}) group by repository_id, unit, num_notes, note_chars
            union all
            select repository_id, unit, count(*), sum(num_notes), sum(note_chars), sum(prompt_tokens)
            from ({known}) group by repository_id, unit""",
        [*repository_ids, *repository_ids],
    )
    return [_Rollups(**dict(row) | {"unit": Unit(row["unit"])}) for row in rows]
