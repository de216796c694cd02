"""What of the open work will be done by a deadline, in the order of worth, and which one change would help most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from rotary_batch.commands.forecasting import (
    Forecast,
    KnownPace,
    Work,
    at_pace,
    engine_of,
    files_by,
    known_pace,
    of_pace,
    paces,
)
from rotary_batch.commands.groups import Group
from rotary_batch.commands.jobs import find_job
from rotary_batch.commands.step_costs import Pace
from rotary_batch.core import Unit
from rotary_batch.work.queued import Queued
from rotary_batch.work.store import WorkStore

MIN_GAIN = 1.05  # a change that helps less is not named
MAX_HELPS = 3
MEASURED, COMPUTED = "an earlier run", "the measured rates"


class Bound(NamedTuple):
    """What the roofline says."""

    pace: Pace
    gains: Sequence[tuple[float, str]]  # how many times as fast each change makes the run
    is_reachable: bool  # rates are of fast numerics, so exact ones do not reach them


class Help(NamedTuple):
    """One change, and how many times as fast the run is with it."""

    gain: float
    change: str
    source: str


def expected(store: WorkStore, group: Group, window_s: float | None, bound: Bound | None) -> dict[str, Any]:
    """When all is done, and what of it by the deadline; empty without an earlier run and a roofline.

    It goes by the newest run of this model with the same settings of the engine, else by the roofline.
    """
    known, work = known_pace(store, group), Work.of(store, group)
    if known is not None:
        found = at_pace(work, known)
    elif bound is not None:
        found = of_pace(work, bound.pace, bound.pace.full_batch, "the bound")
    else:
        return {}
    if found is None:
        return {}
    helps = _helps(store, group, work, found, known, bound)
    table = {
        "basis": found.basis,
        "items": found.num_items,
        "seconds": round(found.seconds, 1),
        "helps": [_told(one, found, window_s) for one in helps],
    }
    if window_s is None:
        return {"expected": table}
    by_deadline = found.items_by(window_s)
    table |= {"items_by_deadline": by_deadline, "files_by_deadline": files_by(found, window_s)}
    return {"expected": table, "items_by_deadline": by_deadline}


def _told(one: Help, found: Forecast, window_s: float | None) -> dict[str, Any]:
    return {
        "change": one.change,
        "gain": round(one.gain, 2),
        "source": one.source,
        "items_by_deadline": None if window_s is None else found.items_by(window_s * one.gain),
    }


def _helps(
    store: WorkStore, group: Group, work: Work, found: Forecast, known: KnownPace | None, bound: Bound | None
) -> list[Help]:
    """The changes that help most; what was measured stands for what was computed of the same change."""
    helps = list(_measured(store, group, work, found)) if known else []
    taken = {one.change for one in helps}
    helps += [Help(gain, name, COMPUTED) for gain, name in (bound.gains if bound else ()) if name not in taken]
    if known is not None:
        helps += _less_context(group, work, known, found)
    return sorted((one for one in helps if one.gain >= MIN_GAIN), reverse=True)[:MAX_HELPS]


def _measured(store: WorkStore, group: Group, work: Work, found: Forecast) -> Iterator[Help]:
    """Engines that were set otherwise, as fast as they were."""
    own = engine_of(group)
    for other in paces(store, group):
        if other.engine != own and (then := at_pace(work, other)):
            names = ("--numerics", "--kv", "--max-batch")
            changed = [
                f"{name} {value}" for name, value, now in zip(names, other.engine, own, strict=True) if value != now
            ]
            if other.max_batch or not own[2]:  # a batch of the default size is set by no option
                yield Help(found.seconds / then.seconds, " ".join(changed), MEASURED)


def _less_context(group: Group, work: Work, known: KnownPace, found: Forecast) -> Iterator[Help]:
    """Half of what prompts tell of the code around, at the measured cost of a prompt token."""
    job = find_job(group.settings, group.manifest)
    context = job.symbol.context_tokens if job.symbol is not None else None
    if not context:
        return
    half = context // 2
    shorter = [_without(item, half) for item in work.queue]
    if then := at_pace(replace(work, queue=shorter), known):
        yield Help(found.seconds / then.seconds, f"context_tokens = {half} in the job, at most", MEASURED)


def _without(item: Queued, tokens: int) -> Queued:
    """A prompt of a chunk that is so much shorter, but no prompt is shorter than half of it."""
    if item.unit not in {Unit.CHUNK, Unit.SYMBOL}:
        return item
    return item._replace(prompt_tokens=max(item.prompt_tokens / 2, item.prompt_tokens - tokens))
