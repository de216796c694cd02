"""What of an answer is meant for its reader: not the thinking, and of several channels only the final one.

Which of the two a model has, its vocabulary says.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

# Control or added tokens around thinking, of Qwen, GLM, DeepSeek and others, and of Mistral.
_THINKING = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
# Of gpt-oss: <|channel|>NAME<|message|>TEXT<|end|>, and <|start|>assistant before all but the first.
_CHANNEL, _MESSAGE = "<|channel|>", "<|message|>"
_MESSAGE_ENDS = ("<|end|>", "<|start|>", _CHANNEL)
_FINAL = "final"
_INVISIBLE = string.whitespace + "ĉč"  # byte-level vocabularies write a tab and a carriage return as these letters


class Shown(NamedTuple):
    """The tokens of an answer for its reader; `fault` says why there are none, when it ended before them."""

    token_ids: tuple[int, ...]
    fault: str | None = None


class AnswerForm:
    """The form of the answers of one vocabulary."""

    def __init__(self, ids: Mapping[str, int], texts: Callable[[], Mapping[int, str]]) -> None:
        """`ids` are those of added tokens by their text; `texts` returns those of all tokens, on first use."""
        self._load_texts = texts
        # Begin and end, as texts.
        self.thinking = tuple(pair for pair in _THINKING if pair[0] in ids and pair[1] in ids)
        self._begins = frozenset(ids[begin] for begin, _ in self.thinking)
        self._ends = frozenset(ids[end] for _, end in self.thinking)
        self._channel, self._message = ids.get(_CHANNEL), ids.get(_MESSAGE)
        self._message_ends = frozenset(ids[text] for text in _MESSAGE_ENDS if text in ids)

    @cached_property
    def _texts(self) -> Mapping[int, str]:
        return self._load_texts()

    @property
    def has_channels(self) -> bool:
        """Whether answers are in harmony, the form of gpt-oss."""
        return self._channel is not None and self._message is not None

    def shown(self, answer_ids: Sequence[int], prompt_ids: Sequence[int]) -> Shown:
        """What the reader gets of an answer.  The prompt may have begun the thinking, or the final channel."""
        if self.has_channels:
            return self._final_channel(answer_ids, is_final=self._ends_in_final(prompt_ids))
        return self._behind_thinking(answer_ids, prompt_ids) if self._begins else Shown(tuple(answer_ids))

    def text(self, answer_ids: Sequence[int], prompt_ids: Sequence[int]) -> str:
        """The letters of what the reader gets, of an answer that may go on."""
        return "".join(self._texts.get(token, "") for token in self.shown(answer_ids, prompt_ids).token_ids)

    def behind_line(self, answer_ids: Sequence[int], prompt_ids: Sequence[int]) -> int | None:
        """How many of the last tokens are behind the first line that has something visible; None = it may go on.

        Only the last token is looked at: 1, or 0 where it holds the end of the line as well, such as ".\\n" of Qwen.
        """
        end, newline, rest = self._texts.get(answer_ids[-1], "").partition("\n")
        if not newline or "\n" not in self.text(answer_ids, prompt_ids).lstrip(_INVISIBLE):
            return None
        return 0 if end.strip(_INVISIBLE) and not rest.strip(_INVISIBLE) else 1

    def _behind_thinking(self, answer_ids: Sequence[int], prompt_ids: Sequence[int]) -> Shown:
        end = next((place for place, token in enumerate(answer_ids) if token in self._ends), None)
        if end is not None:
            return Shown(tuple(answer_ids[end + 1 :]))
        first = next((token for token in answer_ids if not self._is_space(token)), None)
        last = next((token for token in reversed(prompt_ids) if not self._is_space(token)), None)
        if first in self._begins or last in self._begins:
            return Shown((), f"its {len(answer_ids):,} tokens ended within its thinking")
        return Shown(tuple(answer_ids))

    def _is_space(self, token_id: int) -> bool:
        return not self._texts.get(token_id, "").strip()

    def _ends_in_final(self, prompt_ids: Sequence[int]) -> bool:
        """Whether the answer begins within the final channel."""
        header: list[int] = []
        for token in reversed(prompt_ids):
            if token == self._channel:
                return bool(header) and header[-1] == self._message and self._name(header[:-1]) == _FINAL
            if token in self._message_ends:
                return False
            header = [token, *header] if header or token == self._message else []
        return False

    def _final_channel(self, answer_ids: Sequence[int], *, is_final: bool) -> Shown:
        if self._channel not in answer_ids and not is_final:
            return Shown(tuple(answer_ids))
        shown: list[int] = []
        has_final, in_header = is_final, False
        header: list[int] = []  # the tokens of a channel's name
        for token in answer_ids:
            if token in self._message_ends:
                is_final, in_header, header = False, token == self._channel, []
            elif token == self._message:
                is_final, in_header = in_header and self._name(header) == _FINAL, False
                has_final = has_final or is_final
            elif in_header:
                header.append(token)
            elif is_final:
                shown.append(token)
        fault = None if has_final else f"its {len(answer_ids):,} tokens ended before its final channel"
        return Shown(tuple(shown), fault)

    def _name(self, header: Sequence[int]) -> str:
        """The first word of a header; behind it may be what the channel is constrained to."""
        words = "".join(self._texts.get(token, "") for token in header).split()
        return words[0] if words else ""
