"""What items cost: time of steps, bytes moved, waits for them, energy.  Tokens are counted in the queue already."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from rotary_batch.work.store import WorkStore


class Cost(NamedTuple):
    """Of a step, or an item's share of several."""

    step_s: float = 0.0
    moved_nbytes: float = 0.0  # of expert weights, to where they are computed with
    stall_s: float = 0.0  # in which the compute waited for them
    energy_j: float | None = None  # of the card; None = it does not count it

    def plus(self, other: Cost, share: float = 1.0) -> Cost:
        """Both together, or with a share of the other."""
        energy_j = self.energy_j if other.energy_j is None else (self.energy_j or 0.0) + share * other.energy_j
        return Cost(
            self.step_s + share * other.step_s,
            self.moved_nbytes + share * other.moved_nbytes,
            self.stall_s + share * other.stall_s,
            energy_j,
        )


class Accounts:
    """What the live items cost so far, since it was last stored.

    A step's cost is divided equally among the sequences that were live in it: each had the same transfer.  A killed run
    loses what was not stored, as a report counts it up to the last step.
    """

    def __init__(self) -> None:
        self._open: dict[int, Cost] = {}

    def add_step(self, cost: Cost, live: Collection[int]) -> None:
        """Divide the cost of one step among the items that were live in it."""
        for item_id in live:
            self._open[item_id] = self._open.get(item_id, Cost()).plus(cost, 1 / len(live))

    def take(self, item_ids: Collection[int]) -> dict[int, Cost]:
        """The costs of items that end or are given back; they are forgotten here."""
        return {item_id: self._open.pop(item_id) for item_id in item_ids if item_id in self._open}


def save_costs(store: WorkStore, costs: Mapping[int, Cost]) -> None:
    """Add the costs to those that earlier attempts and runs had."""
    if not costs:
        return
    with store.transaction():
        store.db.executemany(
            """update item set step_s = step_s + :step_s, moved_nbytes = moved_nbytes + :moved_nbytes,
                      stall_s = stall_s + :stall_s,
                      energy_j = case when :energy_j is null then energy_j else coalesce(energy_j, 0) + :energy_j end
               where id = :id""",
            [{"id": item_id, **cost._asdict()} for item_id, cost in costs.items()],
        )
