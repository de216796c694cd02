"""Which pages on disk are up to date with the database.

A stamp says what the file of a page looked like when it was last up to date.  Triggers (in `schema.py`) delete the
stamps of pages that show an answer, a file or a repository in the transaction that changes it; so does `forget_file`
with those that link to a file, or to which it links.  So a run that is killed before it writes these pages leaves them
to the next one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping

from rotary_batch.core import FileClass
from rotary_batch.work.namesakes import namesakes
from rotary_batch.work.parts import files_of_parts
from rotary_batch.work.store import WorkStore


def known_stamps(store: WorkStore, repository_id: int) -> dict[str, str]:
    """Thing -> stamp of every page that is up to date."""
    rows = store.db.execute("select thing, stamp from page where repository_id = ?", [repository_id])
    return {row["thing"]: row["stamp"] for row in rows}


def known_stamp(store: WorkStore, repository_id: int, thing: str) -> str | None:
    """The stamp of one page, if it is up to date."""
    query = "select stamp from page where repository_id = ? and thing = ?"
    row = store.db.execute(query, [repository_id, thing]).fetchone()
    return None if row is None else str(row["stamp"])


def num_current(store: WorkStore, repository_ids: Collection[int], without: Collection[str]) -> int:
    """How many pages of some repositories are up to date, without those of some things."""
    row = store.db.execute(
        """select count(*) as n from page where repository_id in (select value from json_each(?))
           and thing not in (select value from json_each(?))""",
        [json.dumps(list(repository_ids)), json.dumps(list(without))],
    ).fetchone()
    return int(row["n"])


def save_stamps(store: WorkStore, repository_id: int, stamps: Mapping[str, str], stale: Collection[str] = ()) -> None:
    """Record that pages are up to date, and that others may not be because of them."""
    with store.transaction():
        store.db.executemany(
            "insert or replace into page (repository_id, thing, stamp) values (?, ?, ?)",
            [(repository_id, thing, stamp) for thing, stamp in stamps.items()],
        )
        store.db.executemany(
            "delete from page where repository_id = ? and thing = ?", [(repository_id, thing) for thing in stale]
        )


def written_digests(store: WorkStore, repository_id: int, things: Collection[str]) -> dict[str, str]:
    """Thing -> digest of the page that this database wrote of it last."""
    rows = store.db.execute(
        """select thing, digest from written_page
           where repository_id = ? and thing in (select value from json_each(?))""",
        [repository_id, json.dumps(list(things))],
    )
    return {row["thing"]: row["digest"] for row in rows}


def save_digests(store: WorkStore, repository_id: int, digests: Mapping[str, str]) -> None:
    """Record which pages this database wrote."""
    with store.transaction():
        store.db.executemany(
            "insert or replace into written_page (repository_id, thing, digest) values (?, ?, ?)",
            [(repository_id, thing, digest) for thing, digest in digests.items()],
        )


def source_paths(store: WorkStore, repository_id: int) -> list[str]:
    """The files that have pages."""
    rows = store.db.execute(
        "select path from file where repository_id = ? and class = ? order by path", [repository_id, FileClass.SOURCE]
    )
    return [row["path"] for row in rows]


def unreadable_paths(store: WorkStore, repository_id: int) -> set[str]:
    """The files and folders that could not be read."""
    query = "select path from file where repository_id = ? and class = ?"
    return {row["path"] for row in store.db.execute(query, [repository_id, FileClass.UNREADABLE])}


_IS_SHOWN = """
  select 1 from file where repository_id = :id and path = :path and class = :source
    and exists (select 1 from page where repository_id = :id)"""
# The files whose pages name symbols of a file, or show the comments of its declarations; see `declared.py`.
_LINKED = """
  select callee_path from call where repository_id = :id and path = :path
  union select path from call where repository_id = :id and callee_path = :path
  union select base_path from inheritance where repository_id = :id and path = :path
  union select path from inheritance where repository_id = :id and base_path = :path"""
_DECLARED = """
  select distinct other.path from
    (select distinct name, qualified_name from symbol
     where repository_id = :id and path = :path and kind = 'declaration' and docstring is not null) as declared
  join symbol as other on other.repository_id = :id and other.name = declared.name
    and other.qualified_name = declared.qualified_name"""


_LANGUAGE = "select language from file where repository_id = :id and path = :path"


def has_stamps(store: WorkStore, repository_id: int) -> bool:
    """Whether any page is up to date."""
    row = store.db.execute("select 1 from page where repository_id = ? limit 1", [repository_id]).fetchone()
    return row is not None


def forget_all(store: WorkStore, repository_id: int) -> None:
    """Within a transaction: no page is up to date."""
    store.db.execute("delete from page where repository_id = ?", [repository_id])


def forget_file(store: WorkStore, repository_id: int, path: str) -> None:
    """Within a transaction, before a file changes and after it is resolved: forget the pages that show something of it.

    They are its own, those of the folders above it and of what it may speak for, and those that are linked with it.
    Pages show nothing of a file that is not a source.
    """
    given = {"id": repository_id, "path": path, "source": FileClass.SOURCE}
    if not store.db.execute(_IS_SHOWN, given).fetchone():
        return
    linked = {row[0] for row in store.db.execute(_LINKED, given)}
    (language,) = store.db.execute(_LANGUAGE, given).fetchone()
    if language in {"c", "cpp"}:
        linked |= namesakes(store, repository_id, path)  # `linkage.py` says which of them
    elif language == "c_sharp":
        linked |= files_of_parts(store, repository_id, path)
    described = {row[0] for row in store.db.execute(_DECLARED, given)}  # the folder lists them with these words
    forget(store, repository_id, linked, {path, *described})


def forget(store: WorkStore, repository_id: int, pages: Collection[str], listed: Collection[str]) -> None:
    """Within a transaction: forget the pages of files, and what is above those in `listed`."""
    packages = {f"{path.removesuffix('.rs')}/" for path in listed if path.endswith(".rs")}  # for which it speaks
    store.db.executemany(
        "delete from page where repository_id = ? and thing = ?",
        [(repository_id, thing) for thing in {"/", *pages, *listed, *_above(listed), *packages}],
    )


def forget_symbol_index(store: WorkStore, repository_id: int, letters: Iterable[str]) -> None:
    """Within a transaction: its first page, and those of some letters, are out of date."""
    patterns = ["/symbol-index.md", *(f"/symbol-index-{letter}-*" for letter in letters)]
    store.db.executemany(
        "delete from page where repository_id = ? and thing glob ?", [(repository_id, one) for one in patterns]
    )


def forget_list(store: WorkStore, repository_id: int) -> None:
    """Within a transaction: llms.txt, which has the summary of every file, is out of date."""
    store.db.execute("delete from page where repository_id = ? and thing = '/llms.txt'", [repository_id])


def _above(paths: Collection[str]) -> set[str]:
    things: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and f"{folder}/" not in things:
            things.add(f"{folder}/")
            folder = folder.rpartition("/")[0]
    return things
