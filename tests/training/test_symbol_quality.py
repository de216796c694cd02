"""The report on held-out symbols: scores, thresholds, and the page that keeps its second part."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from training.quality.symbols import report
from training.quality.symbols.asking import Answered, ticked
from training.quality.symbols.scores import first_comment, loops, said, score, shown, split_name, threshold_of


def answered(number: int, **changes: object) -> Answered:
    author = f"Counts the boxes in row {number} of `table`."
    given: dict[str, object] = {
        "package": "boxes",
        "language": "go" if number % 2 else "python",
        "path": "a.go",
        "name": f"Table.countBoxes{number}",
        "author": author,
        "code": "func (t Table) countBoxes() int {\n\t// Walks all rows.\n\treturn 1\n}",
        "text": author,
        "shown_text": author,
        "mean_logprob": -0.1,
        "ended": "stop",
        "reasons": (),
        "unknown": (),
    }
    return Answered(**given | changes)  # type: ignore[arg-type]


def wrong(number: int) -> Answered:
    text = "Nothing `that` helps."
    return answered(number, text=text, shown_text=None, unknown=("that",), ended="loop", mean_logprob=-3.0)


def test_what_is_like_the_author_scores_one_and_what_is_not_scores_nothing() -> None:
    one = score([answered(1), wrong(2)], said)
    assert one == (2, 0.5, 0.5, 2, 0.5, 0.5)
    assert score([], said) == (0, 0.0, 0.0, 0, 0.0, 0.0)


def test_writers_without_a_model() -> None:
    assert split_name(answered(1)) == "Count boxes 1."
    assert first_comment(answered(1)) == "Walks all rows."
    assert first_comment(answered(1, code="func f() {}")) == "Count boxes 1."
    assert ticked("Returns `a.b_c` of `d`, not e.") == ["a", "b_c", "d"]


def test_the_threshold_keeps_what_is_like_the_author() -> None:
    answers = [answered(n, mean_logprob=-0.1) for n in range(100)]
    answers += [answered(n, shown_text="Says another thing of it.", mean_logprob=-2.0) for n in range(100, 400)]
    threshold = threshold_of(answers)
    assert -2.0 < threshold <= -0.1
    assert shown(answers, threshold) == answers[:100]
    assert threshold_of([wrong(n) for n in range(100)]) == -math.inf


def test_loops_are_counted() -> None:
    repeats = answered(3, reasons=("repeats itself",))
    assert loops([answered(1), wrong(2), repeats, answered(4)]) == 0.5


def test_the_page_has_the_new_part_in_front_of_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, read = tmp_path / "quality.md", tmp_path / "read.json"
    page.write_text(f"# Something before\n\n{report.OLD_TITLE}\n\nAs it was.\n")
    read.write_text(
        json.dumps([{"key": "a", "says": "Is | so.", "author": "b", "code": "", "right": n > 0} for n in range(4)])
    )
    monkeypatch.setattr(report, "READ", read)
    answers = {"tuned": [answered(n) for n in range(80)], "small": [wrong(n) for n in range(40)]}
    report.write(answers, page)
    text = page.read_text()
    assert text.startswith(report.TITLE)
    assert text.endswith(f"\n{report.OLD_TITLE}\n\nAs it was.\n")
    assert "Something before" not in text
    assert "| tuned | 80 | 1.000 | 100.0% | 80 | 100.0% | 0.0% |" in text
    assert "| small | 40 | 0.000 | 0.0% | 40 | 0.0% | 100.0% |" in text
    assert "3 are right, 75.0%" in " ".join(text.split())
    assert "| a | Is \\| so. | b |" in text
    report.write(answers, page)
    assert page.read_text() == text
