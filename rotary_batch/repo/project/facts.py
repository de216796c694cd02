"""Which files say how a project is built, tested and entered, and who reads each."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from itertools import islice

from rotary_batch.core import Fact
from rotary_batch.repo.project import ci, javascript, makefiles, native, python

MAX_NBYTES = 500_000  # of a file that is read for this
MAX_FACTS = 40  # of one file
MAX_CHARACTERS = 300  # of each text in a fact
Reader = Callable[[str], Iterator[Fact]]

_READERS: dict[str, Reader] = {
    "Makefile": makefiles.makefile,
    "makefile": makefiles.makefile,
    "GNUmakefile": makefiles.makefile,
    "justfile": makefiles.justfile,
    "package.json": javascript.package_json,
    "pyproject.toml": python.pyproject,
    "setup.cfg": python.setup_cfg,
    "setup.py": python.setup_py,
    "tox.ini": python.tox_ini,
    "noxfile.py": python.noxfile,
    "Cargo.toml": native.cargo,
    "go.mod": native.go_module,
    "CMakeLists.txt": native.cmake,
    "pom.xml": native.maven,
    "build.gradle": native.gradle,
    "build.gradle.kts": native.gradle,
    ".gitlab-ci.yml": ci.gitlab,
}
_WORKFLOWS = ".github/workflows/*.y*ml"  # at the top of the repository


def says_facts(path: str) -> bool:
    """Whether a file that is not parsed may say something of this, by its name."""
    return _named_reader(path) is not None


def facts_of(path: str, text: str) -> list[Fact]:
    """What a file says, in its order; nothing of one that is malformed or far too long."""
    reader = _named_reader(path)
    if len(text) > MAX_NBYTES:
        return []
    found = reader(text) if reader else iter(())
    own = python.run_as_script(text) if path.endswith(".py") else iter(())
    return list(dict.fromkeys(islice((_cut(fact) for one in (found, own) for fact in one), MAX_FACTS)))


def _named_reader(path: str) -> Reader | None:
    if fnmatch.fnmatchcase(path, _WORKFLOWS):
        return ci.workflow
    return _READERS.get(path.rpartition("/")[2])


def _cut(fact: Fact) -> Fact:
    kind, *texts = fact
    return Fact(kind, *(text[:MAX_CHARACTERS] for text in texts))
