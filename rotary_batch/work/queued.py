"""The open items with what they will cost, in the order in which they are claimed: what a forecast is computed from."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rotary_batch.core import Unit
from rotary_batch.work.expected import Expected, expected_each
from rotary_batch.work.store import WorkStore

MAX_LENGTHS = 500  # of each unit, the newest
_TOKEN_NBYTES = 4


class Queued(NamedTuple):
    """One open item."""

    id: int
    unit: Unit
    path: str
    parent_id: int | None  # of the item that reads this one
    prompt_tokens: float  # to read; what a sibling reads too counts once
    max_new_tokens: int
    num_generated: int = 0  # tokens that earlier runs generated
    num_items: int = 1  # it and its parts
    is_answered: bool = False  # an equal prompt has an answer


def queued(store: WorkStore, repository_ids: Sequence[int]) -> list[Queued]:
    """The open items, those of the most worth first.

    A prompt that is not known yet counts as what is expected, or as long as those of its unit.
    """
    late, known = expected_each(store, repository_ids), set(store.answered_before(repository_ids))
    rows = store.db.execute(
        f"""select item.id, unit, path, parent_id, read_tokens, max_new_tokens,
                   (select coalesce(sum(length(token_ids)), 0) from partial where item_id = item.id) as nbytes
            from item where state in ('waiting', 'ready', 'leased')
              and repository_id in ({",".join("?" * len(repository_ids))}) order by priority desc, position, item.id""",
        list(repository_ids),
    ).fetchall()
    usual = _usual_tokens([(row["unit"], row["read_tokens"]) for row in rows])
    return [_queued(dict(row), late.get(row["id"], Expected(0, usual.get(row["unit"], 0.0))), known) for row in rows]


def _usual_tokens(prompts: Sequence[tuple[str, int | None]]) -> dict[str, float]:
    """Unit -> mean tokens of the prompts that are known."""
    tokens: dict[str, list[int]] = {}
    for unit, count in prompts:
        if count is not None:
            tokens.setdefault(unit, []).append(count)
    return {unit: sum(each) / len(each) for unit, each in tokens.items()}


def _queued(row: dict[str, int | str | None], late: Expected, known: set[int]) -> Queued:
    nbytes, tokens = row.pop("nbytes"), row.pop("read_tokens")
    is_known = tokens is not None
    return Queued(
        **row | {"unit": Unit(row["unit"])},  # type: ignore[arg-type]
        prompt_tokens=tokens if is_known else late.prompt_tokens,  # type: ignore[arg-type]
        num_generated=int(nbytes or 0) // _TOKEN_NBYTES,
        num_items=1 if is_known else 1 + late.num_parts,
        is_answered=row["id"] in known,
    )


def answer_lengths(store: WorkStore, model_name: str, jobs: Sequence[str]) -> dict[Unit, list[int]]:
    """Unit -> how many tokens the newest answers of a model have in these jobs, in all repositories, ascending.

    Of those that began together the short ones end first.  So one that is not finished counts too, as long as one of
    those that ended later than it; and a unit of which most are not finished is left out.
    """
    places = ",".join("?" * len(jobs))
    of_model = f"""item join repository on repository.id = repository_id
                   where model_name = ? and item.job in ({places})"""
    ended = store.db.execute(
        f"""select unit, output_tokens from
              (select unit, output_tokens, row_number() over (partition by unit order by item.id desc) as place
               from {of_model} and state = 'done' and output_tokens is not null) where place <= {MAX_LENGTHS}""",
        [model_name, *jobs],
    )
    going_on = store.db.execute(
        f"""select unit, (select sum(length(token_ids)) / {_TOKEN_NBYTES} from partial where item_id = item.id)
            from {of_model} and item.id in (select item_id from partial)""",
        [model_name, *jobs],
    )
    unfinished = _by_unit(going_on)
    return {
        unit: _with_unfinished(each, begun)
        for unit, each in _by_unit(ended).items()
        if len(begun := unfinished.get(unit, [])) <= len(each)
    }


def _by_unit(rows: Iterable[tuple[str, int]]) -> dict[Unit, list[int]]:
    lengths: dict[Unit, list[int]] = {}
    for unit, tokens in rows:
        lengths.setdefault(Unit(unit), []).append(tokens)
    return {unit: sorted(each) for unit, each in lengths.items()}


def _with_unfinished(ended: list[int], unfinished: Sequence[int]) -> list[int]:
    """Lengths of all answers, ascending: each that goes on is as long as one of the longer ones, in turn."""
    guessed = []
    for number, tokens in enumerate(unfinished):
        longer = ended[bisect_right(ended, tokens) :]
        guessed.append(longer[number % len(longer)] if longer else tokens)
    return sorted([*ended, *guessed])
