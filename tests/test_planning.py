"""Settings, jobs, windows, and roll-ups that need several levels of parts."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rotary_batch.commands.database import writing
from rotary_batch.commands.generate import generate
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.commands.run_report import RunReport
from rotary_batch.config import Settings, bundled, parse_nbytes, user_values
from rotary_batch.core import ErrorClass, Failure, Unit
from rotary_batch.errors import ConfigError
from rotary_batch.jobs import Select, load_job, load_jobs
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.planner import prompt_builder
from rotary_batch.planner.prompt_builder import CHUNK_VARIABLES, NOTES_VARIABLES, Note
from rotary_batch.prompts import load_prompts
from rotary_batch.testing import FakeEngine
from rotary_batch.window import Window
from rotary_batch.work import counts
from rotary_batch.work.items import ask_again
from rotary_batch.work.store import WorkStore
from tests.in_process import drain_all, index_all


def test_later_sources_of_settings_win(tmp_path):
    (tmp_path / "rotary.toml").write_text('device_memory = "2GB"\nmax_batch = 3\nmodel = "packs/m"\nworktree = true\n')
    path = tmp_path / "rotary.toml"
    assert user_values(
        flags={"max_batch": 9, "job": None},
        environment={"ROTARY_BATCH_DEVICE_MEMORY": "1GiB", "HOME": "/h"},
        folders=[tmp_path],
        config=None,
    ) == {
        "device_memory": (2**30, "ROTARY_BATCH_DEVICE_MEMORY"),
        "max_batch": (9, "--max-batch"),
        "model": (tmp_path / "packs/m", str(path)),
        "worktree": (True, str(path)),
    }


@pytest.mark.parametrize(
    ("text", "nbytes"), [("512MB", 512 * 10**6), ("64GiB", 64 * 2**30), ("1.5 GB", 15 * 10**8), ("7B", 7)]
)
def test_sizes(text, nbytes):
    assert parse_nbytes(text) == nbytes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('devise = "cpu"', "unknown key 'devise'; did you mean 'device'"),
        ('device = "tpu"', "is not a device"),
        ("max_batch = 0", "not a whole number above 0"),
        ('numerics = "slow"', "is not one of exact, fast"),
        ("[[", "not valid TOML"),
        ('device_memory = "much"', "is not a size"),
        ('device_memory = "22"', "device_memory: 22 has no unit; write for example 22GB"),
        ("host_memory = 4096", 'host_memory: 4096 has no unit; write it in quotes, for example "4096MB"'),
        ("host_memory = true", "host_memory: a bool; write a string"),
    ],
)
def test_a_bad_setting_names_the_file_and_the_key(tmp_path, text, words):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        user_values(flags={}, environment={}, folders=[], config=path)
    assert str(path) in str(error.value)


def test_a_size_needs_a_unit_in_the_environment_too():
    with pytest.raises(ConfigError, match=r"^ROTARY_BATCH_HOST_MEMORY: 64 has no unit; write for example 64GB$"):
        user_values(flags={}, environment={"ROTARY_BATCH_HOST_MEMORY": "64"}, folders=[], config=None)


def test_the_bundled_jobs_and_prompts_fit_each_other():
    jobs, prompts = load_jobs(bundled("jobs")), load_prompts(bundled("prompts"))
    for name in ("summarize", "summarize-small"):
        assert set(Unit) - set(jobs[name].units) == {Unit.SYMBOL, Unit.DETAIL, Unit.TOPIC}
    assert jobs["onboarding"].topics is not None
    assert (jobs["summarize"].symbol is None, jobs["summarize-small"].symbol is None) == (False, True)
    for job in jobs.values():
        for unit, spec in job.units.items():
            assert prompts[spec.prompt].variables <= (CHUNK_VARIABLES if unit == "chunk" else NOTES_VARIABLES)
            assert spec.part is None or prompts[spec.part].variables <= NOTES_VARIABLES


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[chunk]", "[chonk]", "unknown key 'chonk'; did you mean 'chunk'"),
        ("new_tokens = 80", "new_token = 80", "did you mean 'new_tokens'"),
        ("new_tokens = 48", "", r"\[symbol\] lacks 'new_tokens'"),
        ('"trivial"', '"easy"', r"\[symbol\] skip: 'easy' is not one of trivial, documented"),
        ("skip = [", "prompt = [", r"\[symbol\]: unknown key 'prompt'"),
        ("attempts = 3", 'attempts = "3"', "is not a whole number"),
        pytest.param("attempts = 3", "attempts = " + "9" * 5000, "summarize.toml: not valid TOML", id="5,000 digits"),
        ('name = "summarize"', 'name = "other"', "must be the file's stem"),
        ("chunk_tokens = 1200", "", "lacks 'chunk_tokens'"),
        ("[limits]", "[template]\nenable_thinkin = true\n[limits]", "did you mean 'enable_thinking'"),
        ("[limits]", "[template]\nenable_thinking = 1\n[limits]", "enable_thinking = 1 is not true or false"),
        ("[limits]", "[template]\nreasoning_effort = true\n[limits]", "reasoning_effort = True is not a string"),
        ("attempts = 3", "attempts = true", "attempts = True is not a whole number"),
    ],
)
def test_a_bad_job_is_refused(tmp_path, old, new, words):
    text = (bundled("jobs") / "summarize.toml").read_text()
    assert old in text
    (tmp_path / "summarize.toml").write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=words):
        load_job(tmp_path / "summarize.toml")


def test_a_job_selects_by_language_and_path():
    select = Select(languages=("python",), include=("src/*",), exclude=("*_test.py",))
    assert [
        select.selects(path, language)
        for path, language in [
            ("src/a.py", "python"),
            ("src/a.go", "go"),
            ("b.py", "python"),
            ("src/a_test.py", "python"),
        ]
    ] == [True, False, False, False]


JOB = """
[job]
name = "summarize"
[chunk]
prompt = "chunk"
chunk_tokens = 400
new_tokens = 8
[file]
prompt = "file"
part = "part"
prompt_tokens = 600
new_tokens = 8
[directory]
prompt = "directory"
part = "part"
prompt_tokens = {directory}
new_tokens = 8
[repository]
prompt = "repository"
part = "part"
prompt_tokens = 600
new_tokens = 8
"""


def drained(root: Path, tiny_pack: Path, jobs: Path) -> dict[str, dict[str, int]]:
    """Index and drain with an engine that needs no model; states by unit."""
    settings = Settings(model=tiny_pack, jobs=jobs, db=root.parent / "work.db")
    with writing(settings) as store:
        (index,) = index_all(store, settings, root)
        drain_all(store, settings, [root], lambda: FakeEngine(answer_tokens=6))
        parts = store.db.execute(
            "select count(*), count(distinct part_of) from item where part_of is not null"
        ).fetchone()
        return counts.states(store, index.indexed.repository.id) | {"parts": tuple(parts)}


def test_a_roll_up_too_long_for_its_prompt_is_reduced_in_a_tree_and_nothing_is_left_out(
    make_repository, tiny_pack, tmp_path
):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "summarize.toml").write_text(JOB.format(directory=270))
    root = make_repository({f"pkg/module_{n:02}.py": f'"""Module number {n}."""\nX = {n}\n' for n in range(40)})
    states = drained(root, tiny_pack, tmp_path / "jobs")
    num_parts, num_reduced = states.pop("parts")
    assert num_reduced == 1
    assert num_parts > 40 / 3  # more than one level
    assert states == {
        "chunk": {"done": 40},
        "directory": {"done": 1 + num_parts},
        "file": {"done": 40},
        "repository": {"done": 1},
    }


def test_notes_that_cannot_shrink_park_the_roll_up_and_the_rest_goes_on(make_repository, tiny_pack, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "summarize.toml").write_text(JOB.format(directory=240))
    root = make_repository({f"pkg/m{n}.py": f'"""{"word " * 60}{n}."""\nX = {n}\n' for n in range(3)})
    states = drained(root, tiny_pack, tmp_path / "jobs")
    assert states["directory"] == {"parked": 1}
    assert states["repository"] == {"done": 1}


def test_a_model_with_too_little_context_is_refused(make_repository, tiny_pack, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "summarize.toml").write_text(
        JOB.format(directory=320).replace("new_tokens = 8", "new_tokens = 1000")
    )
    root = make_repository({"a.py": "x = 1\n"})
    settings = Settings(model=tiny_pack, jobs=tmp_path / "jobs", db=tmp_path / "work.db")
    with writing(settings) as store:
        (failure,) = index_all(store, settings, root)
    assert (failure.repository, failure.exit_code) == (str(root), 3)
    assert re.search(r"leaves -?[0-9]+ for source code", failure.error)


class ThinkingEngine(FakeEngine):
    """Of every prompt, thinks until its limit, or says what it thought and more."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(answer_tokens=8)
        self._thought = tokenizer._control.encode("<think>Hm. So.").ids

    def _token(self, request, place):
        return self._thought[min(place, len(self._thought) - 1)]


def test_an_answer_cut_within_its_thinking_is_parked_with_the_reason(make_repository, tiny_pack, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "summarize.toml").write_text(JOB.format(directory=320))
    pack = shutil.copytree(tiny_pack, tmp_path / "pack")
    table = json.loads((pack / "tokenizer.json").read_text())
    marks = [
        table["added_tokens"][0] | {"id": 260 + n, "content": text} for n, text in enumerate(("<think>", "</think>"))
    ]
    table["added_tokens"] += marks
    (pack / "tokenizer.json").write_text(json.dumps(table))
    settings = Settings(model=pack, jobs=tmp_path / "jobs", db=tmp_path / "work.db")
    root = make_repository({"a.py": "x = 1\n"})
    with writing(settings) as store:
        index_all(store, settings, root)
        drain_all(store, settings, [root], lambda: ThinkingEngine(Tokenizer.load(pack)))
        rows = store.db.execute("select state, error from item where unit = 'chunk'").fetchall()
    fault = "no answer: its 8 tokens ended within its thinking; raise new_tokens of the job, or turn thinking off in its [template]"
    assert [tuple(row) for row in rows] == [("parked", fault)]


def test_the_variables_of_a_job_reach_the_prompt_and_the_keys(tiny_pack, tmp_path):
    template = "{% if enable_thinking %}think{% endif %}{{ messages[0].content }}"
    pack = shutil.copytree(tiny_pack, tmp_path / "pack")
    (pack / "chat_template.jinja").write_text(template)
    keys, ids = set(), []
    for more in ("", "[template]\nenable_thinking = true\n", "[template]\nenable_thinking = false\n"):
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / "jobs" / "summarize.toml").write_text(JOB.format(directory=320) + more)
        builder = load_prompt_builder(Settings(jobs=tmp_path / "jobs"), pack)
        prompt = builder.build_rollup_prompt(Unit.FILE, "a.py", [Note("a", "b")])
        keys.add(prompt.key)
        ids.append(prompt.prompt_ids)
    assert (ids[0], ids[1]) == (ids[2], (*builder.tokenizer.encode("think"), *ids[0]))
    assert len(keys) == 2


def test_a_version_of_fast_numerics_makes_fast_results_new_and_no_others(tiny_pack, monkeypatch):
    def keys():
        builders = [load_prompt_builder(Settings(numerics=numerics), tiny_pack) for numerics in ("exact", "fast")]
        return [builder.build_rollup_prompt(Unit.FILE, "a.py", [Note("a", "b")]).key for builder in builders]

    (exact, fast), _ = keys(), monkeypatch.setattr(prompt_builder, "FAST_VERSION", "the next one")
    exact_then, fast_then = keys()
    assert exact == exact_then
    assert len({exact, fast, fast_then}) == 3


class StubbornEngine(FakeEngine):
    """Fails every sequence whose prompt is of odd length, as an accelerator that runs out of memory would."""

    def step(self):
        report = super().step()
        odd = {request_id for request_id, (request, _) in self._live.items() if len(request.prompt_ids) % 2}
        for request_id in odd:
            del self._live[request_id]
        return replace(
            report,
            new_tokens=tuple(new for new in report.new_tokens if new.request_id not in odd),
            failures=tuple(
                Failure(request_id=number, error="out of memory", error_class=ErrorClass.TEMPORARY)
                for number in sorted(odd)
            ),
        )


@pytest.mark.parametrize("is_due_when_looked_at", [False, True])
def test_an_item_that_fails_is_tried_again_and_parked_after_its_attempts(
    make_repository, tiny_pack, tmp_path, monkeypatch, is_due_when_looked_at
):
    monkeypatch.setattr("rotary_batch.runner.RETRY_AFTER_S", 0.01)
    next_retry_at = WorkStore.next_retry_at

    def when_it_is_due(self, repository_ids):
        at = next_retry_at(self, repository_ids)
        time.sleep(max(0.0, (at or 0.0) - time.time()))
        return at

    if is_due_when_looked_at:  # and was not when the queue was asked, a moment before
        monkeypatch.setattr(WorkStore, "next_retry_at", when_it_is_due)
    root = make_repository({f"m{n}.py": f"x = {'1' * n}\n" for n in range(1, 7)})
    settings = Settings(model=tiny_pack, db=tmp_path / "work.db")
    with writing(settings) as store:
        index_all(store, settings, root)
        (outcome,) = drain_all(store, settings, [root], lambda: StubbornEngine(answer_tokens=6))
        failed = store.db.execute("select attempts, state, error from item where error is not null").fetchall()
    assert outcome.exit_code == 5
    assert outcome.parked == len(failed) > 0
    assert outcome.stats["retried"] == 2 * len(failed)
    assert {tuple(row) for row in failed} == {(3, "parked", "out of memory")}


def test_what_was_parked_is_asked_again_only_on_request_and_ends_as_if_it_had_never_failed(
    make_repository, tiny_pack, tmp_path, monkeypatch
):
    """Chunks, files and parts of a folder fail; index and drain leave them, `retry` makes it all whole."""
    monkeypatch.setattr("rotary_batch.runner.RETRY_AFTER_S", 0.001)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "summarize.toml").write_text(JOB.format(directory=270))
    root = make_repository({f"pkg/module_{n:02}.py": f'"""Module {"o" * n}."""\nX = {n}\n' for n in range(24)})

    def night(store: WorkStore, engine: type[FakeEngine]) -> tuple[int, RunReport]:
        (again,) = index_all(store, settings, root)
        (outcome,) = drain_all(store, settings, [root], lambda: engine(answer_tokens=6))
        return again.indexed.counts.queued, outcome

    def said(store: WorkStore) -> list[tuple]:
        query = "select unit, subject, state, key, attempts, error, verdict, shown_text from item order by 1, 2"
        return [tuple(row) for row in store.db.execute(query)]

    settings = Settings(model=tiny_pack, jobs=tmp_path / "jobs", db=tmp_path / "work.db")
    with writing(settings) as store:
        _, first = night(store, StubbornEngine)
        units = {row["unit"] for row in store.db.execute("select unit from item where state = 'parked'")}
        queued, second = night(store, FakeEngine)
        assert (queued, second.stats["revolutions"], second.parked) == (0, 0, first.parked)
        assert ask_again(store, [1]) == first.parked
        assert ask_again(store, [1]) == 0
        _, third = night(store, FakeEngine)
        mended = said(store)
    assert units >= {"chunk", "directory"}
    assert (first.exit_code, second.exit_code, third.exit_code) == (5, 5, 0)
    settings = replace(settings, db=tmp_path / "other.db")
    with writing(settings) as store:
        night(store, FakeEngine)
        assert said(store) == mended


def test_a_limit_of_items_is_one_limit_for_all_models(make_repository, tiny_pack, tmp_path):
    files = {f"{name}.py": f"def {name}(x):\n    return x + other(x)\n" for name in "abcd"}
    roots = [make_repository(files, name=name) for name in ("one", "two")]
    with writing(Settings(db=tmp_path / "work.db")) as store:
        for root, model in zip(roots, (tiny_pack, None), strict=True):
            index_all(store, Settings(model=model), root)
        window = Window(max_items=3)
        outcomes = drain_all(store, Settings(), roots, lambda: FakeEngine(answer_tokens=6), window)
    assert sum(outcome.new_answers for outcome in outcomes) == 3
    assert [outcome.exit_code for outcome in outcomes] == [75, 75]


def test_a_job_says_how_long_its_longest_roll_up_may_be(tmp_path):
    path = tmp_path / "summarize.toml"
    path.write_text(JOB.format(directory=9000))
    job = load_job(path)
    assert job.longest_rollup_tokens(32768) == 9000 + 8
    assert job.longest_rollup_tokens(2048) == 2048


def test_requests_that_an_engine_had_no_memory_for_are_asked_again(tmp_path, tiny_pack):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bodies = [{"custom_id": f"r{n}", "body": {"prompt": "a" * (n + 1), "max_tokens": 4}} for n in range(8)]
    source.write_text("".join(json.dumps(body) + "\n" for body in bodies))

    class Recovering(StubbornEngine):
        """Has its memory back after three steps."""

        def step(self):
            self.steps = getattr(self, "steps", 0) + 1
            return super().step() if self.steps <= 3 else FakeEngine.step(self)

    totals = generate(source, target, Tokenizer.load(tiny_pack), lambda: Recovering(max_batch=8), lambda *_: None)
    assert totals == (8, 0)
    assert {json.loads(line)["custom_id"] for line in target.read_text().splitlines()} == {f"r{n}" for n in range(8)}
