"""The scripts and programs of a package.json."""

from __future__ import annotations

from collections.abc import Iterator

from rotary_batch.core import Fact, FactKind
from rotary_batch.repo.project.tables import inner, json_object, texts

_SHORT = {"test", "start"}  # scripts that npm runs without `run`


def package_json(text: str) -> Iterator[Fact]:
    """Its scripts, and the programs that it installs."""
    package = json_object(text)
    for name, script in texts(inner(package, "scripts")).items():
        yield Fact(FactKind.COMMAND, f"npm {name}" if name in _SHORT else f"npm run {name}", script)
    programs, own = package.get("bin"), package.get("name")
    if isinstance(programs, str) and isinstance(own, str):
        yield Fact(FactKind.ENTRY, own.rpartition("/")[2], programs)
    for name, path in texts(inner(package, "bin")).items():
        yield Fact(FactKind.ENTRY, name, path)
