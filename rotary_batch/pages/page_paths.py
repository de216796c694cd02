"""Where the page of each thing is: paths that are valid, and differ, on every file system.

A path depends on the names of the sources alone, so pages, links, the navigation and `check` agree on it.  Most
things get their own path with `.md`.  The others get a digest of their path into their name: names that differ only
in case or Unicode form, names that a page of ours has already, names that are too long or unfit.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from itertools import count

from rotary_batch.core import TOPICS_PAGE

NAV_NAME = ".mkdocs/mkdocs.yml"  # MkDocs refuses a configuration that is in its own docs_dir
LLMS_NAME = "llms.txt"
LLMS_FULL_NAME = "llms-full.txt"
INDEX_STEM = "symbol-index"  # of the pages of the symbol index
SOURCES_NAME = "source-code"  # the folder of sources in a built site
NEW_SUFFIX = ".rotary-new"  # of the new page beside one that a person edited
MAX_NAME_NBYTES = 240  # file systems allow 255; NEW_SUFFIX has to fit as well
MAX_PATH_NBYTES = 2000  # systems allow 4096, with the folders above the repository
_LONG_PATHS = "long-paths"  # the folder of what is nested too deep
TOPICS_NAME = TOPICS_PAGE[1:]
_RESERVED = {"index.md", "404.md", TOPICS_NAME, LLMS_NAME, LLMS_FULL_NAME, SOURCES_NAME}
_MARKED = re.compile(r"-(?:[0-9a-f]{8}|[0-9a-f]{32})(?:\.md)?(?:/|$)")  # as `_candidates` writes it
_UNFIT = {"", ".", "..", ".git", ".mkdocs"}


def folders_of(paths: Iterable[str]) -> list[str]:
    """Every folder above the paths but the root, sorted."""
    folders: set[str] = set()
    for path in paths:
        folder = parent_of(path)
        while folder and folder not in folders:
            folders.add(folder)
            folder = parent_of(folder)
    return sorted(folders)


def folders_above(path: str) -> Iterator[str]:
    """The folders above a path, the nearest first; not the root."""
    while path := path.rpartition("/")[0]:
        yield path


def parent_of(path: str) -> str:
    """The folder of a file or folder; "" is the root."""
    return path.rpartition("/")[0]


def page_paths(sources: Iterable[str]) -> dict[str, str]:
    """Source path -> page path, folder + "/" -> page path; the repository is "/", and also has TOPICS_PAGE."""
    paths = sorted(sources)
    allocator = _PathAllocator()
    folders = {"": ""}
    pages = {"/": "index.md", TOPICS_PAGE: TOPICS_NAME}
    for folder in folders_of(paths):  # a folder sorts before what it holds
        above, _, name = folder.rpartition("/")
        folders[folder] = allocator.allocate(folder + "/", folders[above], name, "")
        pages[f"{folder}/"] = allocator.allocate(folder, folders[folder], "index", ".md")
    for path in paths:
        above, _, name = path.rpartition("/")
        pages[path] = allocator.allocate(path, folders[above], name, ".md")
    return pages


def may_move_others(sources: Iterable[str], changed: Iterable[str]) -> bool:
    """Whether pages of other things may have another path since some files came or went."""
    changed = set(changed)
    wanted = Counter(_wanted({*sources, *changed}))
    return any(wanted[path] > 1 or _MARKED.search(path) for path in _wanted(changed))


def _wanted(paths: Collection[str]) -> Iterator[str]:
    """The paths that files, the folders above them and the pages of these would have if they were alone."""
    for path in paths:
        yield _folded(f"{path}.md")
    for folder in folders_of(paths):
        yield from (_folded(folder), _folded(f"{folder}/index.md"))


class _PathAllocator:
    """Gives each thing a path of its own."""

    def __init__(self) -> None:
        self._taken = set(_RESERVED)

    def allocate(self, thing: str, above: str, name: str, ending: str) -> str:
        """A path for a thing in the folder `above`: its own name, or the first candidate that is free."""
        for candidate in _candidates(thing, above, name, ending):
            if (folded := _folded(candidate)) not in self._taken:
                self._taken.add(folded)
                return candidate
        raise AssertionError("candidates have no end")


def _candidates(thing: str, above: str, name: str, ending: str) -> Iterator[str]:
    plain = _joined(above, name + ending)
    if _is_fit(name, ending) and len(_bytes(plain)) <= MAX_PATH_NBYTES:
        yield plain
    stem = "".join(letter if letter.isprintable() and letter != "/" else "_" for letter in name)
    stem = _bytes(stem)[: MAX_NAME_NBYTES - 40].decode("utf-8", "ignore")
    for number in count():
        digest = hashlib.sha256(_bytes(thing if not number else f"{thing}/{number}")).hexdigest()
        marked = f"{stem}-{digest[:8] if not number else digest[:32]}{ending}"
        path = _joined(above, marked)
        yield path if len(_bytes(path)) <= MAX_PATH_NBYTES else _joined(_LONG_PATHS, marked)


def _is_fit(name: str, ending: str) -> bool:
    folded = name.casefold()
    is_ours = folded in _UNFIT or folded.endswith(NEW_SUFFIX) or folded.startswith(INDEX_STEM)
    return not is_ours and name.isprintable() and len(_bytes(name + ending)) <= MAX_NAME_NBYTES


def _joined(above: str, name: str) -> str:
    return f"{above}/{name}" if above else name


def _folded(path: str) -> str:
    """What file systems that ignore case and Unicode forms make of a path."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
