"""A checkpoint's chat template: the control text around the contents of messages.

The template is rendered with placeholders in place of contents, so no content passes through it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.errors import ModelError
from rotary_batch.model.chat_rendering import rendering_key
from rotary_batch.model.rendering import RenderingError, render

Variables = Mapping[str, bool | int | str]
# What templates ask for besides messages, by type.  A job may set them; these are the ones that a person may want.
VARIABLES: dict[str, type] = {
    "enable_thinking": bool,
    "thinking": bool,
    "thinking_budget": int,
    "reasoning_effort": str,
    "model_identity": str,
    "date_string": str,
}
# Thinking would take most of the tokens of a night.  Only harmony cannot do without.
_DEFAULTS = {"enable_thinking": False, "thinking": False}
_HARMONY_DEFAULTS = {"reasoning_effort": "low"}
# A checkpoint without a template gets the content alone, after the token that its tokenizer begins every text with.
_PLAIN_TEMPLATE = "{{ bos_token }}{{ messages[0]['content'] }}"
# Private-use characters, so no template contains it.
_PLACEHOLDER = "\ue000rotary-content-{}\ue001"
_PLACEHOLDERS = re.compile("\ue000rotary-content-([0-9]{1,6})\ue001")
_MAX_KEPT = 64  # renderings, each of other roles or variables


class Message(NamedTuple):
    """One turn of a chat."""

    role: str  # system, user or assistant
    content: str


class ChatTemplate:
    """The template of one tokenizer; `known` are renderings of it."""

    def __init__(
        self, template: str | None, source: Path, bos_token: str, eos_token: str, known: Mapping[str, str]
    ) -> None:
        self.text = template or _PLAIN_TEMPLATE
        self.is_plain = self.text == _PLAIN_TEMPLATE
        self._source, self._known = source, known
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._defaults = _DEFAULTS | (_HARMONY_DEFAULTS if "<|channel|>" in self.text else {})
        self._kept: dict[tuple[object, ...], tuple[str, ...] | RenderingError] = {}

    def arranged(self, messages: Sequence[Message], variables: Variables) -> tuple[list[Message], tuple[str, ...]]:
        """Messages as the template takes them, and its text before, between and after their contents.

        Messages of one role in a row become one.  A template without a system role gets its text at the beginning of
        the user's next message.  Raises ModelError when it does not put every content in exactly once.
        """
        merged = _merged(messages)
        if not any(message.role == "system" for message in merged):
            return merged, self._around(merged, variables)
        with suppress(ModelError):  # some know the role only to refuse it
            around = self._around(merged, variables)
            if any("system" in text for text in (self.text, *around)):
                return merged, around
        merged = _merged([one._replace(role="user") if one.role == "system" else one for one in merged])
        return merged, self._around(merged, variables)

    def _around(self, messages: Sequence[Message], variables: Variables) -> tuple[str, ...]:
        roles = tuple(message.role for message in messages)
        key = (roles, *sorted(variables.items()))
        if key not in self._kept:
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[key] = self._rendered(roles, variables)
        kept = self._kept[key]
        if isinstance(kept, RenderingError):
            raise ModelError(
                f"{self._source}: chat template: {kept}; take the template of the model's own publisher, or name "
                "another model"
            ) from kept
        return kept

    def _rendered(self, roles: Sequence[str], variables: Variables) -> tuple[str, ...] | RenderingError:
        """The texts, or why there are none: a file may ask for the same again and again."""
        if self.is_plain and len(roles) > 1:
            return RenderingError("there is none, so only messages of the user can be answered")
        if self.is_plain:
            return self._tokens["bos_token"], ""
        values = self._values(roles, variables)
        try:
            rendered = self._known.get(rendering_key(self.text, values)) or render(self.text, values)
        except RenderingError as error:
            return error
        around = _PLACEHOLDERS.split(rendered)
        if around[1::2] != [str(place) for place in range(len(roles))]:
            message = "the user's message" if len(roles) == 1 else "every message"
            return RenderingError(f"it does not put {message} in exactly once")
        return tuple(around[::2])

    def _values(self, roles: Sequence[str], variables: Variables) -> dict[str, Any]:
        messages = [{"role": role, "content": _PLACEHOLDER.format(place)} for place, role in enumerate(roles)]
        given = {"messages": messages, "add_generation_prompt": True, "tools": None, "documents": None}
        return self._defaults | dict(variables) | given | self._tokens

    def user_rendering(self) -> tuple[str, str]:
        """The key and the rendering of one message of the user.  Raises RenderingError."""
        values = self._values(["user"], {})
        return rendering_key(self.text, values), render(self.text, values)

    @property
    def renders_as_known(self) -> bool:
        """Whether what is known of that message is right."""
        try:
            key, text = self.user_rendering()
        except RenderingError:
            return True
        return self._known.get(key, text) == text


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Messages of one role in a row as one."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = Message(message.role, f"{merged[-1].content}\n\n{message.content}")
        else:
            merged.append(message)
    return merged
