"""The text of a subject, which is what the database has, is read back as the same subject."""

from __future__ import annotations

import pytest

from rotary_batch.core import Subject, Topic, Unit


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        (Subject(Unit.CHUNK, "pkg/a.py", span=(0, 26)), "pkg/a.py@0-26"),
        (Subject(Unit.CHUNK, "a@1-2.py", span=(3, 4)), "a@1-2.py@3-4"),
        (Subject(Unit.FILE, "a@1-2"), "a@1-2"),
        (Subject(Unit.FILE, "a.py#1"), "a.py#1"),
        (Subject(Unit.FILE, "a.py", part=12), "a.py#12"),
        (Subject(Unit.DIRECTORY, "pkg"), "pkg"),
        (Subject(Unit.REPOSITORY, ""), ""),
        (Subject(Unit.REPOSITORY, "", part=1), "#1"),
        (Topic.BUILD.subject, "/onboarding.md#4"),
    ],
)
def test_a_subject_is_read_back_from_its_text(subject, text):
    assert subject.identity == (subject.unit, text)
    assert Subject.parse(subject.unit.value, subject.path, text) == subject
