"""Finds the item that kills an engine, at no cost for those that were live with it.

When an engine dies, all that it had live is suspected.  The suspects are asked again in two halves, each on trial:
apart from everything else, until every one of them has a new token.  Then none of that half is to blame, because what
kills an engine kills it at the same token again.  If the engine dies, the half is halved.  An item that was alone when
it died has failed one attempt; the next one is on trial too, as soon as an engine is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from rotary_batch.core import ErrorClass, StepReport
from rotary_batch.work.rows import Claim


class Quarantine:
    """The suspects of one run, in groups, and the group that is on trial."""

    def __init__(self) -> None:
        self._groups: deque[list[Claim]] = deque()
        self._on_trial: set[int] = set()  # items that are live
        self._unproven: set[int] = set()  # of them, those without a new token

    @staticmethod
    def is_suspect(claim: Claim) -> bool:
        """Whether an engine died at the last attempt at an item, when it was alone."""
        return claim.item.error_class is ErrorClass.BAD_ITEM

    @property
    def claims(self) -> list[Claim]:
        """Those that wait for their trial."""
        return [claim for group in self._groups for claim in group]

    def add(self, group: Sequence[Claim]) -> None:
        """Let some items wait for a trial together."""
        if group:
            self._groups.append(list(group))

    def add_halves(self, claims: Sequence[Claim]) -> None:
        """An engine died with these live."""
        middle = (len(claims) + 1) // 2
        self.add(claims[:middle])
        self.add(claims[middle:])

    def next_group(self) -> list[Claim]:
        """The group whose trial comes next; empty when there is none, or one goes on."""
        return self._groups[0] if self._groups and not self._on_trial else []

    def begin(self, item_ids: Collection[int], others: Sequence[Claim]) -> None:
        """These of the next group are live now; the others get a trial of their own."""
        self._groups.popleft()
        self._on_trial, self._unproven = set(item_ids), set(item_ids)
        self.add(others)

    def note(self, report: StepReport) -> set[int]:
        """Take in what a step gave; the live items that are cleared, once the trial is over."""
        over = {one.request_id for one in report.completions} | {one.request_id for one in report.failures}
        over |= {item_id for loss in report.losses for item_id in loss.request_ids}
        self._on_trial -= over
        self._unproven -= over | {new.request_id for new in report.new_tokens}
        cleared = set() if self._unproven else self._on_trial
        if cleared:
            self._on_trial = set()
        return cleared

    def clear(self) -> None:
        """Forget all suspects."""
        self._groups.clear()
        self._on_trial, self._unproven = set(), set()
