"""The pace of a run: a pause that another shell asked for, and what other programs need of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rotary_batch.config import Settings
from rotary_batch.machine.card_use import CardGuests, CardRoom
from rotary_batch.machine.need import Source
from rotary_batch.machine.nvml import Card, open_card
from rotary_batch.machine.pressure import Memory, Processors
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.memory_plan import MEMORY_SHARE
from rotary_batch.pacing import Pacer, Yielding
from rotary_batch.work import control

PacerFor = Callable[[Settings], Pacer]
FREE_SHARE = 0.9  # of what is free on a card, once others use it


def full_pace(_: Settings) -> Pacer:
    """Nothing asks for a pause, and nobody else is there."""
    return Pacer()


def pacer_for(database: Path, settings: Settings) -> Pacer:
    """The pace of a driver of this database on the device of the settings."""
    is_here = settings.ray is None  # on a cluster, others need nothing of this machine
    sources = _sources(settings.device) if settings.yields and is_here else ()
    return Pacer(paused=lambda: pause_words(control.paused(database)), yielding=Yielding(sources))


def _sources(device: str) -> list[Source]:
    card = open_card(device)
    of_card: list[Source] = [] if card is None else [CardRoom(card), CardGuests(card)]
    return [Processors(), Memory(), *of_card]


def pause_words(pause: control.Pause | None) -> str | None:
    """`paused since 21:40; rotary-batch unpause continues`."""
    if pause is None:
        return None
    since = f"paused since {_clock_time(pause.since)}"
    if pause.until is None:
        return f"{since}; `rotary-batch unpause` continues"
    return f"{since} until {_clock_time(pause.until)}; `rotary-batch unpause` continues now"


def _clock_time(at: float) -> str:
    return f"{datetime.fromtimestamp(at):%a %H:%M}"  # noqa: DTZ006 - the wall clock of the person


def within_free(options: EngineOptions, card: Card | None) -> EngineOptions:
    """The options of an engine that leaves other programs what they have of the card."""
    memory = None if card is None else card.memory()
    if memory is None:
        return options
    usual = options.device_memory or int(MEMORY_SHARE["cuda"] * memory.total_nbytes)
    return replace(options, device_memory=min(usual, int(FREE_SHARE * memory.free_nbytes)))


def energy_of(device: str) -> Callable[[], float | None]:
    """Joules that the card of a device has taken in all; the function gives None where nothing counts them."""
    card = open_card(device)
    return (lambda: None) if card is None else card.energy_j
