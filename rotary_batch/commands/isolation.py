"""Several repositories in one command: an error of one leaves the others alone, and one rule gives the exit code.

An error of the database or of the machine affects all of them, and still ends the command.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rotary_batch.errors import (
    BusyError,
    DatabaseError,
    DeviceBusyError,
    RotaryError,
    storage_error,
)
from rotary_batch.log import event

# A command that ended in several ways exits with the first of these: first what a person must fix, then what another
# run does (75), then what can be retried (5).
_BY_URGENCY = (70, 74, 69, 3, 2, 6, 75, 5, 0)
_MACHINE_ERRNOS = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a command did nothing, or not all, for one repository."""

    repository: str
    error: str
    exit_code: int

    def __str__(self) -> str:
        return self.error if self.repository in self.error else f"{self.repository}: {self.error}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for --json and the report."""
        return {"repository": self.repository, "error": self.error, "exit_code": self.exit_code}


@contextmanager
def isolated(roots: Iterable[str], outcomes: list[Any]) -> Iterator[None]:
    """Turn an error in the block into one Failure for each of these repositories, appended to `outcomes`."""
    try:
        yield
    except DeviceBusyError as error:
        _add_failures(roots, outcomes, error)
    except (DatabaseError, BusyError):
        raise
    except RotaryError as error:
        _add_failures(roots, outcomes, error)
    except OSError as error:
        if error.errno in _MACHINE_ERRNOS:
            raise
        _add_failures(roots, outcomes, storage_error(error))


def _add_failures(roots: Iterable[str], outcomes: list[Any], error: RotaryError) -> None:
    for root in roots:
        failure = Failure(repository=root, error=str(error), exit_code=error.exit_code)
        if failure not in outcomes:
            outcomes.append(failure)
            event("repository failed", **failure.as_dict())


def failures(outcomes: Sequence[object]) -> list[Failure]:
    """The failures among the outcomes of a command."""
    return [outcome for outcome in outcomes if isinstance(outcome, Failure)]


def exit_code(codes: Iterable[int]) -> int:
    """The most urgent code; 0 when there is none."""
    return min(codes, key=_BY_URGENCY.index, default=0)
