"""Token ids of a chat: control text and contents, encoded apart, as the whole text would be.

Apart, so that no content has a control token.  Tokenizers of SentencePiece put a space before every text that they are
given, which belongs before the first part of the whole alone, and behind control tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

from tokenizers import Tokenizer as HfTokenizer

_MAX_KEPT = 64  # control texts of chats, each of other roles or variables


class ChatEncoder:
    """Encodes texts that alternate between control and content.  `encode` is the tokenizer's own, for content."""

    def __init__(self, tokenizer_json: str, control: HfTokenizer, encode: Callable[[str], list[int]]) -> None:
        self._control, self._encode = control, encode
        self._prefix = _prefix_of(control)
        self._kept: dict[tuple[str, ...], list[list[int]]] = {}
        if self._prefix is not None:
            self._bare_content, self._bare_control = (_without_prefix(tokenizer_json) for _ in range(2))
            self._bare_content.encode_special_tokens = True
            specials = [one.content for one in control.get_added_tokens_decoder().values() if one.special]
            longest_first = "|".join(map(re.escape, sorted(specials, key=len, reverse=True)))
            self._special = re.compile(longest_first or "(?!)")

    def encode(self, around: Sequence[str], contents: Sequence[str]) -> list[int]:
        """`around` has one text more than there are contents: before the first, between two, after the last."""
        return list(chain.from_iterable(self.parts(around, contents)))

    def parts(self, around: Sequence[str], contents: Sequence[str]) -> list[list[int]]:
        """The token ids of each text and content, in turn."""
        if self._prefix is not None:
            return list(self._with_prefix(around, contents))
        key = tuple(around)
        if key not in self._kept:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[key] = [_ids(self._control, text) for text in around]
        pairs = zip_longest(self._kept[key], map(self._encode, contents))
        return [ids for pair in pairs for ids in pair if ids is not None]

    def going_on(self, text: str, before: str | None = None) -> list[int]:
        """Token ids of content that goes on: behind other content, or behind the control text `before`."""
        is_bare = before is None or before[-1:].isspace()
        return _ids(self._bare_content, encodable(text)) if self._prefix is not None and is_bare else self._encode(text)

    def _with_prefix(self, around: Sequence[str], contents: Sequence[str]) -> Iterator[list[int]]:
        is_first = True  # nothing has an id yet
        for place, (text, content) in enumerate(zip(around, [*contents, None], strict=True)):
            gives_space = content is not None and text.endswith(" ")
            control_ids = self._control_ids(text[:-1] if gives_space else text, is_first=not place)
            yield control_ids
            is_first = is_first and not control_ids
            if content is None:
                return
            is_behind_special = bool(re.search(rf"(?:{self._special.pattern})\Z", text))
            has_space = gives_space or (is_first and not text) or (is_behind_special and self._prefix == "always")
            content_ids = self._encode(content) if has_space else _ids(self._bare_content, encodable(content))
            yield content_ids if content else []
            is_first = is_first and not content

    def _control_ids(self, text: str, *, is_first: bool) -> list[int]:
        if is_first:
            return _ids(self._control, text)
        special = self._special.search(text)
        cut = special.start() if special else len(text)
        return _ids(self._bare_control, text[:cut]) + _ids(self._control, text[cut:])


def encodable(text: str) -> str:
    """A text without halves of surrogate pairs, which `tokenizers` does not take."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _ids(tokenizer: HfTokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def _prefix_of(tokenizer: HfTokenizer) -> str | None:
    """Where a tokenizer puts a space of its own: before the `first` part, or `always`, behind control tokens too."""
    parts = [*_flat(_state(tokenizer.normalizer)), *_flat(_state(tokenizer.pre_tokenizer))]
    if any(part.get("type") == "Prepend" or part.get("add_prefix_space") is True for part in parts):
        return "always"
    schemes = {part.get("prepend_scheme") for part in parts if part.get("type") == "Metaspace"}
    return next((scheme for scheme in ("always", "first") if scheme in schemes), None)


def _without_prefix(tokenizer_json: str) -> HfTokenizer:
    tokenizer = json.loads(tokenizer_json)
    for part in (*_flat(tokenizer["normalizer"]), *_flat(tokenizer["pre_tokenizer"])):
        if part.get("type") == "Prepend":
            part["prepend"] = ""
        elif part.get("type") == "Metaspace":
            part["prepend_scheme"] = "never"
        elif "add_prefix_space" in part:
            part["add_prefix_space"] = False
    return HfTokenizer.from_str(json.dumps(tokenizer))


def _state(part: object) -> dict[str, Any]:
    state = getattr(part, "__getstate__", None)
    return dict(json.loads(state())) if part is not None and state is not None else {}


def _flat(part: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a part of a tokenizer."""
    if not part:
        return []
    return list(part.get("normalizers") or part.get("pretokenizers") or [part])
