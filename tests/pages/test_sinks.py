"""Every field of a repository and of a model, hostile, in everything that we write: parsed again, it does not act."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
from urllib.parse import urlsplit

import pytest
import yaml
from hostile import PAYLOADS
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rotary_batch import console
from rotary_batch.cli import docs, doctor, report, status
from rotary_batch.commands import reports
from rotary_batch.commands.doctor import Check
from rotary_batch.commands.isolation import Failure
from rotary_batch.commands.run_report import RunReport
from rotary_batch.core import Chunk, FileClass, Linked, SourceFile, Symbol, Verdict
from rotary_batch.log import event, log_to
from rotary_batch.pages.drift import Drift
from rotary_batch.pages.files import PageFailure, SyncResult
from rotary_batch.pages.front import is_signed, read
from rotary_batch.pages.page import IndexView, Prose
from rotary_batch.pages.page_paths import LLMS_NAME, NAV_NAME
from rotary_batch.pages.sanitise import code, inline, link, one_line, quoted
from rotary_batch.pages.site import render, site_paths
from rotary_batch.pages.symbol_index import INDEX_NAME
from rotary_batch.work.counts import ParkedFile
from tests.pages.test_pages import ListedHere

MARKDOWN = MarkdownIt("commonmark").enable("table")
ACTS = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def hostile_view(payload: str) -> IndexView:
    """A repository in which every text is the payload."""
    path, other = f"{payload}/{payload}.py", "plain.py"
    symbols = {
        place: tuple(
            Symbol(
                path=place,
                kind="function",
                name=payload,
                qualified_name=f"{payload}.{number}",
                start_line=1,
                end_line=2,
                start_byte=number,
                end_byte=number + 1,
                signature=f"@{payload}\ndef {payload}({payload})",
                docstring=f"{payload}\n\n{payload}\n{payload}",
            )
            for number in range(2)
        )
        for place in (path, other)
    }
    chunk = Chunk(
        path=path,
        blob="b",
        start_byte=0,
        end_byte=9,
        start_line=1,
        end_line=2,
        tokens=3,
        symbols=(payload,),
        breadcrumb=payload,
    )
    files = [(path, FileClass.SOURCE), (other, FileClass.SOURCE), (f"{payload}.txt", FileClass.TEXT)]
    first, second = symbols[path][0].id, symbols[other][0].id
    edges = {path: {first: Linked([second], 1)}, other: {second: Linked([first], 1)}}
    return IndexView(
        name=payload,
        files=tuple(
            SourceFile(path=name, blob=payload, nbytes=1, language="python", file_class=kind, reason=payload)
            for name, kind in files
        ),
        docstrings={path: f"{payload}\n\n{payload}"},
        fallbacks={path: payload},
        symbols=symbols,
        chunks={path: (chunk,)},
        callers=edges,
        callees=edges,
        bases=edges,
        derived=edges,
        model_name=payload,
        demonstration=False,
        docs_dir="rotary-docs",
        listed=ListedHere(symbols),
        link_template=payload + "{path}#L{start}",
    )


def hostile_site(payload: str) -> dict[str, str]:
    view = hostile_view(payload)
    (chunk,) = next(iter(view.chunks.values()))
    subjects = [chunk.subject.identity, ("repository", ""), *(("file", path) for path in view.sources)]
    subjects += [("directory", folder) for folder in view.folders]
    prose = {subject: Prose(text=payload, verdict=Verdict.SHOWN) for subject in subjects}
    return {path: page.decode() for path, page in render(view, prose, site_paths(view.sources))}


def tokens_of(text: str) -> list:
    found = []
    for token in MARKDOWN.parse(text):
        found += [token, *(token.children or ())]
    return found


def links_of(text: str) -> list[str]:
    return [token.attrs["href"] for token in tokens_of(text) if token.type == "link_open"]


def is_calm(text: str) -> bool:
    return all(letter in "\n\t" or unicodedata.category(letter) not in ACTS for letter in text)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_markdown_pages_hold_no_html_no_image_and_no_link_that_acts(payload):
    for path, page in hostile_site(payload).items():
        assert is_calm(page), path
        if path.endswith(".md"):
            head, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", page, re.DOTALL).groups()
            fields = yaml.safe_load(head)
            assert set(fields) <= {"generated_by", "status", "model", "coverage", "sources", "digest"}
            assert len(fields.get("sources", ())) == (0 if path == INDEX_NAME else 1)
            front = read(page.encode())
            assert (front.is_ours, front.is_edited, front.is_human) == (True, False, False)
        elif path == LLMS_NAME:
            assert is_signed(page.encode())
            body, comment = page.rsplit("<!--", 1)
            assert re.fullmatch(r" Written by rotary-batch; SHA-256 of the lines above: [0-9a-f]{64} -->\n", comment)
        else:
            continue
        assert not re.search(r"^[ \t]*-+8<-+", body, re.MULTILINE), "no file of who builds the site is put in"
        tokens = [token for token in tokens_of(body) if not re.fullmatch(r'<a id="[a-z0-9-]+">|</a>', token.content)]
        assert not {token.type for token in tokens} & {"html_block", "html_inline", "image"}, path
        for target in links_of(body):
            parts = urlsplit(target)
            assert parts.scheme in {"", "https"}, (path, target)
            assert parts.scheme or not parts.netloc, (path, target)
            # Of other hosts only those that the template names.
            assert not parts.netloc or "evil.example" in payload


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_page_has_the_blocks_of_the_same_page_without_payloads(payload):
    """No text begins a heading, a quotation, a rule or a row of a table of its own, nor a list outside a docstring."""
    kinds = {"heading_open", "blockquote_open", "hr", "tr_open", "td_open"}
    if payload not in {"- item", "1. item"}:
        kinds |= {"bullet_list_open", "ordered_list_open"}

    def shapes(site: dict[str, str]) -> list[list[str]]:
        pages = [page for path, page in sorted(site.items()) if path.endswith(".md") and path != INDEX_NAME]
        bodies = [page.split("\n---\n\n", 1)[1] for page in pages]
        return sorted([token.type for token in tokens_of(body) if token.type in kinds] for body in bodies)

    depth = payload.count("/") + 1
    if depth == 1 and payload.strip() and inline(payload):
        assert shapes(hostile_site(payload)) == shapes(hostile_site("word"))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_navigation_is_yaml_that_names_the_pages_and_no_html(payload):
    site = hostile_site(payload)
    nav = yaml.safe_load(site[NAV_NAME])
    assert set(nav) == {"site_name", "docs_dir", "site_dir", "validation", "nav"}
    titles, targets, waiting = [nav["site_name"]], [], list(nav["nav"])
    while waiting:
        ((title, value),) = waiting.pop().items()
        titles.append(title)
        (waiting.extend if isinstance(value, list) else targets.append)(value)
    assert sorted(targets) == sorted(path for path in site if path.endswith(".md"))
    assert not any(set(title) & set("<>\"'\n") or not is_calm(title) for title in titles)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_each_line_of_llms_txt_begins_as_we_say(payload):
    lines = hostile_site(payload)[LLMS_NAME].splitlines()
    assert all(re.match(r"# |> |## |- \[.*\]\(\S+\): |<!-- Written by [^<>]* -->$|$", line) for line in lines), lines
    assert sum(line.startswith("- [") for line in lines) == 3
    assert not any(payload.strip() and line.strip() in payload.splitlines() for line in lines if line)


def hostile_report(payload: str) -> RunReport:
    """A report that says it wherever a repository or a model can."""
    path = f"/{payload}".replace("\0", "")
    return RunReport(
        run=1,
        command="run",
        database="/work.db",
        model=payload,
        outcome="failed",
        reason=payload,
        started_at="2026-11-27T20:08:22+00:00",
        ended_at="2026-11-27T20:08:30+00:00",
        repositories=(path,),
        docs=(path,),
        items=3,
        answered=1,
        parked=1,
        pages_changed=60,
        pages=(path,),
        files_parked=60,
        parked_by_file=(ParkedFile(path, "file", payload, 1, payload),),
        failures=(Failure(repository=path, error=payload, exit_code=3),),
        notes=(payload,),
        file=path,
        stats={
            "conflicts": [payload],
            "pages_failed": [[payload, payload]],
            "done": 1,
            "device": payload,
            "tier": payload,
        },
    )


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_report_in_markdown_shows_and_does_nothing(payload):
    tokens = MARKDOWN.parse(reports.markdown(hostile_report(payload)))
    inner = [child for token in tokens for child in token.children or ()]
    assert {token.type for token in tokens if "html" in token.type} == set()
    assert {child.type for child in inner} <= {
        "text",
        "code_inline",
        "link_open",
        "link_close",
        "softbreak",
        "text_special",
    }
    targets = {child.attrs["href"] for child in inner if child.type == "link_open"}
    assert all(re.fullmatch(r"[\w/.~%-]*", target) for target in targets), targets
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings[0].startswith("Failed at ")
    assert set(headings[1:]) <= {
        "What went wrong",
        "Items that failed",
        "Pages left alone because a person edited them",
        "Pages that could not be written",
        "Pages that changed",
        "Notes",
        "Where the docs are",
        "Answers of this run",
        "The engine",
    }


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_acts_on_a_terminal(payload, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    projection = SyncResult(conflicts=[payload], failed=[PageFailure(payload, payload)], removed=[payload])
    console.err(payload)
    docs.print_sync_result(projection)
    docs.print_drift(Drift(stale=[payload], missing=[payload], edited=[payload], orphaned=[payload], blocked=[payload]))
    console.print_facts({payload: payload, "list": (payload, 1), "map": {payload: payload}})
    status.print_status(
        {
            "repositories": [
                {
                    "root": payload,
                    "model": payload,
                    "model_problem": payload,
                    "items": {"file": {"done": 1}},
                    "done": 1,
                    "parked": 0,
                    "all": 1,
                }
            ],
            "driver_pid": None,
            "paused": False,
            "running": None,
            "last_run": {"started_at": "2026-01-02T03:04:05+00:00", "outcome": payload, "reason": payload},
        }
    )
    doctor.print_checks([Check(what=payload, ok=False, fact=payload, advice=payload, essential=True)])
    report.print_report(hostile_report(payload))
    report.print_ending(hostile_report(payload), verbose=True)
    captured = capsys.readouterr()
    for text in (captured.out, captured.err):
        assert all(letter in "\n\t" or letter.isprintable() for letter in text)
    if payload.startswith("["):
        assert captured.out.count(payload) >= 13, "markup of rich is text"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_log_is_ascii_json_of_one_line(payload, tmp_path):
    log_to(tmp_path / "log.jsonl")
    event("indexed", repository=payload, **{f"x{payload}": [payload]})
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert (line.isascii(), line.isprintable()) == (True, True)
    found = json.loads(line)
    assert (found["repository"], found[f"x{payload}"]) == (payload, [payload])


def shown(markdown: str) -> str:
    """What a reader sees of one line of Markdown."""
    (inlined,) = [token for token in MARKDOWN.parse(markdown) if token.type == "inline"] or [None]
    return "".join(token.content for token in inlined.children) if inlined else ""


@given(st.text(max_size=60).filter(lambda text: "`" not in text))
def test_text_reads_as_it_was(text):
    assert shown(f"x {inline(text)}").removeprefix("x").strip() == one_line(text)
    assert shown(f"x {code(text)}").removeprefix("x").strip() == one_line(text).replace("\\|", "\\ |").replace(
        "|", "\\|"
    )
    row = MARKDOWN.parse(f"| a | b |\n| - | - |\n| {code(text)} | {inline(text)} |")
    cells = [token.children for token in row if token.type == "inline"][2:]
    assert len(cells) == 2
    assert "".join(token.content for token in cells[1]).strip() == one_line(text)


@given(st.text(max_size=60))
def test_values_of_yaml_read_back(text):
    line = quoted(text)
    assert line.isprintable()
    assert json.loads(line) == text or any(letter > "\uffff" and not letter.isprintable() for letter in text)
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert yaml.safe_load(f"key: {line}")["key"] == json.loads(line)


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("https://forge.example/a/b.py#L1", "https://forge.example/a/b.py#L1"),
        ("http://forge.lan/x?a=1&b=2", "http://forge.lan/x?a=1&amp;b=2"),
        ("../src/a.py", "../src/a.py"),
        ("javascript:alert(1)", "#"),
        ("java\nscript:alert(1)", "#"),
        ("JAVASCRIPT:x", "#"),
        ("data:text/html,x", "#"),
        ("//evil.example/x", "#"),
        ("https:evil", "#"),
        ("https://[x", "https://%5Bx"),
        ("javascript&#58;alert(1)", "javascript&amp;#58;alert%281%29"),
        ("a)](javascript:x", "#"),
        ("a b\"'<>`", "a%20b%22%27%3C%3E%60"),
    ],
)
def test_a_link_leads_to_https_or_to_a_path(target, allowed):
    assert link(target) == allowed


def test_check_explain_and_errors_print_no_escapes(make_repository):
    name = "a\x1b]0;title\x07\x9b31m\u202e.py"
    root = make_repository(
        {name: "x = 1\n", "docs/b.py": "x = 1\n", f"docs/{name}.md": '---\ngenerated_by: "rotary-batch"\n---\n'}
    )
    for arguments in (["explain", name, root], ["explain", name + "none", root], ["check", root, "--out", "docs"]):
        command = [sys.executable, "-m", "rotary_batch.cli", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        text = done.stdout + done.stderr
        assert all(letter in "\n\t" or letter.isprintable() for letter in text), (arguments, text)
        assert "\\x1b]0;title\\x07" in text.replace("\n", ""), (arguments, text)


@pytest.mark.parametrize(
    "line",
    [
        '{"path": [1], "blob": "x"}',
        '{"path": "a", "blob": {}}',
        "{" + '"a":[' * 100_000 + "}",
        '{"a": 1e999}',
        "{}",
        "{nonsense}",
    ],
)
def test_front_matter_that_a_stranger_wrote_says_nothing(line):
    page = f'---\ngenerated_by: "rotary-batch"\nsources:\n  - {line}\ndigest: ""\n---\n\nx'
    front = read(page.encode())
    assert (front.is_ours, front.is_edited, front.sources) == (True, True, {})


def test_pages_of_nested_folders_do_not_grow_with_their_depth():
    """Links from each of 1,000 nested folders to each above it took 100 s; of 250, a page would have 190 kB."""
    depth = 250
    path = "/".join(f"d{n}" for n in range(depth)) + "/a.py"
    file = SourceFile(path=path, blob="b", nbytes=1, language="python", file_class=FileClass.SOURCE, reason="")
    view = IndexView(
        name="deep",
        files=(file,),
        docstrings={},
        fallbacks={},
        symbols={},
        chunks={},
        callers={},
        callees={},
        model_name="m",
        demonstration=False,
        docs_dir="docs",
        listed=ListedHere({}),
    )
    pages = dict(render(view, {}, site_paths(view.sources)))
    assert len(pages) == depth + 7
    assert max(len(page) for page in pages.values() if not page.startswith(b"#")) < 40_000
    crumbs = pages[view.paths["/".join(f"d{n}" for n in range(12)) + "/"]].decode()
    assert (
        "[deep](../../../../../../../../../../../../index.md) / … / [`d3`](../../../../../../../../index.md) / [`d4`]"
        in crumbs
    )
