"""What a run had done at moments of it, for the plots of its report: few rows, however long it takes."""

from __future__ import annotations

from typing import NamedTuple

from rotary_batch.work.store import WorkStore

MAX_SAMPLES = 240  # of a run, about 100 bytes each
KEPT_RUNS = 100  # whose samples are kept
FIRST_EVERY_S = 2.0


class Sample(NamedTuple):
    """Totals since the run began, but for `num_open`."""

    at_s: float
    prompt_tokens: int = 0
    generated_tokens: int = 0
    step_s: float = 0.0
    bound_s: float = 0.0
    moved_nbytes: float = 0.0  # of experts, into device memory
    read_nbytes: float = 0.0  # of experts, from disk
    stall_s: float = 0.0  # in which the compute waited for experts
    ended: int = 0  # items that were answered, by the model or before, or failed for good
    num_open: int = 0
    sentences: int = 0  # that were held against the code
    sentences_shown: int = 0


_NAMES = ", ".join(Sample._fields)


class Sampler:
    """Stores samples at even intervals; when there are MAX_SAMPLES, every second goes, and the interval doubles."""

    def __init__(self, store: WorkStore, run_id: int) -> None:
        self._store, self._run_id = store, run_id
        self._every_s, self._num, self._due_s = FIRST_EVERY_S, 0, 0.0

    def is_due(self, at_s: float) -> bool:
        """Whether a sample at this moment would be stored."""
        return at_s >= self._due_s

    def add(self, sample: Sample) -> None:
        """Store a sample that is due."""
        with self._store.transaction():
            places = ", ".join("?" * len(sample))
            self._store.db.execute(
                f"insert or replace into run_sample (run_id, {_NAMES}) values (?, {places})", [self._run_id, *sample]
            )
            self._num += 1
            if self._num >= MAX_SAMPLES:
                self._thin_out()
        self._due_s = sample.at_s + self._every_s

    def _thin_out(self) -> None:
        self._store.db.execute(
            """delete from run_sample where run_id = :run and at_s in
                 (select at_s from (select at_s, row_number() over (order by at_s) as place from run_sample
                                    where run_id = :run) where place % 2 = 0)""",
            {"run": self._run_id},
        )
        self._num, self._every_s = (self._num + 1) // 2, 2 * self._every_s


def samples(store: WorkStore, run_id: int) -> list[Sample]:
    """The samples of a run, the first one first."""
    rows = store.db.execute(f"select {_NAMES} from run_sample where run_id = ? order by at_s", [run_id])
    return [Sample(*row) for row in rows]


def forget_old(store: WorkStore, run_id: int) -> None:
    """Within a transaction: delete the samples of runs that are long past when this one begins."""
    store.db.execute("delete from run_sample where run_id <= ?", [run_id - KEPT_RUNS])
