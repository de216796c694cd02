"""What is asked for each file is answered from that file's rows, however many files there are."""

from __future__ import annotations

import re
from collections import Counter

from rotary_batch.commands.database import writing
from rotary_batch.config import Settings
from tests.in_process import index_all

NUM_FILES = 40
HEADER = "int add(int a, int b);\nstruct pair { int first; };\n"
SOURCE = (
    '#include "f{0}.h"\nint add{0}(int a) {{ return helper{0}(a); }}\nstatic int helper{0}(int a) {{ return a; }}\n'
)
PYTHON = "from pkg.m{1} import f{1}\n\n\nclass C{0}:\n    def f(self):\n        return f{1}()\n\n\ndef f{0}():\n    return C{0}().f()\n"


def tree():
    files = {"README.md": "Adds numbers."}
    for number in range(NUM_FILES):
        files[f"f{number}.h"] = HEADER.replace("add", f"add{number}")
        files[f"f{number}.c"] = SOURCE.format(number)
        files[f"pkg/m{number}.py"] = PYTHON.format(number, (number + 1) % NUM_FILES)
    return files


def statements_of(store, work) -> dict[str, tuple[int, str]]:
    """Statement without its values -> how often it ran, and one example with them."""
    counts, examples = Counter(), {}

    def note(text: str) -> None:
        form = re.sub(r"'(?:[^']|'')*'|\b\d+\b", "?", text)
        counts[form] += 1
        examples[form] = text

    store.db.set_trace_callback(note)
    work()
    store.db.set_trace_callback(None)
    return {form: (number, examples[form]) for form, number in counts.items()}


def test_no_statement_for_each_file_reads_the_whole_repository(tmp_path, make_repository):
    root = make_repository(tree())
    with writing(Settings(db=tmp_path / "work.db")) as store:
        asked = statements_of(store, lambda: index_all(store, Settings(), root))
        assert slow_ones(store, asked) == {}


def slow_ones(store, asked) -> dict[str, list[str]]:
    often = {form: text for form, (number, text) in asked.items() if number >= NUM_FILES // 2}
    often = {form: text for form, text in often.items() if re.match(r"\s*(select|insert|update|delete|with)\b", text)}
    assert len(often) > 10
    slow = {}
    for form, text in often.items():
        steps = [row["detail"] for row in store.db.execute(f"explain query plan {text}")]
        # Whether there is any page at all is answered by the first row.
        # `other` is a subquery with a limit
        whole = [
            step for step in steps if re.search(r"^(?!SEARCH page).*\(repository_id=\?\)$|^SCAN (?!other$)\w+$", step)
        ]
        if whole:
            slow[form] = whole
    return slow
