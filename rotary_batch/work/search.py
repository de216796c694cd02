"""Full-text search over symbols, files, folders and answers.

A file and its symbols are entered with the file; triggers (in `schema.py`) enter answers, and remove what is deleted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rotary_batch.core import ParsedFile
from rotary_batch.work.store import WorkStore

MAX_NAME_CHARACTERS = 1000  # of one qualified name; 10,000 classes in each other would take 100 MB
MAX_PROSE_CHARACTERS = 4000  # of one docstring
MAX_WORDS = 32  # of a question
_RUN = re.compile(r"[^\W_]+")
_PART = re.compile(r"\w+")

# Names that are what was typed come first, then those that begin with it, then the best matches.  A definition comes
# before a declaration.  bm25 is negative, and lower is better.
_QUERY = """
  select entry.repository_id, entry.path, entry.start_byte, entry.kind, entry.qualified_name, entry.prose
  from search join search_entry as entry on entry.id = search.rowid
  where search match :match and entry.repository_id in (select value from json_each(:repository_ids))
  order by case
      when :text in (coalesce(entry.name, entry.qualified_name), entry.qualified_name) then 0
      when lower(:text) in (lower(coalesce(entry.name, entry.qualified_name)), lower(entry.qualified_name)) then 1
      when instr(lower(coalesce(entry.name, entry.qualified_name)), lower(:text)) = 1 then 2
      when instr(lower(entry.qualified_name), lower(:text)) = 1 then 3
      else 4 end,
    entry.kind = 'declaration', bm25(search, 8.0, 8.0, 1.0), entry.path, entry.start_byte
  limit :limit"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One entry that matches.  A symbol has its kind, another entry that of its item: chunk, file, directory, ..."""

    repository_id: int
    path: str  # of the file or folder; "" is the repository
    start_byte: int | None  # of a symbol or a chunk
    kind: str
    qualified_name: str  # of a symbol, its last 1,000 characters; the path of a file or folder
    prose: str


def words(text: str) -> list[str]:
    """The words of identifiers: `parseHTTPBody_v2` has parse, HTTP, Body and v2."""
    return [word for run in _RUN.findall(text) for word in _split(run)]


def _split(run: str) -> Iterator[str]:
    start = 0
    for place in range(1, len(run)):
        begins = run[place].isupper() and (not run[place - 1].isupper() or run[place + 1 : place + 2].islower())
        if begins:
            yield run[start:place]
            start = place
    yield run[start:]


def _added_words(name: str) -> str:
    """What the tokenizer does not find in a name: words within camelCase, and snake_case as one word."""
    seen = {run.lower() for run in _RUN.findall(name)}
    added = [*words(name), *(part.replace("_", "") for part in _PART.findall(name))]
    return " ".join(dict.fromkeys(word for word in added if word.lower() not in seen))


def save_entries(store: WorkStore, repository_id: int, one: ParsedFile) -> None:
    """Within a transaction: replace the entries of a file and its symbols."""
    db, path = store.db, one.file.path
    db.execute(
        "delete from search_entry where repository_id = ? and path = ? and item_id is null", [repository_id, path]
    )
    described: list[tuple[int | None, str, str, str, str | None]] = [
        (None, "file", path.rpartition("/")[2], path, one.docstring),
        *((s.start_byte, s.kind, s.name, s.qualified_name, s.docstring) for s in one.symbols),
    ]
    first = db.execute("select coalesce(max(id), 0) + 1 as id from search_entry").fetchone()["id"]
    entries = [
        (number, start, kind, *_names(name, qualified_name), (prose or "")[:MAX_PROSE_CHARACTERS])
        for number, (start, kind, name, qualified_name, prose) in enumerate(described, first)
    ]
    db.executemany(
        """insert into search_entry (repository_id, path, id, start_byte, kind, name, qualified_name, words, prose)
           values (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        [(repository_id, path, *entry) for entry in entries],
    )
    db.executemany(
        "insert into search (rowid, qualified_name, words, prose) values (?, ?, ?, ?)",
        [(entry[0], *entry[4:]) for entry in entries],
    )


def _names(name: str, qualified_name: str) -> tuple[str | None, str, str]:
    """Name (null where it is the qualified one), qualified name, words."""
    end = qualified_name[-MAX_NAME_CHARACTERS:]
    return None if name == end else name[:MAX_NAME_CHARACTERS], end, _added_words(end)


def find(store: WorkStore, text: str, repository_ids: Sequence[int], limit: int) -> list[Hit]:
    """The entries that match all words of a text, or else any of them; the best first.

    Every word may be the beginning of one.  A text without letters and digits matches nothing.
    """
    typed = text.strip()
    terms = [_term(part) for part in _PART.findall(typed)[:MAX_WORDS] if _RUN.search(part)]
    for connective in (" AND ", " OR ") if terms else ():
        rows = store.db.execute(
            _QUERY,
            {
                "match": connective.join(terms),
                "text": typed,
                "repository_ids": json.dumps(list(repository_ids)),
                "limit": limit,
            },
        ).fetchall()
        if rows:
            return [Hit(**dict(row)) for row in rows]
    return []


def _term(part: str) -> str:
    """An FTS5 expression: an identifier as it is, or its words."""
    split = [_quoted(word) for word in words(part)]
    whole = _quoted(part.replace("_", ""))
    return whole if split == [whole] else f"({whole} OR ({' AND '.join(split)}))"


def _quoted(word: str) -> str:
    """The beginning of a word; a single letter stands for itself, as it begins too many."""
    return f'"{word}"*' if len(word) > 1 else f'"{word}"'
