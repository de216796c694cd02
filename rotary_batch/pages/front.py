"""The front matter of a page: provenance that both YAML readers and `check` understand, and a digest.

Each value is JSON, which is YAML too.  A page whose digest does not match its bytes was edited by a person.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rotary_batch.pages.sanitise import quoted

GENERATOR = "rotary-batch"
MAX_FRONT_NBYTES = 100_000  # names of two sources, of at most 4,096 bytes each, and escapes
HTML_COMMENT, YAML_COMMENT = "<!-- {} -->", "# {}"
_BLOCK = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_DIGEST = re.compile(r'^digest: "([0-9a-f]{64})"$', re.MULTILINE)
_COVERAGE = re.compile(r'^coverage: "(\d{1,9}) of \d{1,9} texts"$', re.MULTILINE)


class FrontMatter(NamedTuple):
    """What a page says of itself."""

    is_ours: bool
    is_edited: bool
    is_human: bool  # a person took it over: `owner: human`
    sources: dict[str, str]  # path -> blob
    num_texts: int  # of a model, that it shows
    digest: str  # of its other bytes, as it says


def seal(fields: Mapping[str, Any], sources: Sequence[Mapping[str, str]], body: str) -> bytes:
    """A whole page with its digest."""
    lines = [f"{name}: {quoted(value)}" for name, value in fields.items()]
    lines += ["sources:", *(f"  - {quoted(dict(source))}" for source in sources)] if sources else []
    unsigned = "\n".join(["---", f'generated_by: "{GENERATOR}"', *lines, 'digest: ""', "---", "", body])
    return unsigned.replace('digest: ""', f'digest: "{_digest(unsigned)}"', 1).encode()


def sign(lines: Sequence[str], comment: str) -> bytes:
    """A generated file that has no front matter; its last line, a comment, has the digest of those above."""
    body = ("\n".join(lines) + "\n").encode()
    return body + _signature(body, comment)


def is_signed(data: bytes) -> bool:
    """Whether a file is as `sign` made it."""
    body_nbytes = data.rfind(b"\n", 0, -1) + 1
    body, last_line = data[:body_nbytes], data[body_nbytes:]
    return last_line in {_signature(body, comment) for comment in (HTML_COMMENT, YAML_COMMENT)}


def _signature(body: bytes, comment: str) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    return f"{comment.format(f'Written by {GENERATOR}; SHA-256 of the lines above: {digest}')}\n".encode()


def read(page: bytes) -> FrontMatter:
    """Read the front matter of a page; with anything unexpected in it, the page counts as a person's."""
    text = page.decode("utf-8", "replace")
    block = _BLOCK.match(text)
    head = block[1] if block else ""
    is_ours = f'generated_by: "{GENERATOR}"' in head
    digest = _DIGEST.search(head)
    unsigned = text.replace(digest[0], 'digest: ""', 1) if digest else ""
    is_edited = not digest or digest[0] != f'digest: "{_digest(unsigned)}"'
    is_human = re.search(r"^owner: \"?human\"?\s*$", head, re.MULTILINE) is not None
    coverage = _COVERAGE.search(head)
    num_texts = int(coverage[1]) if coverage else 0
    return FrontMatter(is_ours, is_edited, is_human, _sources(head), num_texts, digest[1] if digest else "")


def digest_of(page: bytes) -> str:
    """The digest in the front matter of a page of ours."""
    digest = _DIGEST.search(page[:MAX_FRONT_NBYTES].decode("utf-8", "replace"))
    return digest[1] if digest else ""


def body_of(page: bytes) -> bytes:
    """A page without front matter of ours; themes take `status` for one of theirs."""
    if not read(page).is_ours:
        return page
    return _BLOCK.sub("", page.decode("utf-8", "replace"), count=1).encode()


def _sources(head: str) -> dict[str, str]:
    sources = {}
    for line in re.findall(r"^  - (\{.*\})$", head, re.MULTILINE):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # a person's, or worse
            continue
        if isinstance(row.get("path"), str) and isinstance(row.get("blob"), str):
            sources[row["path"]] = row["blob"]
    return sources


def mark_human(page: bytes) -> bytes:
    """The page, marked as a person's: `check` accepts it and it is never overwritten."""
    text = page.decode("utf-8", "replace")
    if read(page).is_human:
        return page
    if _BLOCK.match(text):
        return text.replace("---\n", "---\nowner: human\n", 1).encode()
    return f"---\nowner: human\n---\n{text}".encode()


def _digest(unsigned: str) -> str:
    return hashlib.sha256(unsigned.encode()).hexdigest()
