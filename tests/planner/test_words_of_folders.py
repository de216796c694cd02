"""A README speaks for its folder, and a change of it reaches the pages and questions that it is in, and no others."""

from __future__ import annotations

import pytest

from rotary_batch.commands.database import writing
from rotary_batch.config import Settings
from rotary_batch.pages.package_words import speakers_of_folder
from rotary_batch.work.page_stamps import known_stamps
from tests.in_process import index_all
from tests.planner.test_interrupted_index import _in_this_process, pages  # noqa: F401 - a fixture

BADGES = "# Shop\n\n[![build](https://x.example/b.svg)](https://x.example)\n\n<p align=center>\n</p>\n\n"
FILES = {
    "README.md": BADGES + "Sells frobs by the dozen.\n\n## Install\n\nRun it.\n",
    "pkg/a.py": "def f(): pass\n",
    "pkg/README.rst": "Packing\n=======\n\nPacks all frobs.\n",
    "pkg/inner/b.py": "def g(): pass\n",
    "store/kv.go": "// Package store keeps frobs.\npackage store\n",
    "store/README.md": "Not read.\n",
    "lib/c.py": "def h(): pass\n",
}


@pytest.fixture
def settings(tmp_path):
    return Settings(db=tmp_path / "work.db", worktree=True)


def test_a_readme_speaks_for_its_folder_unless_the_package_does(make_repository, settings):
    root = make_repository(FILES)
    with writing(settings) as store:
        index_all(store, settings, root)
        written = {path: data.decode() for path, data in pages(root).items()}
        assert "Sells frobs by the dozen." in written["index.md"]
        assert "Run it." not in written["index.md"]
        assert "| [`pkg/`](pkg/index.md) | Packs all frobs. |" in written["index.md"]
        assert "| [`store/`](store/index.md) | Package store keeps frobs. |" in written["index.md"]
        assert "Packs all frobs." in written["pkg/index.md"]
        assert "> Sells frobs by the dozen." in written["llms.txt"]

        before = known_stamps(store, 1)
        (root / "pkg" / "README.rst").write_text("Wraps all frobs.\n")
        index_all(store, settings, root)
        rewritten = {path for path, data in pages(root).items() if data.decode() != written.get(path)}
        assert rewritten == {"index.md", "llms-full.txt", "onboarding.md", "pkg/index.md"}
        kept = {thing for thing, stamp in known_stamps(store, 1).items() if before.get(thing) == stamp}
        assert {"lib/", "lib/c.py", "pkg/a.py", "store/"} <= kept

        (root / "pkg" / "README.rst").unlink()
        index_all(store, settings, root)
        assert "| [`pkg/`](pkg/index.md) | Holds `a.py` and `inner`. |" in pages(root)["index.md"].decode()
        (outcome,) = index_all(store, settings, root)
        assert (outcome.indexed.parsed, outcome.indexed.counts.queued) == (0, 0)


@pytest.mark.parametrize(
    ("folder", "docstrings", "expected"),
    [
        ("p", {"p/__init__.py": "A.", "p/README.md": "B."}, "A."),
        ("p", {"p/index.ts": "A.", "p/x.ts": "C."}, "A."),
        ("p", {"p/package-info.java": "A."}, "A."),
        ("p", {"p/lib.rs": "A."}, "A."),
        ("p", {"p.rs": "A."}, "A."),
        ("p", {"p/x.go": "Package p counts.", "p/y.go": "Helpers."}, "Package p counts."),
        ("p", {"p/doc.go": "Package p is.", "p/a.go": "Package p counts."}, "Package p is."),
        ("p", {"p/Readme.txt": "B.", "p/x.py": "C."}, "B."),
        ("p", {"p/x.py": "C."}, None),
        ("", {"README": "B.", "__init__.py": "A."}, "B."),
        ("", {"lib.rs": "A."}, "A."),
    ],
)
def test_which_words_speak_for_a_folder(folder, docstrings, expected):
    files = [path for path in docstrings if not path.endswith((".md", ".txt", "README"))]
    speakers = speakers_of_folder(folder, files, docstrings)
    assert (docstrings[speakers[0]] if speakers else None) == expected
