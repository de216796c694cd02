"""Line breaks of Python that the grammar takes for the end of a block, although they are within brackets."""

from __future__ import annotations

import re

MAX_JOINED = 1000  # line breaks of one file: the parser looks through all of them at each token
_TOKEN = re.compile(
    rb"(?P<comment>\#[^\n]*+)|(?P<line>\n[ \t\f\r]*+)|(?P<space>(?:[ \t\f\r]|\\\r?\n)++)"
    rb"|(?P<string>'''(?:\\.|(?!''')[^\\])*+(?:''')?|\"\"\"(?:\\.|(?!\"\"\")[^\\])*+(?:\"\"\")?"
    rb"|'(?:\\.|[^'\\\n])*+'?|\"(?:\\.|[^\"\\\n])*+\"?)"
    rb"|(?P<word>\w++)|(?P<other>.)",
    re.DOTALL,
)
# Behind an opening bracket that is not closed, the next statement shows that it is none of an expression.
_STATEMENTS = set(
    b"assert break class continue def del except finally global import nonlocal pass raise return".split()
)
_STATEMENTS |= {b"raise", b"return", b"try", b"while", b"with"}
_DEPTH: dict[bytes, int] = {b"(": 1, b"[": 1, b"{": 1, b")": -1, b"]": -1, b"}": -1}


def breaks_within_brackets(source: bytes) -> list[tuple[int, int]]:
    """Spans from a line break to the next token, where that is to the left of the statement that goes on."""
    spans: list[tuple[int, int]] = []
    depth = statement_column = column = 0
    start: int | None = None  # of the break, or of the comment before it
    for token in _TOKEN.finditer(source):
        if token.lastgroup == "line":
            column = token.end() - token.start() - 1
            start = token.start() if start is None else start
        elif token.lastgroup == "comment":
            start = token.start() if start is None else start
        elif token.lastgroup != "space":
            if start is not None and b"\n" in source[start : token.start()]:
                depth = 0 if token[0] in _STATEMENTS else depth
                if depth and column < statement_column:
                    spans.append((start, token.start()))
                statement_column = statement_column if depth else column
            start = None
            depth = max(0, depth + _DEPTH.get(token[0], 0))
    return spans[:MAX_JOINED]
