"""Vue and Svelte: the script part of a component, read as JavaScript or TypeScript."""

from __future__ import annotations

import re
from dataclasses import replace

from rotary_batch.repo.languages.typescript import TYPESCRIPT

_START = re.compile(rb"<!--|<script(?=[\s>/])", re.IGNORECASE)
_ATTRIBUTES = re.compile(rb"""(?>[^>"']|"[^"]*"|'[^']*')*>""")
_ATTRIBUTE = re.compile(rb"""\b(lang|type)\s*=\s*["']?([\w./+-]*)""", re.IGNORECASE)
_END = re.compile(rb"</script(?=[\s>/])", re.IGNORECASE)
_MAX_TAG_NBYTES = 2000
_MAX_BROKEN_TAGS = 50  # each is looked through for its end
_LANGUAGES = {
    b"ts": "typescript",
    b"typescript": "typescript",
    b"tsx": "tsx",
    b"": "javascript",
    b"js": "javascript",
    b"javascript": "javascript",
    b"jsx": "javascript",
    b"module": "javascript",
    b"text/javascript": "javascript",
    b"text/typescript": "typescript",
}


def scripts(source: bytes) -> tuple[str, bytes]:
    """The language of the scripts in a component, and its source with all else blank, byte for byte in place."""
    language, code, position, num_broken = "javascript", bytearray(), 0, 0
    while num_broken < _MAX_BROKEN_TAGS and (start := _START.search(source, position)):
        if start[0] == b"<!--":
            position = _after(source, b"-->", start.end())
            continue
        tag = _ATTRIBUTES.match(source, start.end(), start.end() + _MAX_TAG_NBYTES)
        position = tag.end() if tag else start.end()
        num_broken += tag is None
        written = {name.lower(): value.lower() for name, value in _ATTRIBUTE.findall(tag[0])} if tag else {}
        name = _LANGUAGES.get(written.get(b"lang") or written.get(b"type", b""))
        if tag is None or name is None or tag[0].endswith(b"/>"):
            continue
        end = _END.search(source, position)
        stop = end.start() if end else len(source)
        language = name if name != "javascript" else language
        code += _blank(source[len(code) : position]) + source[position:stop]
        position = stop
    return language, bytes(code) + _blank(source[len(code) :])


def _after(source: bytes, mark: bytes, position: int) -> int:
    place = source.find(mark, position)
    return len(source) if place < 0 else place + len(mark)


def _blank(text: bytes) -> bytes:
    """Spaces, with the line breaks where they are."""
    return re.sub(rb"[^\r\n]", b" ", text)


VUE = replace(TYPESCRIPT, name="vue", endings=(".vue",), interpreters=(), embedded=scripts)
SVELTE = replace(TYPESCRIPT, name="svelte", endings=(".svelte",), interpreters=(), embedded=scripts)
