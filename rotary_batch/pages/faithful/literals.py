"""Numbers, versions, quoted strings and addresses, which a sentence has from the source or from nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+|\bwww\.\S+", re.IGNORECASE)
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
ADDRESS = re.compile(f"{_URL.pattern}|{_MAIL.pattern}", re.IGNORECASE)
_PATH = re.compile(
    r"(?<![\w.:/<`])(?:\.{1,2}|~)?/[\w.-]+(?:/[\w.-]+)*|(?<![\w./<])[\w-]+(?:/[\w.-]+)*/[\w-]+\.[a-z]\w{0,4}\b"
)
# Not a part of a word, such as UTF-8, 2D, v2 or 32-bit: those are names, which few sources spell alike.
_NUMBER = re.compile(r"(?<![\w.-])-?\d[\d_,]*(?:\.\d+)*(?![\w-]|[.,]\w)")
_SOURCE_NUMBER = re.compile(r"0[xX][0-9a-fA-F_]+|\d[\d_,]*(?:\.\d+)*|\.\d+")
_QUOTED = re.compile(r'"([^"\n]{1,200})"|\u201c([^\u201d\n]{1,200})\u201d|(?<!\w)\'([^\'\n]{1,60})\'(?!\w)')
_ONE_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")  # in quotes because it is meant in another sense: the "raw" value
_CODE = re.compile(r"`([^`\n]+)`")
_SMALL = {"0", "1"}  # said of much that does not write them: the first, none


def unknown_addresses(sentence: str, source: str) -> Iterator[str]:
    """URLs, mail addresses and paths that the source does not have."""
    for url in _URL.findall(sentence):
        if url.rstrip(".,;)`'\"") not in source:
            yield url
    rest = _URL.sub(" ", sentence)
    for pattern in (_MAIL, _PATH):
        yield from (found for found in pattern.findall(rest) if found.rstrip(".") not in source)


def unknown_commands(sentence: str, source: str) -> list[str]:
    """Commands in back-ticks that the source does not have word for word, though it may have each word."""
    commands = [text.strip() for text in _CODE.findall(sentence) if len(text.split()) > 1]
    folded = " ".join(source.split()) if commands else ""
    return [one for one in commands if re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", folded) is None]


def unknown_numbers(sentence: str, source: str) -> list[str]:
    """Numbers and versions that the source does not have, in any of its spellings."""
    said = [number.rstrip(",.") for number in _NUMBER.findall(_URL.sub(" ", sentence))]
    if not said:
        return []
    known = _SMALL | {_plain(number) for number in _SOURCE_NUMBER.findall(source)}
    return [number for number in said if _plain(number) not in known]


def _plain(number: str) -> str:
    digits = number.lower().lstrip("-").replace("_", "").replace(",", "")
    if digits.startswith("0x"):
        return str(int(digits, 16)) if len(digits) > 2 else digits
    return digits.lstrip("0") or "0" if digits.isdecimal() else digits.removeprefix("0")


def unknown_quotations(sentence: str, source: str) -> list[str]:
    """Quoted texts that the source does not have."""
    quoted = [text for parts in _QUOTED.findall(sentence) if not _ONE_WORD.fullmatch(text := "".join(parts))]
    folded = _folded(source) if quoted else ""
    return [text for text in quoted if _folded(text).strip(" .,;") not in folded]


def _folded(text: str) -> str:
    return " ".join(text.lower().split())
