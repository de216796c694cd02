"""What the author says of a folder: in the file that stands for it, else in its README."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from rotary_batch.readme import SPELLINGS

# The docstrings of these are about the folder.
_PACKAGE_FILES = (
    *("__init__.py", "__init__.pyi", "doc.go", "mod.rs", "lib.rs", "main.rs", "package-info.java"),
    *(f"index.{ending}" for ending in ("ts", "tsx", "mts", "js", "jsx", "mjs", "cjs")),
)
_GO_PACKAGE = re.compile(r"(?:Package|Command|Program)\s")  # https://go.dev/doc/comment#package


def speakers_of_folder(folder: str, files: Sequence[str], docstrings: Mapping[str, str]) -> list[str]:
    """The files whose words are about a folder, the best first; for the repository, "", its README comes first.

    `files` are the sources that are directly in the folder.
    """
    readmes = [path for name in SPELLINGS if (path := f"{_prefix(folder)}{name}") in docstrings]
    package = [path for path in _package_files(folder, _prefix(folder), files, docstrings) if path in docstrings]
    return package + readmes if folder else readmes + package


def _prefix(folder: str) -> str:
    return f"{folder}/" if folder else ""


def _package_files(folder: str, prefix: str, files: Sequence[str], docstrings: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{prefix}{name}" for name in _PACKAGE_FILES)
    if folder:
        yield f"{folder}.rs"  # of a Rust module with a folder of its own
    yield from (path for path in files if path.endswith(".go") and _GO_PACKAGE.match(docstrings.get(path, "")))
