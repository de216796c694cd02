"""What a run had done at moments of it, from its figures and from the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rotary_batch.work.samples import Sample, samples
from rotary_batch.work.store import WorkStore

if TYPE_CHECKING:  # help loads no pages
    from rotary_batch.commands.run_report import RunReport


def sample_of(stats: Mapping[str, Any], num_open: int) -> Sample:
    """A sample from the figures of a run."""
    engine = stats.get("engine", {})
    return Sample(
        at_s=stats["drain_s"],
        prompt_tokens=stats["prefill_tokens"],
        generated_tokens=stats["decode_tokens"],
        step_s=stats["step_s"],
        bound_s=stats["bound_s"],
        moved_nbytes=engine.get("bytes_moved", 0.0),
        read_nbytes=engine.get("bytes_read", 0.0),
        stall_s=engine.get("stall_s", 0.0),
        ended=stats["done"] + stats["reused"] + stats.get("parked_by_run", stats.get("parked", 0)),
        num_open=num_open,
        sentences=stats["sentences"],
        sentences_shown=stats["sentences_shown"],
    )


def samples_of(store: WorkStore, report: RunReport) -> list[Sample]:
    """The samples of a run, and its end."""
    stored = samples(store, report.run)
    if not stored or report.stats.get("drain_s", 0.0) <= stored[-1].at_s:
        return stored
    return [*stored, sample_of(report.stats, report.open)]
