"""`model calibrate`: the confidence threshold of a model, learnt on the documented symbols of a repository.

Their docstrings are hidden in a copy of their files, which is indexed into a database of its own and drained as any
repository is.  An answer counts as right when it is like what the author says: its ROUGE-L is at least GOOD_ROUGE.
That is a proxy.  Of 100 answers of the embedded model, read next to their code, 70 were right and 47 reached it.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.engines import OpenEngine, engine_options, free_memory, open_prepared
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.commands.packs import find_pack
from rotary_batch.config import Settings
from rotary_batch.core import DATA_KINDS, Subject, Unit
from rotary_batch.errors import InputError, StoppedError
from rotary_batch.model.calibration import Calibration
from rotary_batch.model.rouge import rouge_l
from rotary_batch.model.threshold import MIN_PASSING, Point, choose_threshold, curve
from rotary_batch.pages.files import SyncResult
from rotary_batch.planner.documented import copy_undocumented
from rotary_batch.planner.index import index_repository
from rotary_batch.planner.processor import ItemProcessor
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.pool.hosted import Opener
from rotary_batch.pool.in_process import in_process_pool
from rotary_batch.repo.files import PathPatterns
from rotary_batch.repo.git import open_repository
from rotary_batch.run_stats import Progress
from rotary_batch.runner import Runner
from rotary_batch.sync import IndexViews
from rotary_batch.window import Window
from rotary_batch.work import counts
from rotary_batch.work.asked import Judged, asked_subjects, judged, keep_only
from rotary_batch.work.connection import open_database
from rotary_batch.work.index import stored_symbols
from rotary_batch.work.lock import device_lock
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.runs import start_run
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

GOOD_ROUGE = 0.4
ROWS = 10  # of the table
Report = Callable[[str, int, int], None]  # gets (what is done now, how many are done, how many there are)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateRequest:
    """What to calibrate on what."""

    settings: Settings  # with the model
    root: Path
    num_symbols: int
    target: float  # share of those shown that are right; the proxy
    window: Window
    open_engine: OpenEngine
    progress: Report


class Said(NamedTuple):
    """What the author says of a symbol."""

    name: str  # qualified
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What was learnt."""

    model: str
    pack: str
    repository: str
    asked: int
    judged: int  # answers that the rules on sentences let through
    target: float
    threshold: float | None  # None: no threshold reaches the target, and the old one stays
    before: float | None
    table: Sequence[Mapping[str, float]]
    file: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def calibrate(request: CalibrateRequest) -> Calibrated:
    """Learn the threshold of a model and store it next to its pack.

    Raises InputError when the repository has too few documented symbols, StoppedError when it is stopped.
    """
    report = request.progress
    pack = find_pack(request.settings, lambda done, total: report("packing the model", done, total))
    builder = load_prompt_builder(request.settings, pack)
    with tempfile.TemporaryDirectory(prefix="rotary-calibrate-") as name:
        answers, asked = ask_undocumented(request, unlimited(builder), pack, Path(name))
    means = [one.mean_logprob if one.is_shown else -math.inf for one, _ in answers]
    scores = [float(rouge_l(one.shown_text or one.text, said) >= GOOD_ROUGE) for one, (_, said) in answers]
    threshold = choose_threshold(means, scores, target=request.target)
    file = None
    if threshold is not None:
        file = Calibration(
            weights_digest=builder.manifest.weights_digest,
            min_mean_logprob=threshold,
            target=request.target,
            judged=len(answers),
            job=builder.job.name,
            numerics=builder.numerics,
        ).save(pack)
    return Calibrated(
        model=builder.manifest.name,
        pack=str(pack),
        repository=str(request.root),
        asked=asked,
        judged=sum(mean > -math.inf for mean in means),
        target=request.target,
        threshold=threshold,
        before=builder.manifest.min_mean_logprob,
        table=_table(curve(means, scores)),
        file=None if file is None else str(file),
    )


def unlimited(builder: PromptBuilder) -> PromptBuilder:
    """The same questions on chunks and symbols alone, with a threshold that all answers pass."""
    small = {unit: spec for unit, spec in builder.job.units.items() if unit in {"chunk", "symbol"}}
    return replace(
        builder,
        job=replace(
            builder.job, units=small, symbol=replace(builder.job.symbol, details=()) if builder.job.symbol else None
        ),
        manifest=replace(builder.manifest, min_mean_logprob=-math.inf),
    )


def ask_undocumented(
    request: CalibrateRequest, builder: PromptBuilder, pack: Path, folder: Path
) -> tuple[list[tuple[Judged, Said]], int]:
    """(answer, what the author says) of each symbol, and how many were asked for; works in an empty folder."""
    window, report = request.window, request.progress

    def check(phase: str) -> Callable[[int, int], None]:
        def progress(done: int, total: int) -> None:
            window.check()
            report(phase, done, total)

        return progress

    repository = open_repository(request.root, worktree=request.settings.worktree)
    copy = folder / "copy"
    copy.mkdir()
    said = copy_undocumented(repository, builder, pack, copy, request.num_symbols, check("hiding docstrings"))
    _require_enough(request.root, len(said))
    store = WorkStore(open_database(folder / "work.db", should_stop=window.is_closed))
    try:
        migrate(store.db)
        row = _row(copy, builder, pack)
        indexed = index_repository(
            store, open_repository(copy), builder, row, PathPatterns((), ()), check("reading files"), window.is_closed
        )
        sentences = _said_of(store, indexed.repository.id, said)
        _require_enough(request.root, len(sentences))
        keep_only(store, indexed.repository.id, list(sentences))
        _drain(request, store, builder, pack, indexed.repository)
        found = judged(store, indexed.repository.id)
    finally:
        store.db.close()
    return [(one, sentences[one.subject]) for one in found], len(sentences)


def _require_enough(root: Path, number: int) -> None:
    if number < MIN_PASSING:
        raise InputError(
            f"{root}: {number} documented symbols that can be asked about, and {MIN_PASSING} are needed at least; name "
            f"a repository with more"
        )


def _row(copy: Path, builder: PromptBuilder, pack: Path) -> RepositoryRow:
    return RepositoryRow(
        root=str(copy),
        name="copy",
        commit_id=None,
        worktree=False,
        docs_dir="rotary-docs",
        model_name=builder.manifest.name,
        pack_dir=str(pack),
        plan_key="",
        link_template=None,
        job=builder.job.name,
    )


def _said_of(store: WorkStore, repository_id: int, said: Mapping[tuple[str, str], str]) -> dict[Subject, Said]:
    """What the author says of the subject of each item: of a symbol, or of the one symbol that starts in a chunk."""
    starts: dict[str, dict[int, str]] = {}
    for symbol in stored_symbols(store, repository_id):
        if symbol.kind not in DATA_KINDS:
            starts.setdefault(symbol.path, {})[symbol.start_byte] = symbol.qualified_name
    found: dict[Subject, Said] = {}
    for subject in asked_subjects(store, repository_id):
        start, end = subject.span or (0, 0)
        names = starts.get(subject.path, {})
        if subject.unit is Unit.CHUNK:
            inside = [name for place, name in names.items() if start <= place < end]
        else:
            inside = [name for place, name in names.items() if place == start]
        if len(inside) == 1 and (sentence := said.get((subject.path, inside[0]))):
            found[subject] = Said(inside[0], sentence)
    return found


def _drain(request: CalibrateRequest, store: WorkStore, builder: PromptBuilder, pack: Path, row: RepositoryRow) -> None:
    """Answer everything that is left in the queue.  Raises StoppedError when the window closes first."""
    total, ids = counts.open_items(store, [row.id]), [row.id]

    def on_step(progress: Progress) -> None:
        request.progress("answering", progress.stats.done, total)

    def phase(text: str) -> None:
        request.progress(text, 0, 0)

    def opener() -> Opener:
        options = engine_options(request.settings, counts.workload(store, ids, builder.manifest.context_tokens))
        return partial(open_prepared, request.settings, pack, options, request.open_engine)

    pool = in_process_pool(opener, phase=phase, free=free_memory)
    runner = Runner(
        store=store,
        pool=pool,
        processor=ItemProcessor(store, builder, {row.id: IndexViews(store).of(row)}),
        window=request.window,
        run_id=start_run(
            store, command="model calibrate", model_name=builder.manifest.name, pid=os.getpid(), repository_ids=ids
        ),
        repository_ids=ids,
        sync_pages=lambda _: SyncResult(),
        on_step=on_step,
        num_open=lambda: counts.open_items(store, ids),
        max_attempts=builder.job.attempts,
    )
    try:
        with device_lock(request.settings.device):
            runner.drain()
    finally:
        pool.close()
    if request.window.is_closed():
        raise StoppedError("stopped before all answers were there; nothing is stored; run the same command again")


def _table(points: Sequence[Point]) -> list[dict[str, float]]:
    """About ten thresholds, strictest first, with what each lets through."""
    wanted = [point for point in points if point.num_passing >= MIN_PASSING] or list(points)
    step = max(1, math.ceil(len(wanted) / ROWS))
    chosen = wanted[step - 1 :: step]
    shown = chosen if not wanted or wanted[-1] in chosen else [*chosen, wanted[-1]]
    return [
        {"threshold": point.threshold, "answers": point.num_passing, "shown": point.share, "right": point.precision}
        for point in shown
    ]
