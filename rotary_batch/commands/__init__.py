"""What each command does, apart from how it is typed and how its answer is printed.

Knows how the floors below fit together; knows nothing of Typer or rich.  Every function returns plain
data that the command line prints as a table or as JSON.
"""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType


def imported_when_used(name: str) -> ModuleType:
    """A module of this package that is read when something of it is first asked for."""
    if (found := sys.modules.get(f"{__name__}.{name}")) is not None:
        return found
    spec = find_spec(f"{__name__}.{name}")
    assert spec is not None, f"no module {name}"
    assert spec.loader is not None, f"no loader of {name}"
    spec.loader = LazyLoader(spec.loader)
    module = sys.modules[spec.name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
