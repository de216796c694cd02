"""`why`: the prompt that is made again is the one that was answered, of every text of every job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rotary_batch.cli import app
from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.database import reading, writing
from rotary_batch.commands.why import why
from rotary_batch.config import Settings
from rotary_batch.errors import InputError
from rotary_batch.work.counts import items
from tests.in_process import drain_all, index_all
from tests.planner.test_contexts import CODE, MarkingEngine, settings  # noqa: F401 - a fixture


def told(settings: Settings, root: Path, *pages: str) -> list[dict]:  # noqa: F811
    with reading(settings) as store:
        return [why(store, lambda row: RepositorySettings(Path(row.root), settings), root, page) for page in pages]


@pytest.mark.parametrize("job", ["summarize", "summarize-small"])
def test_every_prompt_is_made_again_as_it_was_answered(make_repository, settings, job):  # noqa: F811
    root = make_repository(CODE)
    settings = Settings(model=settings.model, db=settings.db, job=job)
    with writing(settings) as store:
        index_all(store, settings, root)
        engine = MarkingEngine(Path(str(settings.model)))
        drain_all(store, settings, [root], lambda: engine)
        keys = {item["key"] for item in items(store, 1)}
    asked = [path for path in CODE if job == "summarize-small" or path != "shop/told.py"]
    pages = ["index.md", "shop", *CODE, *(f"{path}#{Path(path).stem}" for path in asked)]
    answers = told(settings, root, *pages)
    assert {answer["text"]["key"] for answer in answers} == keys
    assert [answer["page"] for answer in answers if not answer["text"]["is_exact"]] == []
    assert all(answer["text"]["prompt"] for answer in answers)
    if job == "summarize":
        (middle,) = (answer["text"] for answer in answers if answer["symbol"] == "middle")
        assert "Uses `def base(x)`: Does base red." in middle["prompt"]
        assert (middle["verdict"], middle["answer"], middle["ended"]) == ("shown", "Does middle blue.", "stop")


def test_before_an_answer_the_stored_prompt_is_shown_and_what_is_not_asked_says_why(make_repository, settings):  # noqa: F811
    root = make_repository(CODE)
    with writing(settings) as store:
        index_all(store, settings, root)
    ready, waiting, documented = told(
        settings, root, "rotary-docs/shop/base.py.md#base", "shop/top.py#top", "shop/told.py#told"
    )
    assert (ready["text"]["is_exact"], ready["text"]["state"], ready["text"]["answer"]) == (True, "ready", None)
    assert ready["text"]["prompt"].endswith("`base`:")
    assert (waiting["text"]["state"], waiting["text"]["is_exact"]) == ("waiting", False)
    assert (documented["text"], documented["not_asked"]) == (None, "its author says what it does (documented)")
    assert json.dumps([ready, waiting, documented])
    for page in ("shop/gone.py", "shop/base.py#gone", "shop#base"):
        with pytest.raises(InputError, match=r"gone|shop/#base"):
            told(settings, root, page)


def test_the_path_of_a_page_is_enough_from_any_folder(make_repository, tmp_path, monkeypatch):
    root = make_repository(CODE)
    page = root / "rotary-docs" / "shop" / "base.py.md"
    assert CliRunner().invoke(app, ["index", str(root)]).exit_code == 0
    for folder, named in (
        (tmp_path, page),
        (root.parent, page.relative_to(root.parent)),
        (root, page.relative_to(root)),
    ):
        monkeypatch.chdir(folder)
        found = CliRunner().invoke(app, ["why", f"{named}#base", "--json"])
        assert (found.exit_code, json.loads(found.stdout)["symbol"]) == (0, "base"), found.output
