"""Prose and settings: pages by their structure, and no question to a model unless a job names their language."""

from __future__ import annotations

from rotary_batch.commands.database import writing
from rotary_batch.config import Settings
from rotary_batch.core import FileClass
from rotary_batch.repo.files import MAX_DATA_NBYTES, classify
from rotary_batch.repo.git import open_repository
from tests.in_process import index_all

FILES = {
    "a.py": "def f(rows):\n    row = rows.pop()\n    return row + 1\n",
    "ci.yml": "token: hunter2\njobs:\n  a: 1\n",
    "guide.md": "# Guide\n\nHow.\n",
}


def test_prose_and_settings_have_pages_and_no_items(make_repository, tiny_pack, tmp_path):
    root = make_repository(FILES)
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    with writing(settings) as store:
        (outcome,), (again,) = index_all(store, settings, root), index_all(store, settings, root)
    pages = {path.name: path.read_text() for path in (root / "rotary-docs").glob("*.md")}
    assert outcome.indexed.counts.queued == len(["symbol of a.py", "file a.py", "repository"])
    assert {"a.py.md", "ci.yml.md", "guide.md.md"} < pages.keys()
    assert "jobs" in pages["ci.yml.md"]
    assert not any("hunter2" in page for page in pages.values()), "values of settings may be passwords"
    assert again.indexed.parsed == 0


def test_large_data_is_not_a_source(make_repository):
    root = make_repository({"rows.json": '{"a": "' + "x" * MAX_DATA_NBYTES + '"}', "package-lock.json": "{}"})
    classes = {file.path: file.file_class for file in classify(open_repository(root), docs_dir="docs")}
    assert classes == {"rows.json": FileClass.OVERSIZED, "package-lock.json": FileClass.GENERATED}
