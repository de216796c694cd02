"""The path of a repository as it is stored: without links, and a name that the database can hold."""

from __future__ import annotations

import os
from pathlib import Path

from rotary_batch.errors import RepositoryError


def resolved(path: Path) -> Path:
    """That folder without symbolic links.  Raises RepositoryError for a link to itself and a name that is not UTF-8."""
    try:
        found = path.resolve()
        str(found).encode()
    except RuntimeError as error:  # how Python 3.11 and 3.12 report it
        raise RepositoryError(f"{printable(path)}: a symbolic link that leads to itself; name the folder") from error
    except UnicodeEncodeError as error:
        raise RepositoryError(f"{printable(found)}: its path is not valid UTF-8; rename the folder") from error
    return found


def printable(path: Path) -> str:
    """A path for messages, reports and the database's text, whatever bytes are in it."""
    return os.fsencode(path).decode(errors="backslashreplace")
