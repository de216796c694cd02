"""A chat whose answer is begun for the model, so that it has only to go on.

A model that thinks before it answers has its thinking closed, and one with channels has its final channel opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rotary_batch.model.answers import AnswerForm
from rotary_batch.model.chat import Variables

_FINAL_CHANNEL = "<|channel|>final<|message|>"
_NO_EFFORT = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunChat:
    """Token ids of a chat, and how it goes on: `head_ids`, the ids of a text, `tail_ids`."""

    head_ids: tuple[int, ...]
    tail_ids: tuple[int, ...]
    is_answer: bool  # whether the text is the beginning of the answer, not the end of the message
    going_on: Callable[[str], list[int]]  # the ids of the text, which is content: it gives no control token

    def ids(self, text: str) -> tuple[int, ...]:
        """What comes behind `head_ids` when the chat goes on with a text."""
        return (*self.going_on(text), *self.tail_ids)


def thinks(variables: Variables, form: AnswerForm) -> bool:
    """Whether a model that can think is asked to."""
    asked = any(variables.get(name) for name in ("enable_thinking", "thinking", "thinking_budget"))
    asked = asked or variables.get("reasoning_effort", _NO_EFFORT) != _NO_EFFORT
    return asked and (form.has_channels or bool(form.thinking))


def answer_begun(control: str, form: AnswerForm) -> str:
    """The control text before an answer, up to where the text for its reader begins."""
    if form.has_channels:
        return control + _FINAL_CHANNEL
    for begin, end in form.thinking:
        if control.rfind(begin) > control.rfind(end):
            return f"{control}\n{end}\n\n"
    return control
