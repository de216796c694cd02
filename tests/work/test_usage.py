"""How the parts of a repository use each other."""

from __future__ import annotations

from rotary_batch.core import Call, SymbolId
from rotary_batch.work.graph import save_calls
from rotary_batch.work.usage import FolderUses, most_used_files
from tests.test_sync import Place


def test_each_call_counts_in_the_deepest_folder_that_holds_both_files(tmp_path):
    place = Place(tmp_path)
    pairs = [
        ("a.py", "pkg/b.py"),
        ("pkg/b.py", "pkg/c.py"),
        ("pkg/b.py", "pkg/deep/d.py"),
        ("pkg/c.py", "pkg/deep/d.py"),
        ("pkg/c.py", "pkg/c.py"),
        ("pkg/deep/d.py", "a.py"),
    ]
    with place.store.transaction():
        save_calls(
            place.store,
            place.row.id,
            [Call(SymbolId(user, start), SymbolId(used, 0)) for user, used in pairs for start in (0, 5)],
            None,
            set(),
        )
    uses = FolderUses(place.store, place.row.id, ["", "pkg", "pkg/deep"])
    assert dict(uses) == {
        "": {("a.py", "pkg"): 2, ("pkg", "a.py"): 2},
        "pkg": {("b.py", "c.py"): 2, ("b.py", "deep"): 2, ("c.py", "deep"): 2},
        "pkg/deep": {},
    }
    assert most_used_files(place.store, place.row.id, 2) == ["pkg/deep/d.py", "a.py"]
    place.store.db.close()
