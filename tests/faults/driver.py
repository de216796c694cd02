"""Run the command line and send this process a real SIGKILL at an aimed place.

    python driver.py LOG STAGE COUNT JOURNAL rotary-batch-arguments...

STAGE is where: `prefill` and `decode` kill in the attention of a layer of such a revolution, `commit` between
the statements of a step's transaction or right after it, `pages` between the syncs and renames of a projection.
COUNT is which call, JOURNAL the mode of the database.  Everything that the engine gave is logged before it is committed, with a sync.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import rotary_batch.pages.safe_folder as safe_folder_module
import rotary_batch.runner as runner_module
from rotary_batch import cli
from rotary_batch.engine.attention.exact import ExactAttention
from rotary_batch.engine.attention.exact_cpu import ExactCpuAttention
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.engine.scheduler import Scheduler
from rotary_batch.work import connection
from rotary_batch.work.store import WorkStore

LOG, STAGE = sys.argv[1], sys.argv[2]
state = {"left": 0, "now": ""}  # `now`: what the engine is doing
sync = os.fsync  # the real one, for our own log


def log(**fields) -> None:
    with Path(LOG).open("a") as file:
        file.write(json.dumps(fields) + "\n")
        file.flush()
        sync(file.fileno())


def aim(stage: str) -> None:
    """Count a place; kill at the last."""
    if stage == STAGE:
        state["left"] -= 1
        if state["left"] <= 0:
            log(killed=stage)
            os.kill(os.getpid(), signal.SIGKILL)


def wrap(owner, name, before="", after="") -> None:
    inner = getattr(owner, name)

    def wrapped(*arguments, **options):
        if before:
            aim(before)
        result = inner(*arguments, **options)
        if after:
            aim(after)
        return result

    setattr(owner, name, wrapped)


schedule = Scheduler.schedule_step
step = RotaryEngine.step
commit = WorkStore.commit_step


def scheduled(*arguments, **options):
    parts = schedule(*arguments, **options)
    state["now"] = "prefill" if any(not part.sequence.is_decoding for part in parts) else "decode"
    return parts


def aim_at_attention(attention) -> None:
    attend = attention.attend

    def attended(*arguments):
        aim(state["now"])
        return attend(*arguments)

    attention.attend = attended


def stepped(self):
    report = step(self)
    log(step=[[new.request_id, list(new.token_ids)] for new in report.new_tokens], reprefill=report.reprefill_tokens)
    return report


def committed(self, progress, finished, failed):
    commit(self, progress, finished, failed)
    log(committed=True, finished=[done.claim.item.id for done in finished])
    aim("commit")


def arm() -> None:
    """Put the counters in place."""
    state["left"] = int(sys.argv[3])
    Scheduler.schedule_step = scheduled
    for attention in (ExactAttention, ExactCpuAttention):
        aim_at_attention(attention)
    RotaryEngine.step = stepped
    WorkStore.commit_step = committed
    wrap(WorkStore, "_append_partial", before="commit")
    wrap(WorkStore, "_finish", before="commit", after="commit")
    wrap(safe_folder_module.os, "fsync", before="pages", after="pages")
    wrap(safe_folder_module.os, "rename", before="pages", after="pages")
    runner_module.SYNC_EVERY_S = 0.0
    journal = sys.argv[4]
    connection.journal_mode_for = lambda _: journal


if __name__ == "__main__":  # parser processes import this file too
    arm()
    sys.argv = ["rotary-batch", *sys.argv[5:]]
    cli.main()
