"""What the author says of a folder: in the file that stands for it, else in its README."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

# The docstrings of these are about the folder.
_PACKAGE_FILES = (
    *("__init__.py", "__init__.pyi", "doc.go", "mod.rs", "lib.rs", "main.rs", "package-info.java"),
    *(f"index.{ending}" for ending in ("ts", "tsx", "mts", "js", "jsx", "mjs", "cjs")),
)
_README_NAMES = ("README", "Readme", "readme", "ReadMe")
_README_ENDINGS = (".md", ".markdown", ".rst", ".adoc", ".txt", "", ".MD", ".TXT")
_GO_PACKAGE = re.compile(r"(?:Package|Command|Program)\s")  # https://go.dev/doc/comment#package


def words_of_folder(folder: str, files: Sequence[str], docstrings: Mapping[str, str]) -> str | None:
    """The docstring of a folder, whose `files` are sources; "" is the repository, which its README speaks for first."""
    readme = words_of_readme(folder, docstrings)
    package = _package_files(folder, _prefix(folder), files, docstrings)
    words = next((docstrings[path] for path in package if path in docstrings), None)
    return (words or readme) if folder else (readme or words)


def words_of_readme(folder: str, docstrings: Mapping[str, str]) -> str | None:
    """The first paragraphs of the README of a folder."""
    paths = (f"{_prefix(folder)}{name}{ending}" for ending in _README_ENDINGS for name in _README_NAMES)
    return next((docstrings[path] for path in paths if path in docstrings), None)


def _prefix(folder: str) -> str:
    return f"{folder}/" if folder else ""


def _package_files(folder: str, prefix: str, files: Sequence[str], docstrings: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{prefix}{name}" for name in _PACKAGE_FILES)
    if folder:
        yield f"{folder}.rs"  # of a Rust module with a folder of its own
    yield from (path for path in files if path.endswith(".go") and _GO_PACKAGE.match(docstrings.get(path, "")))
