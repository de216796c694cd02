"""What a run over a cluster loses when a part of it is killed, and after how long it goes on.  The last table of ray.md.

    python -m benchmarks.ray_faults REPO

A head and two nodes, each with processes of its own on this machine; one engine with the embedded model, so that what is
killed had the work.  The driver is `rotary-batch run` in a process of its own.  Everything is killed with SIGKILL, in the middle of answers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.default_model import EMBEDDED
from tests.ray_nights import RayNight, wait_for
from tests.ray_nodes import cluster, engines_of

Kill = Callable[[Any, subprocess.Popen[str]], None]


class Seen(NamedTuple):
    """What one night came to."""

    stored: int  # tokens when it happened
    recovered_s: float | None  # until a token came of an item that had been begun; None = the run ended well before
    ended_by_it: int | None  # exit code of the run; None = it went on
    ended_s: float  # after the kill; of a run that went on 0
    attempts: int  # that were counted: an item that was alone in its engine is charged one
    written: int  # tokens that the engines reported, all runs together
    are_pages_same: bool


def kill_actor(nodes: Any, _: subprocess.Popen[str]) -> None:
    os.kill(next(pid for node in nodes.worker_nodes for pid in engines_of(node)), signal.SIGKILL)


def kill_node(nodes: Any, _: subprocess.Popen[str]) -> None:
    nodes.remove_node(next(node for node in nodes.worker_nodes if engines_of(node)), allow_graceful=False)


def kill_driver(_: Any, run: subprocess.Popen[str]) -> None:
    run.kill()


def kill_head(nodes: Any, _: subprocess.Popen[str]) -> None:
    nodes.head_node.kill_all_processes(check_alive=False, allow_graceful=False)


FAULTS: dict[str, Kill] = {"engine": kill_actor, "node": kill_node, "driver": kill_driver, "head": kill_head}


def written(answer: str) -> int:
    return sum(int(one["decode_tokens"]) for one in json.loads(answer))


def undisturbed(night: RayNight, address: str | None = None) -> tuple[int, float]:
    """The tokens of a night, and its seconds."""
    began = time.monotonic()
    return written(night.finish(address)), time.monotonic() - began


def disturbed(night: RayNight, kill: Kill, expected: dict[Path, bytes]) -> Seen:
    with cluster(num_nodes=2) as nodes:
        run = night.start(nodes.address)
        wait_for(night.is_in_mid_answer, "answer")
        epochs = night.epochs()
        kill(nodes, run)
        killed_at, before = time.monotonic(), night.tokens()
        if kill in (kill_driver, kill_head):
            run.wait(timeout=240)
        ended, ended_s, first = run.poll(), time.monotonic() - killed_at, 0
        if ended:
            first = stored_tokens(night)
            run = night.start(nodes.address if kill is kill_driver else None)
        if ended != 0:
            wait_for(lambda: has_gone_on(night, epochs, before), "token after the kill")
        recovered_s = time.monotonic() - killed_at if ended != 0 else None
        answer, errors = run.communicate(timeout=600)
        assert run.returncode == 0, errors
    states, attempts = night.standing()
    assert states == {"done"}, states
    return Seen(
        stored=sum(map(len, before.values())),
        recovered_s=recovered_s,
        ended_by_it=ended,
        ended_s=ended_s if ended is not None else 0.0,
        attempts=attempts,
        written=first + written(answer),
        are_pages_same=night.pages() == expected,
    )


def stored_tokens(night: RayNight) -> int:
    return sum(map(len, night.tokens().values()))


def has_gone_on(night: RayNight, epochs: dict[int, int], before: dict[int, list[int]]) -> bool:
    """Whether an item that was leased anew since has more tokens than it had."""
    now, anew = night.tokens(), dict(night.rows("select id, epoch from item"))
    return any(
        anew[item] > epoch and len(now.get(item, [])) > len(before.get(item, [])) for item, epoch in epochs.items()
    )


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    os.environ["ROTARY_BATCH_MODEL"] = str(EMBEDDED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        single = RayNight(source, folder / "single")
        tokens, seconds = undisturbed(single)
        num_items = single.rows("select count(*) from item")[0][0]
        print(f"{num_items} items, {tokens:,} tokens, {len(single.pages())} files; alone: {seconds:.0f} s", flush=True)
        print(
            "| killed | tokens stored by then | attempts counted | run ended | goes on after "
            "| tokens written in all | same pages |"
        )
        print("| --- | ---: | ---: | --- | ---: | ---: | --- |")
        for what in sys.argv[2:] or ["nothing", *FAULTS]:
            night = RayNight(source, folder / what, num_engines=1)
            if what == "nothing":
                with cluster(num_nodes=2) as nodes:
                    count, seconds = undisturbed(night, nodes.address)
                print(
                    f"| nothing | | | after {seconds:.0f} s | | {count:,} | {night.pages() == single.pages()} |",
                    flush=True,
                )
                continue
            seen = disturbed(night, FAULTS[what], single.pages())
            how = "goes on" if seen.ended_by_it is None else f"exit {seen.ended_by_it} after {seen.ended_s:.1f} s"
            after = "" if seen.recovered_s is None else f"{seen.recovered_s:.1f} s"
            print(
                f"| {what} | {seen.stored:,} | {seen.attempts} | {how} | {after} | {seen.written:,} "
                f"| {seen.are_pages_same} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
