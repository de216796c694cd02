"""The block in AGENTS.md that tells a coding agent of the docs.  Nothing outside its two markers changes."""

from __future__ import annotations

import os
from pathlib import Path

from rotary_batch.errors import InputError
from rotary_batch.pages.descriptors import BlockedError, opened, read_at, replace_at
from rotary_batch.pages.page_paths import LLMS_NAME
from rotary_batch.pages.sanitise import code

FILE_NAME = "AGENTS.md"
BEGIN, END = "<!-- rotary-batch:begin -->", "<!-- rotary-batch:end -->"
MAX_LINES = 30


def block(docs_dir: str) -> str:
    """The block with its markers.  The docs folder is left out when it is not in the repository."""
    folder = docs_dir.rstrip("/")
    pages = [
        f"- The pages are in {code(f'{folder}/')}. They are generated; do not edit them.",
        f"- Begin with {code(f'{folder}/index.md')}; {code(f'{folder}/{LLMS_NAME}')} lists all pages.",
        f"- The page about `src/a.py` is {code(f'{folder}/src/a.py.md')}.",
    ]
    lines = [
        BEGIN,
        "## Documentation of this code",
        "",
        "rotary-batch describes every source file: signatures, authors' words, callers, callees.",
        "",
        *([] if docs_dir.startswith("/") else pages),
        "- `rotary-batch search TEXT --json` finds symbols, files and documentation, by name or by words.",
        "- `rotary-batch inspect graph` prints what calls what, one JSON object a line.",
        "- `rotary-batch explain PATH` says why a file has no page.",
        "- `rotary-batch mcp` is a read-only MCP server with the tools search, symbol, callers, callees and page.",
        "- After a change, commit and run `rotary-batch index`; `rotary-batch check` names pages that are out of date.",
        END,
    ]
    return "\n".join(lines) + "\n"


def with_block(data: bytes, text: str, path: Path) -> bytes:
    """A file with the block in the place of its old one, else at the end; an empty text takes it out.

    Raises InputError when the markers are not one pair.
    """
    if b"\0" in data:
        raise InputError(f"{path}: not UTF-8 text; write the block into it yourself, or move it away")
    lines = data.splitlines(keepends=True)
    line_end = b"\r\n" if b"\r\n" in data else b"\n"
    new = text.encode().replace(b"\n", line_end)
    markers = _markers(lines, path)
    if markers is None:
        is_open = bool(new) and bool(lines) and not _is_ended(lines[-1])
        return data + (line_end if is_open else b"") + new
    first, last = markers
    if not _is_ended(lines[last]):
        new = new.rstrip(b"\r\n")
    return b"".join([*lines[:first], new, *lines[last + 1 :]])


def _is_ended(line: bytes) -> bool:
    return line.endswith((b"\n", b"\r"))


def _markers(lines: list[bytes], path: Path) -> tuple[int, int] | None:
    """The places of the two lines with markers, if there are any."""
    pair = [BEGIN.encode(), END.encode()]
    places = [(number, line.strip()) for number, line in enumerate(lines) if line.strip() in pair]
    if not places:
        return None
    if [marker for _, marker in places] != pair:
        numbers = ", ".join(f"{number + 1}: {marker.decode()}" for number, marker in places[:6])
        raise InputError(
            f"{path}: the markers of rotary-batch are not one pair (line {numbers}); repair or delete them"
        )
    return places[0][0], places[1][0]


def update(root: Path, text: str) -> bool:
    """Bring the block in a repository's AGENTS.md up to date; an empty text removes it.  Returns whether it changed.

    A file that holds nothing else is deleted with the block.  Raises InputError for a link or a folder of that name.
    """
    path = root / FILE_NAME
    try:
        with opened(root) as folder:
            old = read_at(folder, FILE_NAME, str(path))
            data = old.data if old else b""
            new = with_block(data, text, path)
            if new == data:
                return False
            if new:
                replace_at(folder, FILE_NAME, new)
            else:
                os.unlink(FILE_NAME, dir_fd=folder)
    except BlockedError as error:
        raise InputError(f"{error}; write the block into the file yourself") from error
    return True
