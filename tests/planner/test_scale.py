"""What an index takes grows with the number of files, and no faster."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.scale import AGAIN_S, FIRST_S, PEAK_NBYTES, measure
from benchmarks.scale_tree import write_repository
from rotary_batch.commands.database import writing
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.commands.packs import find_pack
from rotary_batch.config import Settings
from rotary_batch.planner import index as planner_index
from rotary_batch.repo.files import EVERYTHING
from rotary_batch.repo.git import open_repository
from rotary_batch.work.rows import RepositoryRow


def work_of_an_index(root: Path, tiny_pack: Path, times: int) -> list[tuple[int, int]]:
    """(steps of SQLite's machine in thousands, calls of Python functions) of each index in turn."""
    settings = Settings(model=tiny_pack, db=root.parent / f"{root.name}.db")
    ask = load_prompt_builder(settings, find_pack(settings))
    row = RepositoryRow(
        root=str(root),
        name="x",
        commit_id=None,
        worktree=False,
        docs_dir="rotary-docs",
        model_name="m",
        pack_dir=str(tiny_pack),
        plan_key="",
        link_template=None,
        job=ask.job.name,
    )
    found = []
    with writing(settings) as store:
        for _ in range(times):
            steps, calls = 0, 0

            def count_step() -> int:
                nonlocal steps
                steps += 1
                return 0

            def count_call(frame, event, argument) -> None:
                nonlocal calls
                calls += event == "call"

            store.db.set_progress_handler(count_step, 1000)
            sys.setprofile(count_call)
            planner_index.index_repository(store, open_repository(root), ask, row, EVERYTHING, lambda *_: None)
            sys.setprofile(None)
            store.db.set_progress_handler(None, 0)
            found.append((steps, calls))
    return found


def test_four_times_the_files_are_four_times_the_work(tmp_path, tiny_pack, monkeypatch):
    from rotary_batch.model.tokens import Tokenizer
    from rotary_batch.repo.parse import parse_file

    def parse_files(files, *, tokenizer_dir, budget_tokens, num_workers, begun):
        tokenizer = Tokenizer.load(tokenizer_dir)
        for file, source in files:
            yield parse_file(file, source, budget_tokens, tokenizer)

    monkeypatch.setattr(planner_index, "parse_files", parse_files)
    for name, num_files in (("small", 250), ("large", 1000)):
        write_repository(tmp_path / name, num_files)
    small, small_again = work_of_an_index(tmp_path / "small", tiny_pack, 2)
    large, large_again = work_of_an_index(tmp_path / "large", tiny_pack, 2)
    for few, many in ((small, large), (small_again, large_again)):
        assert many[0] <= 5 * few[0] + 20  # quadratic would be 16
        assert many[1] <= 5 * few[1]
    assert large_again[1] < large[1] / 5


@pytest.mark.faults
def test_a_hundred_thousand_files_are_indexed_within_the_bounds(tmp_path):
    first, again, _ = measure(100_000)
    assert first["pages"] > 100_000
    assert (again["pages"], again["items"]) == (0, first["items"])
    assert first["wall_s"] < FIRST_S
    assert again["wall_s"] < AGAIN_S
    assert max(first["peak_nbytes"], again["peak_nbytes"]) < PEAK_NBYTES
