"""The text of a source file as UTF-8: byte order marks, coding cookies, lines too long to read."""

from __future__ import annotations

import codecs
import re

from rotary_batch.repo.notebooks import ENDING as NOTEBOOK_ENDING
from rotary_batch.repo.notebooks import python_of

MAX_LINE_NBYTES = 20_000
MAX_MEAN_LINE_NBYTES = 500
_KEPT_NBYTES = 500  # of the beginning of a line that is cut, and a fifth of it of its end
_MIN_CODE_LINES = 2  # apart from lines that are cut
_CUT = b" ... "
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF_32_LE = codecs.BOM_UTF32_LE  # begins as UTF-16 does
# PEP 263, which Ruby has too, and the line of Emacs in any language.
_COOKIE = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)|.*?-\*-.*?coding:[ \t]*([-\w.]+).*?-\*-")
# Encodings of text that decode in linear time; codecs such as punycode do not.
_SINGLE_OR_MULTI_BYTE = re.compile(
    r"iso8859-\d+|cp\d+|koi8-\w|mac-\w+|latin\w*|gb\w+|big5\w*|shift_\w+|euc_\w+|johab|hz|iso2022_\w+|tis-620|ptcp154|kz1048"
    r"|hp-roman8|ascii|utf-8(-sig)?|utf-16(-[lb]e)?"
)
_COMMENT_LINE = re.compile(rb"\s*(?://|/\*|\*|#|--|<!--|;|%|\Z)")


def decoded(data: bytes) -> bytes:
    """The text of a file as UTF-8 without a byte order mark, its lines where they were.

    A file whose encoding is unknown, or is not what it says, stays as it is.
    """
    if data.startswith(codecs.BOM_UTF8):
        return data[len(codecs.BOM_UTF8) :]
    encoding = "utf-16" if is_utf_16(data) else _declared(data)
    if encoding is None:
        return data
    try:
        return data.decode(encoding).encode("utf-8")
    except (UnicodeError, ValueError):
        return data


def is_utf_16(data: bytes) -> bool:
    """Whether a file says by its byte order mark that it is UTF-16."""
    return data.startswith(_UTF_16) and not data.startswith(_UTF_32_LE)


def _declared(data: bytes) -> str | None:
    """The encoding that one of the first two lines names, when it is not UTF-8."""
    for line in data[:1000].split(b"\n")[:2]:
        if match := _COOKIE.match(line):
            name = (match[1] or match[2]).decode("ascii", "replace")
            try:
                encoding = codecs.lookup(name).name
            except LookupError:  # Emacs writes line ends behind the name
                encoding = re.sub(r"-(unix|dos|mac)$", "", name.lower())
            return encoding if _is_other_text(encoding) else None
    return None


def _is_other_text(encoding: str) -> bool:
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        return False
    return bool(_SINGLE_OR_MULTI_BYTE.fullmatch(name)) and not name.startswith(("utf-8", "ascii", "utf-16"))


def is_minified(text: bytes) -> bool:
    """Whether a file is made of lines that nobody reads: it has at most a few other lines."""
    lines = text.split(b"\n")
    short = [line for line in lines if len(line) <= MAX_LINE_NBYTES]
    if sum(map(len, short)) > MAX_MEAN_LINE_NBYTES * max(1, len(short)):
        return True
    return len(short) < len(lines) and sum(not _COMMENT_LINE.match(line) for line in short) < _MIN_CODE_LINES


def without_long_lines(text: bytes) -> bytes:
    """The text with the middle of every line that is too long cut away."""
    if len(text) <= MAX_LINE_NBYTES:
        return text
    lines = text.split(b"\n")
    return b"\n".join(line if len(line) <= MAX_LINE_NBYTES else _cut(line) for line in lines)


def _cut(line: bytes) -> bytes:
    """The two ends of a line, cut between characters."""
    first, last = line[:_KEPT_NBYTES], line[-(_KEPT_NBYTES // 5) :]
    return first.decode("utf-8", "ignore").encode() + _CUT + last.decode("utf-8", "ignore").encode()


def as_text(path: str, data: bytes) -> bytes:
    """The text of a file as UTF-8; of a notebook, its cells as Python."""
    text = decoded(data)
    return python_of(text) if path.endswith(NOTEBOOK_ENDING) else text


def read_source(path: str, data: bytes) -> bytes:
    """What is parsed of a source file.  Offsets of symbols and chunks refer to it.

    Its lines are those of the file, but for notebooks.
    """
    return without_long_lines(as_text(path, data))
