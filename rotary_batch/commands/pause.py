"""`pause` and `unpause`: stop the drivers of a database from another shell, and let them go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rotary_batch.commands.database import database_path, reading
from rotary_batch.config import Settings
from rotary_batch.work import control, counts
from rotary_batch.work.lock import holder

ASK_EVERY_S = 0.2


def pause(settings: Settings, until: float | None, patience_s: float, sleep: Callable[[float], None]) -> dict[str, Any]:
    """Pause, and wait until the driver that runs has given back its memory, at most `patience_s`.

    `is_free` is whether no driver works now: there is none, or it has answered.
    """
    database = database_path(settings)
    asked = control.pause(database, until)
    give_up_at = time.monotonic() + patience_s
    while (driver := holder(database)) is not None and not _is_free(settings) and time.monotonic() < give_up_at:
        sleep(ASK_EVERY_S)
    return {
        "database": str(database),
        "paused": asked.as_dict(),
        "driver_pid": driver,
        "is_free": driver is None or _is_free(settings),
    }


def _is_free(settings: Settings) -> bool:
    """Whether no run goes on, or it says that it is paused.  The read ends before this returns."""
    with reading(settings) as store:
        run = counts.last_run(store)
    return run is None or run.outcome is not None or (run.stats.get("activity") or {}).get("state") == "paused"


def unpause(settings: Settings) -> dict[str, Any]:
    """Let the drivers go on."""
    database = database_path(settings)
    was_paused = control.unpause(database)
    return {"database": str(database), "was_paused": was_paused, "driver_pid": holder(database)}
