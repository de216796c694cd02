"""`why`: the exact prompt behind a text on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Db, Json, Kv, Numerics, OneRepo
from rotary_batch.cli.settings import user_settings
from rotary_batch.commands.database import reading

_FACTS = ("key", "state", "answer", "mean_logprob", "ended", "verdict", "reasons", "shown", "error")


def why(
    page: Annotated[
        str,
        typer.Argument(metavar="PAGE[#SYMBOL]", help="A page, or the source or folder that it is about."),
    ],
    repo: OneRepo = None,
    numerics: Numerics = None,
    kv: Kv = None,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show the exact prompt behind a text, and what became of it.

    With #SYMBOL it is the text of that symbol; of onboarding.md, that on that topic. The prompt is made again from the
    index; its key tells whether it is the one that was answered.

    Examples:
        rotary-batch why src/cart.py
        rotary-batch why 'rotary-docs/src/cart.py.md#Cart.total' ~/src/app
    """
    root = commands.repositories.repository_root(repo)
    user = user_settings(config, [root], numerics=numerics, kv=kv, db=db)
    with reading(user.for_command().settings) as store:
        answer = commands.why.why(store, user.for_indexed, root, page)
    print_answer(answer, json, lambda: print_why(answer))


def _origin(imported: Mapping[str, Any]) -> str:
    """Where the answer of another runner was read, and which model the runner named."""
    return f"{imported['file']}" + (f", answered by {imported['model']}" if imported["model"] else "")


def print_why(answer: Mapping[str, Any]) -> None:
    """The facts, then the prompt as the model reads it."""
    text = answer["text"]
    facts = {name: answer[name] for name in ("page", "symbol", "job", "model", "numerics") if answer[name]}
    if text is None:
        console.print_facts(facts | {"not asked": answer["not_asked"]})
        return
    given = {name: text[name] for name in _FACTS if text[name] not in (None, [])}
    console.print_facts(facts | given | ({"imported": _origin(text["imported"])} if text["imported"] else {}))
    for one in text["inputs"]:
        console.out(f"input: {one['name']}: {one['shown'] or 'its structure'}")
    if text["prompt"] is None:
        console.out(f"There is no prompt: {text['no_prompt']}")
        return
    known = "as it was made" if text["is_exact"] else "as it would be made now; another one was answered"
    console.out(f"The prompt of {text['prompt_tokens']:,} tokens, {known}:")
    console.out(text["prompt"])
