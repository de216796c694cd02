"""Another runner can do a part of the work: `export` writes requests, `import` takes results as if they were ours."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rotary_batch import jsonl
from rotary_batch.commands import export_jsonl
from rotary_batch.commands.answer_rows import MAX_LINE_NBYTES
from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.database import reading, writing
from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.commands.engines import engine_options, open_engine
from rotary_batch.commands.generate import generate
from rotary_batch.commands.import_answers import Imported, ImportRequest, import_answers
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.commands.requests import Accepted, read_requests
from rotary_batch.config import Settings
from rotary_batch.errors import InputError, StoppedError
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.testing import FakeEngine
from rotary_batch.window import Window
from rotary_batch.work.exchange import open_prompts, provenance_of
from rotary_batch.work.store import WorkStore
from tests.in_process import drain_all, index_all

FILES = {
    "app/sums.py": "def total(items):\n    return sum(items)\n\n\ndef mean(items):\n    return total(items) / len(items)\n",
    "app/names.py": "def initials(name):\n    return ''.join(word[0] for word in name.split())\n",
    "main.py": "from app.sums import mean\n\nprint(mean([1, 2]))\n",
}
MANY = {f"m{n}.py": "".join(f"def f{n}_{i}(x):\n    return x + {i}\n\n\n" for i in range(3)) for n in range(6)}
SETTINGS = Settings()
WHOLE = {"mean_logprob": -0.1, "finish_reason": "stop"}


def sorted_rows(path: Path) -> list[dict[str, Any]]:
    return sorted((json.loads(line) for line in path.read_text().splitlines()), key=lambda row: row["custom_id"])


def write_rows(path: Path, *rows: dict[str, Any] | bytes) -> Path:
    path.write_bytes(b"".join(row if isinstance(row, bytes) else jsonl.dump_line(row) for row in rows))
    return path


def completion(custom_id: str, text: str, /, **choice: Any) -> dict[str, Any]:
    """A result as servers of completions give it."""
    body = {"model": "served", "choices": [{"index": 0, "text": text, **WHOLE, **choice}]}
    return {"id": "r", "custom_id": custom_id, "response": {"status_code": 200, "body": body}, "error": None}


def exported(store: WorkStore, path: Path, shards: int = 1) -> list[Path]:
    return [Path(one["file"]) for one in export_jsonl.export_requests(store, path, [], 0o600, shards)["files"]]


def imported(store: WorkStore, *paths: Path, settings: Settings = SETTINGS, window: Window | None = None) -> Imported:
    request = ImportRequest(
        store=store,
        settings_of=lambda row: RepositorySettings(Path(row.root), settings),
        window=window or Window(),
    )
    return import_answers(request, select_repositories(store, []), paths)


def keys(store: WorkStore) -> list[str]:
    (row,) = select_repositories(store, [])
    return [one.key for one in open_prompts(store, row.id)]


def all_rows(store: WorkStore) -> dict[str, list[tuple[object, ...]]]:
    return {
        table: [tuple(row) for row in store.db.execute(f"select * from {table} order by 1")]
        for table in ("item", "result", "prompt", "partial")
    }


def pages(root: Path) -> dict[str, bytes]:
    docs = root / "rotary-docs"
    return {str(path.relative_to(docs)): path.read_bytes() for path in docs.rglob("*") if path.is_file()}


@pytest.fixture
def store(make_repository, tmp_path) -> Iterator[WorkStore]:
    """A database in which one repository is indexed with the embedded model."""
    with writing(Settings(db=tmp_path / "work.db")) as one:
        index_all(one, SETTINGS, make_repository(FILES))
        yield one


@pytest.fixture
def other_store(tmp_path, store) -> Iterator[Callable[[Path], WorkStore]]:
    """Another database, in which the same repository is indexed."""
    with ExitStack() as stack:

        def make(root: Path) -> WorkStore:
            one = stack.enter_context(writing(Settings(db=tmp_path / "other.db")))
            index_all(one, SETTINGS, root)
            return one

        yield make


def test_other_runners_answers_make_the_pages_that_our_own_run_makes(make_repository, tmp_path):
    """Every round asks what the last one made known: the chunk, the file, the repository."""
    root, tokenizer = make_repository({"a.py": FILES["app/sums.py"]}), Tokenizer.load(EMBEDDED)
    engine = open_engine(EMBEDDED, engine_options(SETTINGS))
    engine.close, closing = lambda: None, engine.close  # one for all rounds
    number, requests, states, written = 0, tmp_path / "requests.jsonl", [], []
    for name in ("theirs.db", "ours.db"):
        with writing(Settings(db=tmp_path / name)) as store:
            index_all(store, SETTINGS, root)
            while name == "theirs.db" and (files := exported(store, requests)):
                number += 1
                results = tmp_path / f"results-{number}.jsonl"
                _, failed = generate(files[0], results, tokenizer, lambda: engine, lambda *_: None)
                done = imported(store, results)
                assert (failed, done.stored, done.num_failed, done.unknown) == (0, done.rows, 0, 0)
            if name == "ours.db":
                drain_all(store, SETTINGS, [], lambda: engine)
            written.append(pages(root))
            of_item = "select unit, subject, state, key, verdict, shown_text, reasons from item order by 1, 2"
            of_result = "select key, text, reason, num_scored from result order by 1"
            states.append([[tuple(row) for row in store.db.execute(query)] for query in (of_item, of_result)])
    closing()
    assert (number, done.asked_now, done.open) == (3, 0, 0)
    assert written[0] == written[1]
    assert states[0][0] == states[1][0]
    assert [row[:3] for row in states[0][1]] == [row[:3] for row in states[1][1]]


def test_exported_answers_bring_another_database_to_the_same_state(store, other_store, tmp_path):
    """In one import, roll-ups included: their prompts are made as what they tell of is answered."""
    root, answers = tmp_path / "project", tmp_path / "answers.jsonl"
    drain_all(store, SETTINGS, [], FakeEngine)
    before = pages(root)
    export_jsonl.export_answers(store, answers, [], 0o644)
    done = imported(other := other_store(root), answers)
    assert (done.rows, done.stored, done.completed, done.open) == (len(sorted_rows(answers)), done.rows, done.rows, 0)
    assert pages(root) == before
    again = tmp_path / "again.jsonl"
    export_jsonl.export_answers(other, again, [], 0o644)
    # The fake engine's tokens are random bytes, whose text has other tokens.
    choices = [[row["response"]["body"]["choices"] for row in sorted_rows(path)] for path in (again, answers)]
    assert choices[0] == choices[1]
    once_more = imported(other, answers)
    assert (once_more.stored, once_more.known, once_more.completed) == (0, done.rows, 0)


def test_requests_are_the_prompts_of_the_queue_in_the_form_of_openai(store, tmp_path):
    (path,) = exported(store, tmp_path / "requests.jsonl")
    rows, (row,) = sorted_rows(path), select_repositories(store, [])
    assert {one["custom_id"] for one in rows} == set(keys(store))
    prompts = {one.key: one for one in open_prompts(store, row.id)}
    for one in rows:
        prompt = prompts[one["custom_id"]]
        assert one == {
            "custom_id": prompt.key,
            "method": "POST",
            "url": "/v1/completions",
            "body": {
                "model": "rotary-demo",
                "prompt": list(store.prompt_ids(prompt.item_id)),
                "max_tokens": prompt.max_new_tokens,
                "temperature": 0,
                "logprobs": 1,
            },
        }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with path.open("rb") as file:  # what `generate` reads is the same prompt
        read = list(read_requests(path, file, Tokenizer.load(EMBEDDED), lambda _: False))
    assert {one.custom_id: list(one.request.prompt_ids) for one in read if isinstance(one, Accepted)} == {
        one["custom_id"]: one["body"]["prompt"] for one in rows
    }


def test_shards_have_every_request_once_and_share_the_work(make_repository, tiny_pack, tmp_path):
    """Prompts of one chunk, which begin alike, are in one file, one after the other."""
    settings = Settings(model=tiny_pack, job="summarize", db=tmp_path / "work.db")
    with writing(settings) as store:
        index_all(store, settings, make_repository(MANY))
        (whole,) = exported(store, tmp_path / "all.jsonl")
        shards = exported(store, tmp_path / "part.jsonl", shards=3)
        (row,) = select_repositories(store, [])
        siblings = {one.key: one.siblings for one in open_prompts(store, row.id)}
    assert [path.name for path in shards] == [f"part-{n}-of-3.jsonl" for n in (1, 2, 3)]
    parts = [[json.loads(line) for line in path.read_text().splitlines()] for path in shards]
    together = sorted((one for part in parts for one in part), key=lambda one: one["custom_id"])
    assert together == sorted_rows(whole)
    tokens = [sum(len(one["body"]["prompt"]) for one in part) for part in parts]
    assert max(tokens) - min(tokens) <= max(tokens) // 2
    runs = [[siblings[one["custom_id"]] for one in part] for part in parts]
    changes = [sum(one != other for one, other in pairwise(run)) + 1 for run in runs]
    assert (sum(changes), None in siblings.values()) == (6, False)


def test_an_export_replaces_only_an_earlier_one_of_its_kind(store, tmp_path):
    drain_all(store, SETTINGS, [], FakeEngine, Window(max_items=1))
    requests, answers = tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
    for _ in range(2):
        exported(store, requests)
        export_jsonl.export_answers(store, answers, [], 0o600)
    (tmp_path / "link.jsonl").symlink_to(requests)
    results = write_rows(tmp_path / "results.jsonl", completion(keys(store)[0], "Adds."))
    for path in (answers, results, tmp_path / "link.jsonl"):
        before = path.read_bytes()
        with pytest.raises(InputError, match="is no earlier export of this kind"):
            exported(store, path)
        assert path.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# Lines of a file of results, and the fact that refuses it.  %s is a key that is asked.
REFUSED = {
    "no JSON": ([b"hello\n"], ":1: not JSON"),
    "no id": ([b'{"response": {}}\n'], ":1: needs a custom_id"),
    "neither response nor error": ([b'{"custom_id": "%s"}\n'], ":1: needs a response with a body, or an error"),
    "a request": ([b'{"custom_id": "%s", "method": "POST", "body": {"prompt": "x"}}\n'], ":1: needs a response"),
    "no choices": ([b'{"custom_id": "%s", "response": {"body": {}}}\n'], ":1: response.body: needs choices"),
    "a key twice": ([b'{"custom_id": "a", "custom_id": "%s"}\n'], "appears twice"),
    "a long line": ([b'{"custom_id": "' + b"x" * MAX_LINE_NBYTES + b'"}\n'], ":1: a line of over 8,388,608 bytes"),
    "100,000 deep": ([b"[" * 100_000 + b"\n"], ":1: nested too deeply"),
    "an error 900 deep": ([b'{"custom_id": "a", "error": ' + b"[" * 900 + b"]" * 900 + b"}\n", b"x\n"], ":2: not JSON"),
    "nothing": ([], "no results in it"),
    "empty lines": ([b"\n \n"], "no results in it"),
    "cut in its only line": ([b'{"custom_id": "%s", "respo'], "no results in it"),
    "cut, and not JSON": ([b"hello"], ":1: not JSON"),
    "a number cut": ([b'{"custom_id": "%s", "error": 1}}'], ":1: not JSON"),
}


@pytest.mark.parametrize(("lines", "fact"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_holds_anything_but_results_is_refused_as_a_whole(lines, fact, store, tmp_path):
    key = keys(store)[0].encode()
    good = write_rows(tmp_path / "good.jsonl", completion(keys(store)[1], "Adds."))
    bad = write_rows(tmp_path / "bad.jsonl", *(line.replace(b"%s", key) for line in lines))
    before = all_rows(store)
    with pytest.raises(InputError, match=re.escape(f"{bad}")) as refused:
        imported(store, good, bad) if ":" in fact else imported(store, bad)
    assert fact in str(refused.value)
    assert str(refused.value).endswith("nothing was imported")
    assert all_rows(store) == before


def test_an_id_that_appears_twice_is_refused_and_both_places_are_named(store, tmp_path):
    key = keys(store)[0]
    one = write_rows(tmp_path / "one.jsonl", completion(keys(store)[1], "B."), completion(key, "A."))
    for second in (one, write_rows(tmp_path / "two.jsonl", b"\n", completion(key, "A."))):
        before = all_rows(store)
        with pytest.raises(InputError, match=r"custom_id '[0-9a-f]{64}' is in .*one.jsonl:[12] too"):
            imported(store, one, second)
        assert all_rows(store) == before


def test_results_that_are_about_nothing_asked_are_no_success(store, tmp_path):
    path = write_rows(tmp_path / "other.jsonl", completion("f" * 64, "Adds."))
    with pytest.raises(InputError, match="none of its 1 results is about what is asked here"):
        imported(store, path)


def test_what_there_is_of_a_broken_batch_is_taken(store, tmp_path):
    """A runner that was killed in a line, errors, an expired batch: the answers count, the rest stays in the queue."""
    key, *others = keys(store)
    rows = [
        completion(key, " Adds the items."),
        {"custom_id": others[0], "response": None, "error": {"code": "batch_expired", "message": "too late"}},
        {"custom_id": others[1], "response": {"status_code": 500, "body": {"error": {"message": "no memory"}}}},
        completion("0" * 64, "About something else."),
    ]
    path = write_rows(tmp_path / "results.jsonl", *rows, b'{"custom_id": "1234", "response": {"st')
    done = imported(store, path)
    assert (done.rows, done.stored, done.completed, done.unknown) == (4, 1, 1, 1)
    assert done.failed == {"error: 'too late'": 1, "status 500: 'no memory'": 1}
    assert done.notes == [f"{path}:5: the last line was cut short, and is left out"]
    assert (key in keys(store), set(others) <= set(keys(store))) == (False, True)
    assert store.result(key).text == "Adds the items."


@pytest.mark.parametrize(
    ("choice", "why"),
    [
        ({"finish_reason": "content_filter"}, "finish_reason: 'content_filter'"),
        ({"finish_reason": None}, "finish_reason: None"),
        ({"text": None}, "no text"),
        ({"text": ["a"]}, "no text"),
        ({"mean_logprob": None}, "no log-probabilities, without which nothing of rotary-demo is shown: use logprobs"),
    ],
)
def test_a_row_without_a_usable_answer_leaves_its_item_in_the_queue(choice, why, store, tmp_path):
    key, *others = keys(store)
    path = write_rows(tmp_path / "r.jsonl", completion(key, "Adds."), completion(others[0], "Adds.", **choice))
    done = imported(store, path)
    assert (done.stored, done.failed, set(others) <= set(keys(store))) == (1, {why: 1}, True)


@pytest.mark.parametrize(
    ("logprobs", "mean"),
    [
        ({"mean_logprob": -0.5}, -0.5),
        ({"logprobs": {"token_logprobs": [None, -1.0, -3.0]}}, -2.0),
        ({"logprobs": {"content": [{"token": "A", "logprob": -1.0}, {"token": "B", "logprob": 0.0}]}}, -0.5),
        ({"mean_logprob": 3.5}, 0.0),
    ],
)
def test_confidence_is_read_from_every_form(logprobs, mean, store, tmp_path):
    key = keys(store)[0]
    row = completion(key, "Adds the items.")
    (choice,) = row["response"]["body"]["choices"]
    del choice["mean_logprob"]
    choice |= logprobs
    assert imported(store, write_rows(tmp_path / "r.jsonl", row)).stored == 1
    assert store.result(key).completion.mean_logprob == pytest.approx(mean)


def test_an_unsure_answer_is_stored_and_not_shown_as_one_of_our_own(store, tmp_path):
    sure, unsure = keys(store)[:2]
    text = "Adds all of the items."
    path = write_rows(
        tmp_path / "r.jsonl",
        completion(sure, text, mean_logprob=-0.01),
        completion(unsure, text, mean_logprob=-9.0),
    )
    done = imported(store, path)
    verdicts = dict(tuple(row) for row in store.db.execute("select key, verdict from item where state = 'done'"))
    assert (done.completed, done.shown) == (2, sum(one == "shown" for one in verdicts.values()))
    assert verdicts[unsure] == "low-confidence"


def test_an_answer_is_cut_where_the_engine_would_have_ended_it(make_repository, tiny_pack, tmp_path):
    """At the end of its line, before one more sentence than asked, and at the limit of new tokens."""
    settings = Settings(model=tiny_pack, job="summarize", db=tmp_path / "work.db")
    with writing(settings) as store:
        index_all(store, settings, make_repository(MANY))
        (row,) = select_repositories(store, [])
        line, sentence, *_ = prompts = list(open_prompts(store, row.id))
        assert (line.stop.at_line_end, line.stop.max_sentences) == (True, 1)
        long = prompts[2]
        path = write_rows(
            tmp_path / "r.jsonl",
            completion(line.key, "\n Adds the items.\nThen it talks on"),
            completion(sentence.key, " Adds the items. Then it talks on."),
            completion(long.key, "a" * 100 * long.max_new_tokens),
        )
        done = imported(store, path, settings=settings)
        assert (done.stored, done.num_failed) == (3, 0)
        results = [store.result(one.key) for one in (line, sentence, long)]
    assert [(one.text, one.completion.reason) for one in results[:2]] == [
        ("Adds the items.", "stop"),
        ("Adds the items.", "sentences"),
    ]
    assert results[2].completion.reason in {"loop", "length"}
    assert len(results[2].completion.token_ids) <= long.max_new_tokens


def test_where_an_answer_comes_from_is_stored_with_it(store, tmp_path):
    key = keys(store)[0]
    path = write_rows(tmp_path / "r.jsonl", completion(key, "Adds the items."))
    imported(store, path)
    assert provenance_of(store, key) == {
        "model": "rotary-demo",
        "weights": provenance_of(store, key)["weights"],
        "experts": "int8",
        "numerics": None,
        "job": "summarize-small",
        "imported": {"file": str(path), "model": "served"},
    }


def test_a_window_that_closes_keeps_what_was_stored(store, tmp_path):
    class Closing(Window):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks > 2:
                raise StoppedError

    path = write_rows(tmp_path / "r.jsonl", *(completion(key, "Adds the items.") for key in keys(store)))
    num_keys = len(keys(store))
    with pytest.raises(StoppedError):
        imported(store, path, window=Closing())
    done = imported(store, path)
    assert done.known + done.stored == num_keys
    assert not set(keys(store)) & {row["custom_id"] for row in sorted_rows(path)}


def test_a_pipe_is_refused(store, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a plain file"):
        imported(store, tmp_path / "pipe")
    with pytest.raises(InputError, match="No such file"):
        imported(store, tmp_path / "absent.jsonl")


def test_an_export_keeps_no_driver_from_committing(store, tmp_path):
    """With a rollback journal a query that is open would.  What is answered meanwhile is left out."""
    (row,) = select_repositories(store, [])
    with reading(Settings(db=tmp_path / "work.db")) as reader:
        prompts = open_prompts(reader, row.id)
        first = next(prompts)
        drain_all(store, SETTINGS, [], FakeEngine)
        rest = [one.key for one in prompts]
        assert first.key not in rest
        assert not any(reader.prompt_ids(one.item_id) for one in (first, *open_prompts(reader, row.id)))
        assert exported(reader, tmp_path / "a.jsonl") == []


def test_a_file_of_many_faults_names_the_first(store, tmp_path):
    path = write_rows(tmp_path / "r.jsonl", b"x\n" * 1000)
    with pytest.raises(InputError) as refused:
        imported(store, path)
    assert (str(refused.value).count("not JSON"), "; and more; nothing was imported" in str(refused.value)) == (5, True)
