"""Encode text word by word, and each word once: many times faster than `tokenizers`, with the same token ids.

Byte-level BPE cuts a text into words by a regular expression and never merges across them.  Where that expression is
one of those known here, code is mostly words that were encoded before.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from unicodedata import category, is_normalized

from tokenizers import Tokenizer as HfTokenizer
from tokenizers.models import BPE

from rotary_batch.model.split_rules import DIGITS_ALONE, GPT_2, LLAMA_3, QWEN_2

MAX_WORDS = 50_000  # kept, in about 10 MB
MAX_WORD_NBYTES = 500  # in a source; the whole word is read again at each place within it, as among 500,000 line breaks
MAX_WORD_CHARACTERS = 64  # of a word that is kept
_MARGIN_NBYTES = 8  # two characters: whether a word ends depends at most on the second character behind it
_AHEAD_WORDS = 8  # within which words from the middle of another one fall in step with the others
_KNOWN = {GPT_2, DIGITS_ALONE, LLAMA_3, QWEN_2}
_EACH_DIGIT = (
    {"type": "Digits", "individual_digits": True},
    {"type": "Split", "pattern": {"Regex": r"\p{N}"}, "behavior": "Isolated", "invert": False},
)
# The same in Python's syntax.  Of the characters for which they differ, `_is_alike` says no.
_PYTHON = (
    (r"[^\s\p{L}\p{N}]", r"(?:[^\s\w]|_)"),
    (r"[^\r\n\p{L}\p{N}]", r"(?:[^\r\n\w]|_)"),
    (r"\p{L}", r"[^\W\d_]"),
    (r"\p{N}", r"\d"),
)
_UNLIKE_IN_ASCII = re.compile("[\x1c-\x1f]")  # white space in Python alone


class _Known(dict[str, tuple[int, ...]]):
    """Token ids of words; of a word that is new, made when it is looked up."""

    def __init__(self, encode: Callable[[str], Sequence[int]]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = tuple(self._encode(word))
        if len(word) <= MAX_WORD_CHARACTERS:
            if len(self) >= MAX_WORDS:
                self.clear()
            self[word] = ids
        return ids


class Words:
    """The words of a tokenizer whose expression is known."""

    def __init__(self, pattern: str, tokenizer: HfTokenizer) -> None:
        for theirs, ours in _PYTHON:
            pattern = pattern.replace(theirs, ours)
        self._find: Callable[[str], list[str]] = re.compile(pattern).findall
        self._known = _Known(lambda word: tokenizer.encode(word, add_special_tokens=False).ids)
        self._normalises = tokenizer.normalizer is not None
        # Tokens that are not special are found in any text, also across words.
        self._added = [one.content for one in tokenizer.get_added_tokens_decoder().values() if not one.special]

    @classmethod
    def of(cls, tokenizer: HfTokenizer) -> Words | None:
        """None for a tokenizer that works otherwise."""
        model, pattern = tokenizer.model, _pattern(tokenizer)
        is_plain = isinstance(model, BPE) and not (
            model.dropout or model.continuing_subword_prefix or model.end_of_word_suffix
        )
        is_normal = tokenizer.normalizer is None or _state(tokenizer.normalizer) == {"type": "NFC"}
        return cls(pattern, tokenizer) if is_plain and is_normal and pattern is not None else None

    def encode(self, text: str) -> list[int] | None:
        """Token ids; None when the text has characters for which the expressions differ."""
        if not self._covers(text):
            return None
        return list(chain.from_iterable(map(self._known.__getitem__, self._find(text))))

    def ranges(self, source: bytes) -> Callable[[int, int], int] | None:
        """A function that counts the tokens of any range of bytes, which is then read only at its two ends."""
        text = source.decode("utf-8", "replace")
        if "\ufffd" in text or not self._covers(text):
            return None
        words = self._find(text)
        lengths: Iterable[int] = map(len, words) if text.isascii() else (len(word.encode()) for word in words)
        starts = list(accumulate(lengths, initial=0))
        if any(end - start > MAX_WORD_NBYTES for start, end in pairwise(starts)):
            return None
        tokens = list(accumulate(map(len, map(self._known.__getitem__, words)), initial=0))
        return _Ranges(source, starts, tokens, self._sizes).count

    def _sizes(self, text: bytes) -> Iterator[tuple[str, int]]:
        """Each word with its tokens."""
        words = self._find(text.decode("utf-8", "replace"))
        return zip(words, map(len, map(self._known.__getitem__, words)), strict=True)

    def _covers(self, text: str) -> bool:
        if any(token in text for token in self._added):
            return False
        if text.isascii():
            return _UNLIKE_IN_ASCII.search(text) is None
        return all(map(_is_alike, set(text))) and not (self._normalises and not is_normalized("NFC", text))


class _Ranges:
    """Counts tokens between places of one source, from where each of its words begins."""

    def __init__(
        self,
        source: bytes,
        starts: Sequence[int],
        tokens: Sequence[int],
        sizes: Callable[[bytes], Iterable[tuple[str, int]]],
    ) -> None:
        self._source, self._starts, self._tokens, self._sizes = source, starts, tokens, sizes
        self._heads: dict[int, tuple[int, int] | None] = {}
        self._tails: dict[int, tuple[int, int]] = {}

    def count(self, start: int, end: int) -> int:
        """As of the text of that range alone: at its ends words are others than in the whole."""
        head = self._heads[start] if start in self._heads else self._heads.setdefault(start, self._head(start))
        tail = self._tails[end] if end in self._tails else self._tails.setdefault(end, self._tail(end))
        if head is None or head[0] > tail[0]:
            return self._count(start, end)
        return head[1] + self._tokens[tail[0]] - self._tokens[head[0]] + tail[1]

    def _count(self, start: int, end: int) -> int:
        return sum(tokens for _, tokens in self._sizes(self._source[start:end]))

    def _tail(self, end: int) -> tuple[int, int]:
        """The last word up to which words are those of the whole source, and the tokens from there to a place."""
        place = bisect_right(self._starts, end) - 1
        if self._starts[place] == end > 0 and self._source[end - 1] > ord(" "):  # only spaces depend on what follows
            return place, 0
        place = max(0, bisect_right(self._starts, end - _MARGIN_NBYTES) - 1)
        return place, self._count(self._starts[place], end)

    def _head(self, start: int) -> tuple[int, int] | None:
        """The first word from which on words are those of the whole source, and the tokens between a place and it."""
        starts = self._starts
        if start < len(self._source) and self._source[start] & 0xC0 == 0x80:  # within a character
            return None
        place = bisect_right(starts, start) - 1
        if starts[place] == start:
            return place, 0
        end = starts[min(place + _AHEAD_WORDS, len(starts) - 1)]
        at, before = start, 0
        for word, tokens in self._sizes(self._source[start:end]):
            at, before = at + len(word.encode()), before + tokens
            if at > end - _MARGIN_NBYTES:
                break
            if starts[place := bisect_right(starts, at) - 1] == at:
                return place, before
        return None


def _pattern(tokenizer: HfTokenizer) -> str | None:
    """The expression that cuts words, when it is a known one."""
    state = _state(tokenizer.pre_tokenizer)
    parts = state.get("pretokenizers", [state])
    *splits, last = parts if isinstance(parts, list) and parts else [{}]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space") is not False:
        return None
    if last.get("use_regex", True):
        if not splits:
            return GPT_2
        return DIGITS_ALONE if len(splits) == 1 and splits[0] in _EACH_DIGIT else None
    if len(splits) != 1:
        return None
    pattern = splits[0].get("pattern", {}).get("Regex")
    expected = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return pattern if splits[0] == expected and pattern in _KNOWN else None


def _state(part: object) -> dict[str, object]:
    """A part of a tokenizer as it is in tokenizer.json."""
    state = getattr(part, "__getstate__", None)
    return dict(json.loads(state())) if part is not None and state is not None else {}


@lru_cache(maxsize=20_000)
def _is_alike(character: str) -> bool:
    """Whether a character is a letter, a digit, a space or none of these to both expressions."""
    if character.isascii():
        return not _UNLIKE_IN_ASCII.match(character)
    kind = category(character)
    if character in "\u017f\u212a":  # to Python, `s` and `k` in another case
        return False
    return kind in {"Lu", "Ll", "Lt", "Lm", "Lo", "Nd"} or kind[0] in "MPS" or kind in {"Cf", "Co"}
