"""OpenAI-batch requests from a file: each line a request, or what is wrong with it."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rotary_batch import jsonl
from rotary_batch.config import excerpt
from rotary_batch.core import Request
from rotary_batch.errors import ModelError
from rotary_batch.model.chat import Message
from rotary_batch.model.tokens import Tokenizer

DEFAULT_MAX_TOKENS = 256
MAX_LINE_NBYTES = 8 * 2**20  # more than any context; a parsed line of empty lists takes 25 times its size in memory
_MAX_ID_CHARACTERS = 512


class Accepted(NamedTuple):
    """A request that an engine can take."""

    custom_id: str
    request: Request  # its id is the number of its line


class Refused(NamedTuple):
    """A line that is not a request."""

    line: int
    custom_id: str | None  # None when it has none of its own
    message: str


def read_requests(
    path: Path, file: BinaryIO, tokenizer: Tokenizer, is_known: Callable[[str], bool]
) -> Iterator[Accepted | Refused | str]:
    """Every line that is not empty: a request, what is wrong with it, or the `custom_id` of one that is known."""
    taken: set[str] = set()
    for number, line, _ in jsonl.lines(file, MAX_LINE_NBYTES):
        data = line.removeprefix(BOM_UTF8) if line is not None and number == 1 else line
        if data is not None and not data.strip():
            continue
        custom_id = None
        try:
            row = _row(data)
            custom_id = _new_id(row, taken)
            taken.add(custom_id)
            yield custom_id if is_known(custom_id) else Accepted(custom_id, _request(row, number, tokenizer))
        except (ValueError, RecursionError) as error:  # JSON that was parsed may still be too deep for repr()
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            yield Refused(number, custom_id, f"{path}:{number}: {reason}")


def _row(data: bytes | None) -> dict[str, Any]:
    if data is None:
        raise ValueError(f"a line of over {MAX_LINE_NBYTES:,} bytes")
    return jsonl.parse_object(data)


def _new_id(row: dict[str, Any], taken: set[str]) -> str:
    custom_id = row.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= _MAX_ID_CHARACTERS:
        raise ValueError(f"needs a custom_id: a string of 1 to {_MAX_ID_CHARACTERS} characters")
    if custom_id in taken:
        raise ValueError(f"custom_id {excerpt(custom_id)} appears twice")
    return custom_id


def _request(row: dict[str, Any], number: int, tokenizer: Tokenizer) -> Request:
    """Raises ValueError naming the parameter."""
    _check(row, _ROW, "")
    body = row.get("body")
    if not isinstance(body, dict):
        raise ValueError("needs a body: an object with messages or prompt")  # noqa: TRY004 - as for all else
    _check(body, _BODY, "body.")
    if ("prompt" in body) == ("messages" in body):
        raise ValueError("needs body.messages or body.prompt, and not both")
    ids = _prompt_ids(body["prompt"], tokenizer) if "prompt" in body else _chat_ids(body["messages"], tokenizer)
    if not ids:
        raise ValueError("the prompt is empty")
    limit = body.get("max_tokens") or DEFAULT_MAX_TOKENS
    return Request(request_id=number, prompt_ids=tuple(ids), max_new_tokens=limit)


def _prompt_ids(prompt: str | list[int], tokenizer: Tokenizer) -> list[int]:
    """Token ids of a text, as content; ids stand for themselves, as `export --requests` writes them."""
    if isinstance(prompt, str):
        return tokenizer.encode(prompt)
    if prompt and max(prompt) >= tokenizer.num_tokens:
        raise ValueError(f"body.prompt: token {max(prompt)} is not one of the {tokenizer.num_tokens:,} of this model")
    return prompt


def _chat_ids(rows: list[Any], tokenizer: Tokenizer) -> list[int]:
    """Token ids of a chat; each message is encoded as content, and only the template makes control tokens."""
    messages = _messages(rows)
    if not any(message.content for message in messages):
        return []
    if messages[-1].role == "assistant":
        raise ValueError("body.messages: the last message is the assistant's; end with one of the user")
    try:
        return tokenizer.encode_messages(messages)
    except ModelError as error:
        if all(message.role == "user" for message in messages):
            raise  # it can answer nothing at all
        raise ValueError(f"body.messages: {error}") from error


def _messages(rows: list[Any]) -> list[Message]:
    for message in rows:
        if not isinstance(message, dict):
            raise ValueError(f"body.messages: {excerpt(message)} is not an object with role and content")  # noqa: TRY004 - as for all else
        _check(message, _MESSAGE, "body.messages: ")
        if "content" not in message or "role" not in message:
            raise ValueError("body.messages: a message needs role and content")
    return [Message(message["role"], _text(message["content"])) for message in rows]


def _text(content: str | list[Any]) -> str:
    if isinstance(content, str):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError(f"body.messages: content: {excerpt(part)} is not a part with the type 'text'")
    return "".join(part["text"] for part in content)


def _check(table: dict[str, Any], allowed: _Allowed, where: str) -> None:
    for name, value in table.items():
        if name not in allowed:
            raise ValueError(f"{where}{excerpt(name)[1:-1]} is not supported; leave it out")
        is_right, wanted = allowed[name]
        if not is_right(value):
            raise ValueError(f"{where}{name}: {excerpt(value)} is not {wanted}")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_prompt(value: object) -> bool:
    """Whether it is a text or a list of token ids."""
    return isinstance(value, str) or (isinstance(value, list) and all(type(one) is int and one >= 0 for one in value))


def _is_only(*values: object) -> Callable[[Any], bool]:
    """Accept only values that do not change the answer; False is not 0 here."""
    return lambda value: any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


def _is_whole(least: int) -> Callable[[Any], bool]:
    return lambda value: value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= least)


_Allowed = dict[str, tuple[Callable[[Any], bool], str]]
_NO = (False, None)
_ROW: _Allowed = {
    "custom_id": (_is_text, "a string"),
    "method": (_is_only("POST"), "POST"),
    "url": (_is_only("/v1/chat/completions", "/v1/completions"), "/v1/chat/completions or /v1/completions"),
    "body": (lambda value: isinstance(value, dict), "an object"),
}
# `generate` has one model and its answers are greedy.  A parameter is accepted when it does not change the answer.
_BODY: _Allowed = {
    "messages": (lambda value: isinstance(value, list), "a list"),
    "prompt": (_is_prompt, "a string or a list of token ids"),
    "max_tokens": (_is_whole(1), "a whole number above 0"),
    "model": (_is_text, "a string"),
    "user": (_is_text, "a string"),
    "logprobs": (_is_whole(0), "a whole number; each result has its mean_logprob"),
    "seed": (_is_whole(-(2**63)), "a whole number"),
    "temperature": (_is_only(0, None), "0; answers are greedy"),
    "top_p": (_is_only(1, None), "1; answers are greedy"),
    "n": (_is_only(1, None), "1; each request has one answer"),
    "stream": (_is_only(*_NO), "false; answers are written whole"),
}
_MESSAGE: _Allowed = {
    "role": (_is_only("system", "user", "assistant"), "system, user or assistant"),
    "content": (lambda value: isinstance(value, str | list), "a string or a list of parts"),
}
