"""`jobs`: what there is, its text, and a copy of it to change."""

from __future__ import annotations

import json

import pytest

from rotary_batch.config import bundled
from tests.test_cli import CODE, answer, rotary


def test_every_bundled_job_is_listed_and_shown_as_it_is():
    listed = answer("jobs", "list")
    names = {path.stem for path in bundled("jobs").glob("*.toml")}
    assert {job["name"] for job in listed} == names
    assert len(listed) == len(names)
    assert [job["name"] for job in listed if job["is_default"]] == ["summarize-small"], "of the embedded model"
    for name in names:
        shown = answer("jobs", "show", name)
        assert shown["text"] == (bundled("jobs") / f"{name}.toml").read_text()
        assert shown["prompts"], name
        for stem, text in shown["prompts"].items():
            assert text == (bundled("prompts") / f"{stem}.md").read_text()


def test_a_copy_answers_as_the_job_does_until_it_is_changed(make_repository, tmp_path):
    """Its prompts are its own files, and the bundled jobs stay available."""
    root = make_repository(CODE)
    (first,) = answer("run", root)
    made = answer("jobs", "new", "mine", "--from", "summarize-small", "--to", tmp_path / "own")
    assert {name: (tmp_path / "own" / name).is_dir() for name in made["settings"]} == {"jobs": True, "prompts": True}
    config = tmp_path / "rotary.toml"
    config.write_text("".join(f"{key} = {json.dumps(path)}\n" for key, path in made["settings"].items()))
    (same,) = answer("run", root, "--job", "mine", "--config", config)
    assert (same["reused"], same["revolutions"], same["open"]) == (first["done"], 0, 0)
    assert {job["name"] for job in answer("jobs", "list", "--config", config)} >= {"mine", "summarize"}
    prompt = tmp_path / "own" / "prompts" / "mine-small_file.md"
    prompt.write_text(prompt.read_text().replace("plain sentences", "very plain sentences"))
    (changed,) = answer("run", root, "--config", config)
    assert changed["revolutions"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nothing"], "no job named 'nothing'; the jobs are "),
        (["new", "summarize"], "there is a job summarize already"),
        (["new", "../up"], "'../up' cannot name a job; use up to 40 small letters, digits, - and _"),
        (["new", "mine", "--from", "nothing"], "no job named 'nothing'"),
    ],
)
def test_what_cannot_be_shown_or_copied_is_said_and_nothing_is_written(tmp_path, arguments, message):
    done = rotary("jobs", *arguments, cwd=tmp_path)
    assert done.returncode == 3
    assert message in " ".join(done.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_kept_and_nothing_is_written(tmp_path):
    (tmp_path / "rotary" / "prompts").mkdir(parents=True)
    (tmp_path / "rotary" / "prompts" / "mine-part.md").write_text("own")
    done = rotary("jobs", "new", "mine", cwd=tmp_path)
    assert "mine-part.md exists already" in " ".join(done.stderr.split())
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["mine-part.md"]
