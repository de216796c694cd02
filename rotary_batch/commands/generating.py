"""`generate`: the engine alone, OpenAI-batch JSONL in and out, resumable by `custom_id`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rotary_batch.core import Completion, Engine, Request
from rotary_batch.errors import InputError, PromptError
from rotary_batch.model.tokens import Tokenizer

DEFAULT_MAX_TOKENS = 256


def generate(
    source: Path,
    target: Path,
    tokenizer: Tokenizer,
    open_engine: Callable[[], Engine],
    progress: Callable[[int, int], None],
) -> tuple[int, int]:
    """Answer every request that `target` does not hold yet; answers (written, failed).

    Raises InputError for a line that is no request; nothing is written then.
    """
    requests = _read_requests(source, tokenizer)
    answered = _answered(target)
    todo = [(custom_id, request) for custom_id, request in requests if custom_id not in answered]
    if not todo:
        return 0, 0
    names = {request.request_id: custom_id for custom_id, request in todo}
    waiting = [request for _, request in todo]
    written = failed = 0
    engine = open_engine()
    try:
        with target.open("a", encoding="utf-8") as file:
            for request_id, row in _work(engine, waiting, tokenizer):
                file.write(json.dumps({"custom_id": names[request_id], **row}, ensure_ascii=False) + "\n")
                file.flush()
                written += 1
                failed += row["error"] is not None
                progress(written, len(names))
    finally:
        engine.close()
    return written, failed


def _work(engine: Engine, waiting: list[Request], tokenizer: Tokenizer) -> Iterator[tuple[int, dict[str, Any]]]:
    requests = {request.request_id: request for request in waiting}
    while waiting or engine.num_live:
        while waiting and (engine.has_room(waiting[0]) or not engine.num_live):
            request = waiting.pop(0)
            try:
                engine.admit(request)
            except PromptError as error:
                yield request.request_id, {"response": None, "error": {"code": "too_long", "message": str(error)}}
        report = engine.step()
        for done in report.completions:
            yield done.request_id, {"response": _response(done, tokenizer), "error": None}
        waiting += [requests[lost.request_id] for lost in report.failures if lost.retry]
        for lost in (lost for lost in report.failures if not lost.retry):
            yield lost.request_id, {"response": None, "error": {"code": "failed", "message": lost.error}}


def _response(done: Completion, tokenizer: Tokenizer) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": tokenizer.decode(done.token_ids)},
        "finish_reason": done.reason,
        "mean_logprob": done.mean_logprob,
    }
    return {"status_code": 200, "body": {"choices": [choice], "usage": {"completion_tokens": len(done.token_ids)}}}


def _read_requests(source: Path, tokenizer: Tokenizer) -> list[tuple[str, Request]]:
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: {error}; name a readable JSONL file") from error
    found: dict[str, Request] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        custom_id, request = _request(f"{source}:{number}", line, number, tokenizer)
        if custom_id in found:
            raise InputError(f"{source}:{number}: custom_id {custom_id!r} stands twice")
        found[custom_id] = request
    return list(found.items())


def _request(where: str, line: str, number: int, tokenizer: Tokenizer) -> tuple[str, Request]:
    try:
        row = json.loads(line)
        body, custom_id = row["body"], row["custom_id"]
        ids = (
            tokenizer.encode(_text(body["prompt"]))
            if "prompt" in body
            else tokenizer.encode_chat(_content(body["messages"]))
        )
        limit = int(body.get("max_tokens", DEFAULT_MAX_TOKENS))
    except KeyError as error:
        raise InputError(f"{where}: not an OpenAI-batch request: lacks {error}") from error
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{where}: not an OpenAI-batch request: {error} (a text custom_id; body.messages or body.prompt)"
        ) from error
    if limit < 1 or not ids or not isinstance(custom_id, str):
        raise InputError(f"{where}: needs a text custom_id, a prompt that is not empty and max_tokens above 0")
    return custom_id, Request(request_id=number, prompt_ids=tuple(ids), max_new_tokens=limit)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{json.dumps(value)[:40]} is no text")
    return value


def _content(messages: list[dict[str, str]]) -> str:
    if any(message["role"] not in {"system", "user"} for message in messages):
        raise ValueError("only system and user messages are supported")
    return "\n\n".join(_text(message["content"]) for message in messages)


def _answered(target: Path) -> set[str]:
    """Ids that are done; a line cut short by a kill is taken off the file."""
    if not target.is_file():
        return set()
    data = target.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) != len(data):
        with target.open("r+b") as file:
            file.truncate(len(whole))
    try:
        return {json.loads(line)["custom_id"] for line in whole.splitlines()}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{target}: has lines that are no results; name another output file") from error
