"""Which folders hold other people's code: by their names, or by a licence of their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from rotary_batch.repo.folder import Entry
from rotary_batch.repo.git import Repository
from rotary_batch.repo.ignore import IgnorePatterns

MAX_LICENCES = 500  # files that are compared
MAX_LICENCE_NBYTES = 100_000
_NAMED = re.compile(
    r"(?:^|/)(?:node_modules|bower_components|jspm_packages|_?vendor|_?vendored|third[_-]?party|3rd[_-]?party|externals?|extern"
    r"|\.venv|venv|site-packages|Godeps|Pods|Carthage)(?=/)"
)
# Folders whose subfolders are other people's when these have a licence of their own.  A package of a monorepo, or a
# module with an algorithm from elsewhere, may have one too.
_ONLY_DEPENDENCIES = frozenset({"deps", "dependencies", "subprojects"})
_HOLDERS = _ONLY_DEPENDENCIES | {"bundled", "contrib", "dep", "ext", "foreign", "imported", "lib", "libs", "submodules"}
_LICENCE_FILE = re.compile(r"(?:(?:un)?licen[cs]e|copying|copyright)(?:[.-][\w.-]*)?", re.IGNORECASE)


class VendoredTrees:
    """The folders of other people's code in one repository."""

    def __init__(self, repository: Repository, entries: Sequence[Entry], include: Sequence[str]) -> None:
        self._repository = repository
        self._entries = entries
        self._include = include
        self._asked_for: dict[str, IgnorePatterns | None] = {}

    def reason(self, path: str) -> str | None:
        """Why a file is other people's code, and what brings it back; None when it is not, or `include` names it."""
        tree, why = self._tree_of(path)
        if not tree or self._is_asked_for(path, tree):
            return None
        remedy = f"`{tree}/** -linguist-vendored` in .gitattributes or `{tree}/` in the setting `include` reads it"
        return f"in `{tree}/`, {why}; {remedy}"

    def _tree_of(self, path: str) -> tuple[str, str]:
        if match := _NAMED.search(path):
            return path[: match.end()], "a folder of other people's code"
        for folder in _folders_above(path) if self._with_licences else ():
            if licence := self._with_licences.get(folder):
                return folder, licence
        return "", ""

    def _is_asked_for(self, path: str, tree: str) -> bool:
        """Whether a pattern of `include` that names the folder matches the file."""
        if tree not in self._asked_for:
            named = [pattern for pattern in self._include if tree.rpartition("/")[2] in pattern.split("/")]
            self._asked_for[tree] = IgnorePatterns(named, "the setting include") if named else None
        patterns = self._asked_for[tree]
        return patterns is not None and patterns.matches(path)

    @cached_property
    def _with_licences(self) -> Mapping[str, str]:
        """Folder -> what says that its code is other people's."""
        licences = [entry for entry in self._entries if _is_licence(entry)]
        own = [entry for entry in licences if _holder_of(entry.path)][:MAX_LICENCES]
        if not own:
            return {}
        top = [entry for entry in licences if "/" not in entry.path]
        texts = {entry.path: _words(data) for entry, data in self._repository.read([*top, *own])}
        known = {texts.get(entry.path) for entry in top}
        folders = {
            folder: f"which has a licence of its own, `{name}`"
            for entry in own
            if texts.get(entry.path) not in known
            for folder, _, name in [entry.path.rpartition("/")]
        }
        holders = Counter(folder.rpartition("/")[0] for folder in folders)
        whole = [holder for holder, n in holders.items() if n > 1 and holder.rpartition("/")[2] in _ONLY_DEPENDENCIES]
        return folders | dict.fromkeys(whole, "whose folders have licences of their own")


def _is_licence(entry: Entry) -> bool:
    name = entry.path.rpartition("/")[2]
    return entry.mode.startswith("100") and bool(_LICENCE_FILE.fullmatch(name)) and entry.nbytes <= MAX_LICENCE_NBYTES


def _holder_of(path: str) -> bool:
    """Whether the folder of a file is in one that holds other people's code."""
    folders = path.split("/")[:-1]
    return len(folders) > 1 and folders[-2] in _HOLDERS


def _folders_above(path: str) -> Iterator[str]:
    """The folders around a file, the outermost first."""
    end = path.find("/")
    while end > 0:
        yield path[:end]
        end = path.find("/", end + 1)


def _words(licence: bytes) -> str:
    """A licence without layout and years."""
    return " ".join(re.findall(r"[a-z]{2,}", licence.decode("utf-8", "replace").lower()))
