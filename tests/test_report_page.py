"""The page of a report: one file without scripts and requests, in which no text of a repository has any effect."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from rotary_batch.commands.database import writing
from rotary_batch.commands.plots import Part, share_bar
from rotary_batch.commands.report_page import page
from rotary_batch.commands.report_plots import MAX_BINS, figures, outcomes
from rotary_batch.commands.run_report import RunReport
from rotary_batch.config import Settings
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import ParkedFile
from rotary_batch.work.runs import start_run
from rotary_batch.work.samples import KEPT_RUNS, MAX_SAMPLES, Sample, Sampler, samples

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><style>body{display:none}",
    "`<b>`code`",
    "\x1b[31mred\u202e\u200b",
    "https://evil.example/x.png",
]


class Checked(HTMLParser):
    """Every tag is closed; remembers tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def night(num: int = 100) -> list[Sample]:
    return [
        Sample(
            at_s=10.0 * n,
            prompt_tokens=900 * n,
            generated_tokens=100 * n,
            step_s=9.0 * n,
            bound_s=6.0 * n,
            moved_nbytes=2e10 * n,
            read_nbytes=1e9 * n,
            stall_s=0.5 * n,
            ended=3 * n,
            num_open=400 - 3 * n,
            sentences=5 * n,
            sentences_shown=4 * n,
        )
        for n in range(num)
    ]


def report(**more: object) -> RunReport:
    text = " ".join(HOSTILE)
    plain = RunReport(
        run=1,
        command="drain",
        database="/s/work.db",
        model=text,
        outcome="deadline",
        reason=text,
        started_at="2026-11-27T23:00:00+00:00",
        ended_at="2026-11-28T00:00:00+00:00",
        seconds=3600.0,
        repositories=["/a"],
        docs=[f"/a/{text}"],
        items=400,
        answered=290,
        parked=7,
        files_parked=len(HOSTILE),
        parked_by_file=[ParkedFile("/a", "file", one, 1, one) for one in HOSTILE],
        notes=HOSTILE,
        pages=HOSTILE,
        stats={
            "done": 280,
            "reused": 10,
            "parked_by_run": 7,
            "verdicts": {"shown": 200, "low-confidence": 60, "unfaithful": 20},
            "step_s": 900.0,
            "bound_s": 600.0,
            "drain_s": 1000.0,
            "prefill_tokens": 90_000,
            "decode_tokens": 10_000,
            "tier": text,
            "forecast": {"seconds": 1300.0, "curve": [[0.0, 0], [650.0, 200], [1300.0, 400]]},
        },
    )
    return replace(plain, **more)


def test_nothing_that_a_repository_says_has_an_effect():
    text = page(report(), night())
    checked = Checked(text)
    assert checked.tags <= {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "code", "dl", "div", "dt"),
        *("dd", "svg", "line", "text", "polyline", "polygon", "rect", "figure", "figcaption", "ul", "li", "span", "b"),
        *("details", "summary", "table", "tr", "td"),
    }
    names = {name for name, _ in checked.attributes}
    assert not names & {"src", "href", "style", "srcset", "action", "data"}
    assert not [name for name in names if name.startswith("on")]
    assert "url(" not in text
    assert "@import" not in text
    assert not set(text) & set("\x1b\u202e\u200b")
    shown = "".join(checked.text)
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown


def test_it_follows_the_system_and_forbids_what_it_does_not_need():
    text = page(report(), night())
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport" content="width=device-width' in text
    policy = dict(re.findall(r'http-equiv="(Content-Security-Policy)" content="([^"]*)"', text))
    assert policy == {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def test_what_it_says_is_what_the_report_says():
    shown = " ".join("".join(Checked(page(report(), night())).text).split())
    assert "Stopped at" in shown
    assert "290 of 400 answered, 7 failed" in shown
    # 200 items by 650 s and 400 by 1300 s are 308 by 1000 s, of which 297 ended.
    assert "Forecast at the start: 308 items in this time; 297 ended, so it was 4 % too many." in shown
    assert "67 % in all" in shown
    assert "396 of 495 sentences were borne out by the code, 80 %" in shown


def test_each_plot_has_what_was_asked_for_and_few_points():
    found = {one.title: one.svg for one in figures(report(), night(240))}
    assert list(found) == [
        "Generated tokens a second",
        "Prompt tokens a second",
        "The queue",
        "Achieved share of the bound",
        "Experts moved, GB a second",
        "Stall",
        "Faithfulness",
    ]
    lines = re.findall(r'polyline class="[^"]*" points="([^"]*)"', found["Prompt tokens a second"])
    assert len(lines) == 1
    assert 40 <= len(lines[0].split()) <= MAX_BINS
    assert len({point.split(",")[1] for point in lines[0].split()}) == 1, "90 tokens a second, all the time"
    assert found["The queue"].count("<polyline") == 2, "and the forecast"


def test_the_time_axis_begins_when_the_queue_does_not_when_indexing_does(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        svg = next(figures(report(), night())).svg  # ended at 00:00:00, of which the queue took 990 s
    finally:
        monkeypatch.undo()
        time.tzset()
    assert re.findall(r'text-anchor="middle">([^<]*)<', svg) == ["23:45", "23:50", "23:55", "00:00"]


def test_without_an_engine_there_are_no_plots_and_without_items_no_bar():
    empty = report(items=0, answered=0, parked=0, stats={})
    assert list(figures(empty, [])) == []
    assert list(figures(empty, night(1))) == []
    assert outcomes(empty) == ""
    Checked(page(empty, []))
    few = report(stats={"drain_s": 10.0})
    assert [one.title for one in figures(few, [Sample(0.0, num_open=3), Sample(10.0, ended=1, num_open=2)])] == [
        "Generated tokens a second",
        "Prompt tokens a second",
        "The queue",
    ]


def test_the_bar_has_all_items():
    parts = re.findall(r"<title>([^<]*): ([0-9,]*)</title>", outcomes(report()))
    assert sum(int(number) for _, number in parts) == 400
    assert share_bar("x", [Part("a", "s1", 1), Part("b", "s2", 3)]).count('width="250.00"') == 1


@pytest.fixture
def store(tmp_path):
    with writing(Settings(db=tmp_path / "work.db")) as opened:
        yield opened


def test_a_night_of_ten_hours_is_a_few_rows_that_lie_evenly(store):
    run = start_run(store, command="drain", model_name="m", pid=1)
    sampler, at_s, num_added = Sampler(store, run), 0.0, 0
    while at_s <= 36_000:
        if sampler.is_due(at_s):
            sampler.add(Sample(at_s, prompt_tokens=int(at_s)))
            num_added += 1
        at_s += 1.5
    kept = samples(store, run)
    assert MAX_SAMPLES / 2 - 1 <= len(kept) <= MAX_SAMPLES
    assert num_added < 6 * MAX_SAMPLES
    assert [one.prompt_tokens for one in kept] == [int(one.at_s) for one in kept]
    gaps = [after.at_s - before.at_s for before, after in pairwise(kept)]
    assert max(gaps) <= 2.2 * min(gaps)
    assert (kept[0].at_s, kept[-1].at_s > 36_000 - 2 * max(gaps)) == (0.0, True)


def test_samples_of_runs_that_are_long_past_go(store):
    first = start_run(store, command="drain", model_name="m", pid=1)
    Sampler(store, first).add(Sample(1.0))
    for _ in range(KEPT_RUNS - 1):
        start_run(store, command="drain", model_name="m", pid=1)
    assert len(samples(store, first)) == 1
    start_run(store, command="drain", model_name="m", pid=1)
    assert samples(store, first) == []


def test_the_samples_of_a_night_take_less_than_fifty_kilobytes(tmp_path):
    with writing(Settings(db=tmp_path / "size.db")) as opened:
        before = size(opened.db.path)
        run = start_run(opened, command="drain", model_name="m", pid=1)
        for one in [replace_at(n) for n in range(MAX_SAMPLES - 1)]:
            Sampler(opened, run).add(one)
        assert size(opened.db.path) - before < 50_000


def replace_at(number: int) -> Sample:
    return night(2)[1]._replace(at_s=number * 150.0, moved_nbytes=1e15 + number, step_s=1e4 + 1 / 3)


def size(path) -> int:
    connection = open_database(path)
    nbytes = connection.execute("select page_count * page_size from pragma_page_count, pragma_page_size").fetchone()[0]
    connection.close()
    return nbytes
