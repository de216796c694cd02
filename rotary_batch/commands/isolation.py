"""Several repositories in one command: what goes wrong with one leaves the others alone, and one rule gives the code.

What concerns the database or the machine concerns all of them, and still ends the command.
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

# The code of a command that ended in several ways is the first of these: what a person must see to before what another
# night does (75), and that before what can be asked again (5).
_MOST_TELLING = (70, 74, 69, 3, 2, 6, 75, 5, 0)
_OF_THE_MACHINE = {errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE}


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
def isolated(roots: Iterable[str], found: list[Any]) -> Iterator[None]:
    """Note what goes wrong in the block with these repositories, once, and go on after it."""
    try:
        yield
    except DeviceBusyError as error:
        _note(roots, found, str(error), error.exit_code)
    except (DatabaseError, BusyError):
        raise
    except RotaryError as error:
        _note(roots, found, str(error), error.exit_code)
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise
        refused = storage_error(error)
        _note(roots, found, str(refused), refused.exit_code)


def _note(roots: Iterable[str], found: list[Any], error: str, exit_code: int) -> None:
    for root in roots:
        failure = Failure(repository=root, error=error, exit_code=exit_code)
        if failure not in found:
            found.append(failure)
            event("repository failed", **failure.as_dict())


def failures(found: Sequence[object]) -> list[Failure]:
    """Those among the outcomes of a command."""
    return [one for one in found if isinstance(one, Failure)]


def exit_code(codes: Iterable[int]) -> int:
    """The one that tells most; 0 when there is none."""
    return min(codes, key=_MOST_TELLING.index, default=0)
