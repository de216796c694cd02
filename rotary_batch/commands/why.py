"""`why`: the exact prompt behind a text on a page, what went into it, and what became of the answer.

When an item is answered, its prompt is no longer stored.  It is made again, from the index and from the sources as they
were indexed, and its key tells whether it is the one that was answered.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rotary_batch.commands.groups import SettingsOf, by_engine
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.commands.sources import read_source
from rotary_batch.core import TOPICS_PAGE, Subject, Symbol, Topic, Unit, WorkItem
from rotary_batch.errors import InputError, RepositoryError, RotaryError
from rotary_batch.pages.onboarding import HEADINGS
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import TOPICS_NAME
from rotary_batch.planner.asked import symbol_label
from rotary_batch.planner.contexts import SourceText
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.planner.redacting import Redactor
from rotary_batch.planner.retold import Reteller
from rotary_batch.planner.skipping import reason_to_skip
from rotary_batch.sync import IndexViews
from rotary_batch.work.counts import children, items_of
from rotary_batch.work.drafts import needed_answers, topic_place
from rotary_batch.work.exchange import provenance_of
from rotary_batch.work.rows import Answer, RepositoryRow, StoredResult
from rotary_batch.work.store import WorkStore


def _confidence(result: StoredResult | None) -> float | None:
    """The mean log-probability of an answer; None when another runner did not say it."""
    known = result is not None and result.completion.num_scored > 0
    return round(result.completion.mean_logprob, 4) if result is not None and known else None


def why(store: WorkStore, settings_of: SettingsOf, root: Path, named: str) -> dict[str, Any]:
    """The text of a page, or with `PAGE#symbol` that of one symbol.

    A page is named by its file, or by the source or folder that it is about; a symbol by its name or its heading.
    Raises InputError when there is no such page or symbol, RepositoryError, ModelError.
    """
    (row,) = select_repositories(store, [root])
    failed: list[Any] = []
    groups = by_engine([row], settings_of, failed)
    if failed:
        raise RepositoryError(str(failed[0]))
    prompt_builder = load_prompt_builder(groups[0].settings, groups[0].pack)
    return _Why(store, row, prompt_builder, IndexViews(store).of(row)).answer(named)


class _Why:
    """The answers about one repository."""

    def __init__(self, store: WorkStore, row: RepositoryRow, prompt_builder: PromptBuilder, view: IndexView) -> None:
        self._store, self._row, self._prompt_builder, self._view = store, row, prompt_builder, view
        self._things = {page: thing for thing, page in view.paths.items()}

    def answer(self, named: str) -> dict[str, Any]:
        page, _, symbol_name = named.partition("#")
        thing = self._thing(page)
        facts: dict[str, Any] = {
            "page": f"{self._row.docs_dir}/{self._view.paths[thing]}",
            "symbol": None,
            "job": self._prompt_builder.job.name,
            "model": self._row.model_name,
            "numerics": self._prompt_builder.numerics,
        }
        if thing == TOPICS_PAGE:
            topic = self._topic(symbol_name)
            item = self._item(topic.subject)
            facts["symbol"] = topic.value
            facts["not_asked"] = None if item else self._topic_not_asked(topic)
        elif not symbol_name:
            unit = Unit.FILE if not thing.endswith("/") else Unit.DIRECTORY if thing != "/" else Unit.REPOSITORY
            subject = Subject(unit, thing.removesuffix("/"))
            item = self._item(subject)
            facts["not_asked"] = None if item else f"the job {self._row.job} asks nothing about a {unit}"
        else:
            symbol = self._symbol(thing, symbol_name)
            facts["symbol"] = symbol.qualified_name
            item = self._item(symbol.subject) or self._item_around(symbol)
            facts["not_asked"] = None if item else self._not_asked(symbol)
        return facts | {"text": None if item is None else self._text(item)}

    def _thing(self, page: str) -> str:
        """What a page is about."""
        docs = f"{self._row.docs_dir}/"
        plain = page.removeprefix(f"{self._row.root}/").removeprefix("./")
        for path in (plain, plain.removeprefix(docs)):
            for thing in (self._things.get(path, path), f"{path.strip('/')}/"):
                if thing in self._view.paths:
                    return thing
        raise InputError(f"{page}: no such page of {self._row.root}; name a source, a folder or a page in {docs}")

    def _symbol(self, path: str, name: str) -> Symbol:
        arranged = self._view.outline(path)
        for symbol in arranged.sections:
            if name in (symbol.qualified_name, arranged.headings[symbol.id].anchor):
                return symbol
        raise InputError(f"{path}#{name}: no such symbol on this page; its headings are the names to use")

    def _topic(self, name: str) -> Topic:
        """The topic that is named, by its name or its heading; the first one without a name."""
        for topic in Topic:
            if name in {"", topic.value, HEADINGS[topic].lower().replace(" ", "-")}:
                return topic
        raise InputError(f"{TOPICS_NAME}#{name}: no such topic; the topics are {', '.join(Topic)}")

    def _topic_not_asked(self, topic: Topic) -> str:
        topics = self._prompt_builder.job.topics
        if topics is None or topic not in topics.prompts:
            return f"the job {self._row.job} asks nothing about this topic"
        return "the index has no facts on it"

    def _item(self, subject: Subject) -> WorkItem | None:
        return next(iter(items_of(self._store, self._row.id, subject)), None)

    def _item_around(self, symbol: Symbol) -> WorkItem | None:
        """Of a job that asks about chunks: the item on the chunk in which a symbol starts."""
        chunks = self._view.chunks.get(symbol.path, ()) if self._prompt_builder.job.symbol is None else ()
        found = next((one for one in chunks if one.start_byte <= symbol.start_byte < one.end_byte), None)
        return None if found is None else self._item(found.subject)

    def _not_asked(self, symbol: Symbol) -> str:
        asked = self._prompt_builder.job.symbol
        if asked is None:
            return f"the job {self._row.job} asks nothing about its chunk"
        text = self._source_of(symbol.path).text[symbol.start_byte : symbol.end_byte].decode("utf-8", "replace")
        reason = reason_to_skip(symbol, text, self._view.language(symbol.path), asked.skip)
        return reason or "another definition of its name is asked about"

    def _text(self, item: WorkItem) -> dict[str, Any]:
        reteller = Reteller(self._store, self._row.id, self._prompt_builder, self._view, self._source_of)
        result = self._store.result(item.key) if item.key else None
        row = self._store.db.execute(
            "select verdict, shown_text, reasons, reused from item where id = ?", [item.id]
        ).fetchone()
        return {
            "unit": item.subject.unit.value,
            "subject": item.subject.text,
            "state": item.state.value,
            "key": item.key,
            **self._prompt(reteller, item),
            "inputs": list(self._inputs(item)),
            "answer": None if result is None else result.text,
            "mean_logprob": _confidence(result),
            "ended": item.ended,
            "reused": bool(row["reused"]),
            "imported": provenance_of(self._store, item.key).get("imported") if item.key else None,
            "verdict": row["verdict"],
            "reasons": json.loads(row["reasons"]),
            "shown": row["shown_text"],
            "error": item.error,
        }

    def _prompt(self, reteller: Reteller, item: WorkItem) -> dict[str, Any]:
        """The prompt, whether it is the one that was or will be answered, and else why there is none."""
        stored, problem, is_exact = self._store.prompt_ids(item.id), None, True
        ids: Sequence[int] = stored
        if not stored:
            try:
                retold = reteller.prompt(item)
            except RotaryError as error:
                retold, problem = None, str(error)
            ids, is_exact = (retold.prompt_ids, retold.key == item.key) if retold else ((), False)
        if not ids and problem is None:
            problem = "its inputs are not complete yet"
        return {
            "prompt": self._prompt_builder.tokenizer.written(ids) if ids else None,
            "prompt_tokens": len(ids) or None,
            "is_exact": is_exact and bool(ids),
            "no_prompt": problem,
        }

    def _inputs(self, item: WorkItem) -> Iterator[dict[str, Any]]:
        """The answers that it was made from."""
        if item.subject.unit is Unit.TOPIC:
            yield from map(self._input, needed_answers(self._store, self._row.id, topic_place(item.subject)))
            return
        for _, answer in children(self._store, item.id):
            yield self._input(answer)

    def _input(self, answer: Answer) -> dict[str, Any]:
        named = next(
            (one for one in self._view.symbols.get(answer.subject.path, ()) if one.subject == answer.subject), None
        )
        return {
            "unit": answer.subject.unit.value,
            "name": symbol_label(named) if named else answer.subject.text,
            "verdict": None if answer.verdict is None else answer.verdict.value,
            "shown": answer.shown_text,
        }

    def _source_of(self, path: str) -> SourceText:
        file = self._view.sources[path]
        text = Redactor().clean(path, read_source(self._row, file))
        return SourceText(file.language or "text", text)
