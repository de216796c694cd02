"""What Python projects say in pyproject.toml, setup.cfg, setup.py, tox.ini, noxfile.py, and at the end of scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rotary_batch.core import Fact, FactKind
from rotary_batch.repo.project.tables import ini, inner, lines, texts, toml, words

INSTALL = "python -m pip install ."
_GUARD = re.compile(r"^if __name__ == ['\"]__main__['\"]|^if ['\"]__main__['\"] == __name__", re.MULTILINE)
_CONSOLE_SCRIPT = re.compile(r"['\"]\s*([\w.-]+)\s*=\s*([\w.]+:[\w.]+)\s*['\"]")
# At most 5 more decorators: as many as there are would be read again for each of them.
_SESSION = re.compile(r"^@(?:nox\.)?session\b.*\n(?:@.*\n){0,5}(?:async )?def (\w+)\(", re.MULTILINE)


def pyproject(text: str) -> Iterator[Fact]:
    """How it is built, the tasks of its tools, and the programs that it installs."""
    tables = toml(text)
    tools = inner(tables, "tool")
    if backend := inner(tables, "build-system").get("build-backend"):
        yield Fact(FactKind.COMMAND, INSTALL, words=f"It builds with `{words(backend)}`.")
    if "pytest" in tools:
        yield Fact(FactKind.COMMAND, "python -m pytest")
    yield from _tasks(tools)
    for table in (("project", "scripts"), ("project", "gui-scripts"), ("tool", "poetry", "scripts")):
        for name, target in texts(inner(tables, *table)).items():
            yield Fact(FactKind.ENTRY, name, target)


def _tasks(tools: Mapping[str, Any]) -> Iterator[Fact]:
    """What task runners are told to run."""
    for name, environment in inner(tools, "hatch", "envs").items():
        scripts = environment.get("scripts") if isinstance(environment, dict) else None
        for script, command in scripts.items() if isinstance(scripts, dict) else ():
            place = script if name == "default" else f"{name}:{script}"
            yield Fact(FactKind.COMMAND, f"hatch run {place}", words(command))
    for runner, table in (("poe", inner(tools, "poe", "tasks")), ("pdm run", inner(tools, "pdm", "scripts"))):
        for name, command in table.items():
            told = command.get("cmd") or command.get("shell") if isinstance(command, dict) else command
            yield Fact(FactKind.COMMAND, f"{runner} {name}", words(told))
    if tox := inner(tools, "tox"):
        yield Fact(FactKind.COMMAND, "tox")
        yield from _tox(ini(words(tox.get("legacy_tox_ini"))))


def setup_cfg(text: str) -> Iterator[Fact]:
    """How it is built, and the programs that it installs."""
    sections = ini(text)
    if "metadata" in sections or "options" in sections:
        yield Fact(FactKind.COMMAND, INSTALL, words="It builds with `setuptools`.")
    if "tool:pytest" in sections:
        yield Fact(FactKind.COMMAND, "python -m pytest")
    entries = sections.get("options.entry_points", {})
    for line in (entries.get("console_scripts", "") + "\n" + entries.get("gui_scripts", "")).splitlines():
        name, mark, target = line.partition("=")
        if mark and name.strip():
            yield Fact(FactKind.ENTRY, name.strip(), target.strip())


def setup_py(text: str) -> Iterator[Fact]:
    """That it is built by setuptools, and the programs that it installs, as far as they are plain text."""
    if "setup(" in text:
        yield Fact(FactKind.COMMAND, INSTALL, words="It builds with `setuptools`.")
    if "console_scripts" in text:
        for name, target in _CONSOLE_SCRIPT.findall(text):
            yield Fact(FactKind.ENTRY, name, target)


def tox_ini(text: str) -> Iterator[Fact]:
    """Its environments."""
    sections = ini(text)
    if "testenv" in sections or "tox" in sections:
        yield Fact(FactKind.COMMAND, "tox", lines(sections.get("testenv", {}).get("commands", "")))
    yield from _tox(sections)


def _tox(sections: Mapping[str, Mapping[str, str]]) -> Iterator[Fact]:
    for name, values in sections.items():
        if name.startswith("testenv:"):
            yield Fact(FactKind.COMMAND, f"tox -e {name.partition(':')[2]}", lines(values.get("commands", "")))


def noxfile(text: str) -> Iterator[Fact]:
    """Its sessions."""
    for name in _SESSION.findall(text):
        yield Fact(FactKind.COMMAND, f"nox -s {name}")


def run_as_script(text: str) -> Iterator[Fact]:
    """Whether a module does something when it is run."""
    if _GUARD.search(text):
        yield Fact(FactKind.SCRIPT, "")
