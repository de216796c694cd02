"""Patterns of `.gitignore` files, matched as git matches them, in a bounded time.

A pattern is cut at its stars.  The part between two stars has a fixed length, so its leftmost match is always the
right one, and nothing is tried twice: the time is at most the product of the two lengths, where a backtracking regular
expression takes 2^40 steps for 40 stars.  Folders under `**` are found in the same way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rotary_batch.errors import InputError, StoppedError

MAX_PATTERNS = 1_000  # of one file
MAX_PATTERN_NBYTES = 1_000
MAX_ALL_NBYTES = 64_000  # of the patterns of one file: a name 60 folders deep takes about 0.1 s at the worst
_POSIX_CLASSES = {
    b"alpha": rb"a-zA-Z",
    b"digit": rb"0-9",
    b"alnum": rb"a-zA-Z0-9",
    b"upper": rb"A-Z",
    b"lower": rb"a-z",
    b"space": rb"\t-\r ",
    b"blank": rb" \t",
    b"punct": rb"!-/:-@\[-`{-~",
    b"xdigit": rb"0-9a-fA-F",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"print": rb"\x20-\x7e",
    b"graph": rb"\x21-\x7e",
}


class IgnorePatterns:
    """The patterns of one file; of those that match, the last decides."""

    def __init__(self, lines: Iterable[str], origin: str, should_stop: Callable[[], bool] | None = None) -> None:
        """Read the lines of `origin`.  Raises InputError when they are too many or too long.

        A path of 2,000 folders is compared 2,000 times with each pattern, so `should_stop` is called for every folder.
        """
        patterns = [text for line in lines if (text := _pattern_text(line.encode("utf-8", "surrogateescape")))]
        if len(patterns) > MAX_PATTERNS:
            raise InputError(f"{origin}: {len(patterns):,} patterns; the limit is {MAX_PATTERNS:,}, so leave some out")
        if (nbytes := sum(map(len, patterns))) > MAX_ALL_NBYTES:
            raise InputError(
                f"{origin}: patterns of {nbytes:,} bytes; the limit is {MAX_ALL_NBYTES:,}, so leave some out"
            )
        self._last_first = [pattern for text in patterns if (pattern := _parse(text, origin))][::-1]
        self._should_stop = should_stop
        self._chain: list[tuple[bytes, bool]] = []  # the folders of the last path, and whether they are matched

    def matches(self, path: str) -> bool:
        """Whether a file, or a folder that it is in, is matched; the paths are relative to the patterns' folder."""
        raw = path.encode("utf-8", "surrogateescape")
        return bool(self._last_first) and (self._in_matched_folder(raw) or self.verdict(path, is_folder=False) is True)

    def verdict(self, path: str, *, is_folder: bool) -> bool | None:
        """Whether this path alone is matched; False when a `!` takes it back, None when no pattern matches."""
        return self._verdict(path.encode("utf-8", "surrogateescape"), is_folder=is_folder)

    def _verdict(self, path: bytes, *, is_folder: bool) -> bool | None:
        if self._should_stop is not None and self._should_stop():
            raise StoppedError
        segments = path.split(b"/")
        for pattern in self._last_first:
            if (is_folder or not pattern.only_folders) and pattern.matches(segments):
                return not pattern.takes_back
        return None

    def _in_matched_folder(self, path: bytes) -> bool:
        """Whether a folder above the path is matched; paths come in order, so the last one's folders are cached."""
        folders = path.split(b"/")[:-1]
        shared = next(
            (n for n, pair in enumerate(zip(folders, self._chain, strict=False)) if pair[0] != pair[1][0]), None
        )
        del self._chain[min(len(folders), len(self._chain)) if shared is None else shared :]
        for depth in range(len(self._chain), len(folders)):
            inside = bool(self._chain) and self._chain[-1][1]
            is_matched = inside or self._verdict(b"/".join(folders[: depth + 1]), is_folder=True) is True
            self._chain.append((folders[depth], is_matched))
        return bool(self._chain) and self._chain[-1][1]


class _Segment(NamedTuple):
    """A pattern of one name: the parts before, between and after its stars."""

    pieces: tuple[re.Pattern[bytes], ...]  # each of a fixed length

    def matches(self, name: bytes) -> bool:
        first, *rest = self.pieces
        match = first.match(name)
        if match is None or not rest:
            return match is not None and match.end() == len(name)
        for piece in rest[:-1]:
            if (match := piece.search(name, match.end())) is None:
                return False
        # The last piece, which ends with \Z, has one place only; it may not reach back into the one before.
        return rest[-1].search(name, match.end()) is not None


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One line."""

    runs: tuple[tuple[_Segment, ...], ...]  # names between the `**`s; empty: it can match nothing
    takes_back: bool
    only_folders: bool
    is_name: bool  # without a slash: the last name of a path decides

    def matches(self, path: Sequence[bytes]) -> bool:
        """Whether it matches the whole path."""
        if not self.runs:
            return False
        if self.is_name:
            return self.runs[-1][0].matches(path[-1])
        first, *rest = self.runs
        if not _fits(first, path, 0):
            return False
        if not rest:
            return len(first) == len(path)
        place = len(first)
        for run in rest[:-1]:
            start = next((n for n in range(place, len(path) - len(run) + 1) if _fits(run, path, n)), None)
            if start is None:
                return False
            place = start + len(run)
        last = len(path) - len(rest[-1])
        return last >= place and _fits(rest[-1], path, last)


def _fits(run: Sequence[_Segment], path: Sequence[bytes], place: int) -> bool:
    return len(run) <= len(path) - place and all(segment.matches(path[place + n]) for n, segment in enumerate(run))


def _pattern_text(line: bytes) -> bytes:
    """What counts of a line; empty for a comment."""
    line = line.removesuffix(b"\r")
    return b"" if line.startswith(b"#") else _without_trailing_spaces(line)


def _parse(line: bytes, origin: str) -> _Pattern | None:
    takes_back, only_folders = line.startswith(b"!"), False
    text = line[takes_back:]
    if text.endswith(b"/"):
        text, only_folders = text[:-1], True
    if not text:
        return None
    is_name = b"/" not in text
    if len(text) > MAX_PATTERN_NBYTES:
        raise InputError(f"{origin}: a pattern of {len(text):,} bytes; the limit is {MAX_PATTERN_NBYTES:,}")
    tokens = _tokens(text.removeprefix(b"/"))
    return _Pattern(_runs(tokens, is_name=is_name), takes_back, only_folders, is_name)


def _without_trailing_spaces(line: bytes) -> bytes:
    """The line without the spaces at its end, unless a backslash escapes them."""
    end = place = 0
    while place < len(line):
        place += 2 if line[place] == 0x5C else 1
        if line[min(place, len(line)) - 1 : place] != b" " or line[place - 2 : place - 1] == b"\\":
            end = min(place, len(line))
    return line[:end]


_STAR, _STARS, _SLASH = b"*", b"**", b"/"


def _tokens(text: bytes) -> list[bytes] | None:
    """Stars, slashes, and regular expressions of one byte each; None when a bracket is left open or a name cut off."""
    tokens: list[bytes] = []
    place = 0
    while place < len(text):
        letter = text[place : place + 1]
        if letter == b"*":
            stars = len(text) - place - len(text[place:].lstrip(b"*"))
            tokens.append(_STARS if stars > 1 else _STAR)
            place += stars
        elif letter == b"[":
            bracket = _bracket(text, place)
            if bracket is None:
                return None
            token, place = bracket
            tokens.append(token)
        else:
            place += letter == b"\\"
            if place >= len(text):
                return None
            byte = text[place : place + 1]
            tokens.append(b"(?s:.)" if letter == b"?" else _SLASH if byte == b"/" else _literal(byte))
            place += 1
    return tokens


def _literal(byte: bytes) -> bytes:
    return b"\\x%02x" % byte[0]


def _bracket(text: bytes, start: int) -> tuple[bytes, int] | None:
    """A set in brackets as a regular expression, and where it ends."""
    place = start + 1
    negated = text[place : place + 1] in {b"!", b"^"}
    place += negated
    parts, first, before = [], True, None  # before: the last single byte, where a range may begin
    while place < len(text) and (first or text[place : place + 1] != b"]"):
        first = False
        if text[place : place + 2] == b"[:" and (end := text.find(b":]", place)) > 0:
            name = text[place + 2 : end]
            if name not in _POSIX_CLASSES:
                return None
            parts.append(_POSIX_CLASSES[name])
            place, before = end + 2, None
            continue
        is_range = (
            text[place : place + 1] == b"-" and before is not None and text[place + 1 : place + 2] not in {b"", b"]"}
        )
        place += is_range
        place += text[place : place + 1] == b"\\"
        byte = text[place : place + 1]
        if not byte:
            return None
        if is_range and before is not None:
            parts += [_literal(before) + b"-" + _literal(byte)] if before <= byte else []
            before = None
        else:
            parts.append(_literal(byte))
            before = byte
        place += 1
    if place >= len(text):
        return None
    inside = b"".join(parts)
    if negated:
        return b"[^/" + inside + b"]", place + 1
    return (b"(?!/)[" + inside + b"]" if inside else b"(?!)"), place + 1


def _runs(tokens: list[bytes] | None, *, is_name: bool) -> tuple[tuple[_Segment, ...], ...]:
    """Cut at slashes, and at names that are `**`; in a pattern without a slash two stars are one."""
    if tokens is None:
        return ()
    names: list[list[bytes]] = [[]]
    for token in tokens:
        if token == _SLASH:
            names.append([])
        else:
            names[-1].append(token)
    if is_name:
        return ((_segment(names[0]),),)
    if names[-1] == [_STARS]:
        names.append([_STAR])  # `a/**` is what is in a, and not a itself
    runs: list[list[_Segment]] = [[]]
    for name in names:
        if name == [_STARS]:
            runs.append([])
        else:
            runs[-1].append(_segment(name))
    return tuple(map(tuple, runs))


def _segment(tokens: Sequence[bytes]) -> _Segment:
    pieces: list[bytes] = [b""]
    for token in tokens:
        if token in {_STAR, _STARS}:
            pieces.append(b"")
        else:
            pieces[-1] += token
    if len(pieces) > 1:
        pieces[-1] += rb"\Z"
    return _Segment(tuple(re.compile(piece) for piece in pieces))
