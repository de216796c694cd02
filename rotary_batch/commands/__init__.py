"""What each command does, apart from how it is typed and how its answer is printed.

Functions return plain data, which the command line prints as a table or as JSON.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rotary_batch.commands import (
        bench,
        docs,
        drain,
        engines,
        generate,
        index,
        inputs,
        models,
        plan,
        reports,
        status,
    )

    __all__ = [
        "bench",
        "docs",
        "drain",
        "engines",
        "generate",
        "index",
        "inputs",
        "models",
        "plan",
        "reports",
        "status",
    ]
else:

    def __getattr__(name: str) -> ModuleType:
        """Each command loads what it needs when it runs, so that `status` answers at once."""
        try:
            return import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
