"""Cut the power at every place of a scenario, lose any part of what was not synced, and say what was left.

    LD_PRELOAD=shim.so python power.py FOLDER SCENARIO JOURNAL NUM_CASES

SCENARIO is one of sweep.py, or `night`: `run` after an edit, with an engine without a model.  The calls of one undisturbed
run are recorded; the states of the disk are made from them.  NUM_CASES are checked, 0 = all; the next run is tried after
some of them.  Prints JSON: how many cases, of them with a next run, how many cuts, and what was wrong.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import sweep
from disk import Disk, Op, State, read_log, restore

from rotary_batch import cli
from rotary_batch.commands import engines
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.core import Request
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.testing import FakeEngine
from rotary_batch.work import connection

NOTE = Op("N", 0, 0, "", "", b"")
RANDOM_A_CUT = 12  # subsets by chance
NEXT_RUN_EVERY = {"night": 20}  # cases; of the other scenarios each, which take milliseconds
SENTENCES = (
    "It adds to the value.",
    "It reads the value.",
    "It returns the value.",
    "It changes the value.",
    "It is small.",
)


class SayingEngine(FakeEngine):
    """Says a sentence that a page shows; which one depends on the prompt."""

    def __init__(self) -> None:
        tokenizer = Tokenizer.load(EMBEDDED)
        encoded = [tokenizer.encode(sentence) for sentence in SENTENCES]
        self._sentences = [ids for ids in encoded if len(ids) == len(encoded[0])]
        super().__init__(answer_tokens=len(encoded[0]))

    def _token(self, request: Request, place: int) -> int:
        digest = hashlib.sha256(str(request.prompt_ids).encode()).digest()
        return self._sentences[digest[0] % len(self._sentences)][place]


def git(repo: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(repo), *arguments], check=True, capture_output=True)


def run(folder: Path) -> None:
    os.environ["ROTARY_BATCH_DB"] = str(folder / "work.db")
    sys.argv = ["rotary-batch", "run", str(folder.parent / "project"), "--out", str(folder / "docs")]
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        sys.stdout = sys.stderr = nowhere
        try:
            cli.main()
        except SystemExit as end:
            if end.code:
                raise


def documented(folder: Path) -> None:
    """A repository that was documented once, and then changed: a changed, a new and a gone file."""
    repo = folder.parent / "project"
    repo.mkdir()
    for number in range(4):
        (repo / f"m{number}.py").write_text(f"def f{number}(value):\n    return value + {number}\n")
    git(repo, "init", "-q", "-b", "main")
    commit(repo)
    assert sweep.in_a_process(run, folder).code == sweep.DONE
    (repo / "m0.py").unlink()
    (repo / "m1.py").write_text("def changed(value):\n    return value\n")
    (repo / "new.py").write_text("def new(value):\n    return value\n")
    commit(repo)


def commit(repo: Path) -> None:
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "version")


def docs_of(folder: Path) -> dict[str, bytes]:
    docs = folder / "docs"
    return {str(path.relative_to(docs)): path.read_bytes() for path in docs.rglob("*") if path.is_file()}


SCENARIOS = sweep.SCENARIOS | {"night": sweep.Scenario(documented, run, docs_of, is_atomic=False)}


def record(act: Callable[[Path], None], folder: Path, log: Path) -> list[Op]:
    """The calls of an undisturbed run; a note follows each statement after which no transaction is open."""

    def noted(inner: Callable) -> Callable:
        def statement(self, *arguments):
            result = inner(self, *arguments)
            if not self.in_transaction:
                shim.fault_note(b"committed")
            return result

        return statement

    def acted(_folder: Path) -> None:
        for name in ("execute", "executemany", "executescript"):
            setattr(connection.Connection, name, noted(getattr(connection.Connection, name)))
        shim.fault_record(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND), str(folder).encode())
        act(folder)
        shim.fault_record(-1, b"")

    outcome = sweep.in_a_process(acted, folder)
    assert outcome.code == sweep.DONE, outcome
    ops = [op for op in read_log(log) if not op.name.endswith("-shm")]  # made anew by whoever opens the file next
    return [op for place, op in enumerate(ops) if op.kind != "N" or (place and ops[place - 1].kind != "N")]


class Case(NamedTuple):
    """One power cut."""

    at: int  # after so many calls
    shares: list[float]  # of what was pending
    committed: int  # transactions that were, before it
    state: State


def cuts(ops: list[Op], disk: Disk) -> Iterator[Case]:
    """Every state that a cut may leave, once.  What may be lost is most just before a sync, or after a commit."""
    seed, seen, committed = random.Random(3), set(), 0
    for place, op in enumerate([*ops, NOTE]):
        committed += op.kind == "N"
        if op.kind in "SDN":
            for shares in disk.losses(RANDOM_A_CUT, seed):
                state = disk.left(shares)
                digest = hash((committed, *state.items()))
                if digest not in seen:
                    seen.add(digest)
                    yield Case(place, shares, committed, state)
        if op.kind != "N":
            disk.take(op)


class Truth(NamedTuple):
    """What an undisturbed run did, step by step."""

    databases: list[object]  # after each transaction
    versions: dict[str, set[bytes]]  # of each page, those that were put in its place
    after: object


def undisturbed(ops: list[Op], disk: Disk, root: Path, scenario: sweep.Scenario) -> Truth:
    databases, versions = [], {path: {data} for path, data in disk.whole().items() if data is not None}
    for op in [NOTE, *ops, NOTE]:
        if op.kind == "N":
            restore(root, disk.whole())
            databases.append(database(root))
            continue
        disk.take(op)
        if op.kind == "R":
            versions.setdefault(op.other, set()).add(disk.whole()[op.other])
    return Truth(databases, versions, scenario.state(root))


def database(root: Path) -> object:
    """A digest of all that it holds; the truth has one for each transaction."""
    if not (root / "work.db").exists():
        return None
    return hashlib.sha256("\n".join(sweep.dump(root)).encode()).hexdigest()


def check(case: Case, truth: Truth, root: Path, scenario: sweep.Scenario, *, with_next: bool) -> None:
    restore(root, case.state)
    for path, data in case.state.items():
        if data is not None and "/docs/" in path and "/.rotary-" not in path:
            assert data in truth.versions[path], f"{path} is half written"
    possible = truth.databases[case.committed : case.committed + 2]
    assert database(root) in possible, "the database is neither before nor after the transaction that was cut"
    if with_next and own(scenario.state(root)) != own(truth.after):
        assert sweep.in_a_process(scenario.act, root).code == sweep.DONE, "the next run fails"
        assert own(scenario.state(root)) == own(truth.after), "the next run ends with something else"


def own(state: object) -> object:
    """Without temporary files: their folder may be another one, whose files it does not take for its own."""
    return {path: data for path, data in state.items() if "/." not in f"/{path}"} if isinstance(state, dict) else state


def cut(base: Path, name: str, num_cases: int) -> dict:
    scenario, root = SCENARIOS[name], base / "home"
    root.mkdir(parents=True)
    scenario.prepare(root)
    for_truth, for_cuts = Disk(root), Disk(root)
    ops = record(scenario.act, root, base / "log")
    truth = undisturbed(ops, for_truth, root, scenario)
    cases = list(cuts(ops, for_cuts))
    at_the_end = next(case for case in cases if case.at == cases[-1].at)  # all that was not synced is lost
    chosen = [at_the_end, *random.Random(1).sample(cases, min(num_cases or len(cases), len(cases)) - 1)]
    wrong, num_next = [], 0
    for number, case in enumerate(chosen):
        with_next = number % NEXT_RUN_EVERY.get(name, 1) == 0
        num_next += with_next
        try:
            check(case, truth, root, scenario, with_next=with_next)
        except AssertionError as error:
            lost = [op for op, share in enumerate(case.shares) if share < 1]
            wrong.append(f"{name}: cut after call {case.at} of {len(ops)}, pending ones lost: {lost}: {error}")
    num_cuts = len({case.at for case in cases})
    return {"cases": len(chosen), "of": len(cases), "next": num_next, "cuts": num_cuts, "wrong": wrong}


if __name__ == "__main__":  # parser processes import this file too
    shim = ctypes.CDLL(os.environ.pop("LD_PRELOAD"))
    shim.fault_hit.restype = ctypes.c_char_p
    sweep.shim = shim
    engines.open_engine = lambda *_: SayingEngine()
    engines.prepare_kernels = engines.refresh_rates = lambda *_: None  # nothing here needs torch
    engines.free_memory = lambda: None
    given_folder, scenario_name, journal, wanted = sys.argv[1:]
    connection.journal_mode_for = lambda _: journal
    sys.stdout.write(json.dumps(cut(Path(given_folder), scenario_name, int(wanted))))
