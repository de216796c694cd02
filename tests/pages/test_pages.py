"""Pages: golden bytes, nothing hostile passes, a person's edit is never overwritten."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.core import MAX_OVERLOADS, FileClass, SourceFile, Subject, Unit, Verdict
from rotary_batch.errors import InputError
from rotary_batch.pages.check import validate
from rotary_batch.pages.drift import Drift, check_docs
from rotary_batch.pages.files import SyncResult, accept, inventory, remove_others, sync_pages
from rotary_batch.pages.front import mark_human, read, seal
from rotary_batch.pages.page import IndexView, Prose
from rotary_batch.pages.page_paths import page_paths
from rotary_batch.pages.safe_folder import open_safe_folder
from rotary_batch.pages.sanitise import code, fenced, inline, plain
from rotary_batch.pages.site import render, site_paths, things_of
from rotary_batch.pages.symbol_index import entries_of
from rotary_batch.repo.languages import language_of
from rotary_batch.repo.parse import parse_file
from rotary_batch.testing import ByteCounter, linked, resolve

SOURCES = {
    "src/box.py": '"""Boxes."""\n\nfrom src.wrap import wrap\ndef put(thing):\n    """Put it in.\n\n    More.\n    """\n    return wrap(thing)\n',
    "src/wrap.py": "def wrap(thing):\n    return thing\n",
    "LICENCE.txt": "Free.\n",
}


def make_view(sources=SOURCES, **options) -> IndexView:
    files, docstrings, symbols, found_chunks, every = [], {}, {}, {}, []
    for path, text in sorted(sources.items()):
        language = language_of(path)
        file_class = FileClass.SOURCE if language else FileClass.TEXT
        file = SourceFile(
            path=path,
            blob=f"blob-{path}",
            nbytes=len(text),
            language=language,
            file_class=file_class,
            reason="no grammar",
        )
        files.append(file)
        if language:
            every.append(one := parse_file(file, text.encode(), 10_000, ByteCounter()))
            docstrings |= {path: one.docstring} if one.docstring else {}
            symbols[path], found_chunks[path] = one.symbols, one.chunks
    found = resolve(every)
    base = {
        "name": "shop",
        "files": tuple(files),
        "docstrings": docstrings,
        "fallbacks": {},
        "symbols": symbols,
        "chunks": found_chunks,
        "callers": dict.fromkeys(symbols, linked((call.callee, call.caller) for call in found)),
        "callees": dict.fromkeys(symbols, linked(found)),
        "model_name": "demo",
        "demonstration": True,
        "docs_dir": "rotary-docs",
    }
    base |= options
    return IndexView(**base, listed=ListedHere(base["symbols"]))


class ListedHere:
    """Entries of the symbol index, sorted in memory."""

    def __init__(self, symbols) -> None:
        entries = [(*one[:3], path, *one[3:]) for path in symbols for one in entries_of(path, symbols[path])]
        self._entries = sorted(entries, key=lambda one: (*one[:4], one[5]))

    def counts(self) -> dict[str, int]:
        return dict(Counter(entry[0] for entry in self._entries))

    def rows(self, letter: str, skip: int, number: int) -> list[tuple[str, str, str, str]]:
        found = [(name, kind, path, anchor) for one, _, name, path, kind, anchor in self._entries if one == letter]
        return found[skip : skip + number]


def render_site(view: IndexView, prose: dict) -> dict[str, bytes]:
    return dict(render(view, prose, site_paths(view.sources)))


def make_docs(docs: Path, pages: dict[str, bytes]) -> SyncResult:
    """Write a whole site into a docs folder."""
    result = SyncResult()
    with open_safe_folder(docs.parent, docs.name, create=True) as folder:
        files = inventory(folder)
        sync_pages(folder, sorted(pages.items()), result)
        remove_others(folder, files, set(pages), result)
    return result


def settle(docs: Path, page: str, whose: str) -> None:
    with open_safe_folder(docs.parent, docs.name, create=False) as folder:
        accept(folder, page, whose)


def drift_of(docs: Path, blobs: dict[str, str]) -> Drift:
    with open_safe_folder(docs.parent, docs.name, create=False) as folder:
        return check_docs(folder, blobs)


def body(page: bytes) -> str:
    return page.decode().split("\n---\n\n", 1)[1]


def test_a_file_page_is_complete_without_a_model():
    pages = render_site(make_view(), {})
    assert set(pages) == {
        "index.md",
        "onboarding.md",
        "src/index.md",
        "src/box.py.md",
        "src/wrap.py.md",
        ".mkdocs/mkdocs.yml",
        "llms.txt",
        "llms-full.txt",
        "symbol-index.md",
    }
    assert body(pages["src/box.py.md"]) == (
        "# `box.py`\n\n"
        "[shop](../index.md) / [`src`](index.md) / [source](../../src/box.py)\n\n"
        "Boxes.\n\n"
        "| Symbol | Kind | Summary |\n| --- | --- | --- |\n| [`put`](#put) | function | Put it in. |\n\n"
        "## `put`\n\n"
        "Function, [lines 4-9](../../src/box.py#L4-L9)\n\n"
        "```python\ndef put(thing)\n```\n\n"
        "Put it in.\n\n"
        "More.\n\n"
        "Uses [`wrap`](wrap.py.md#wrap).\n"
    )
    assert body(pages["index.md"]) == (
        "# shop\n\nHolds `src`.\n\n"
        "New here? [Onboarding](onboarding.md): overview, architecture, entry points, how to build and test, where to "
        "start.\n\n"
        "| Name | Summary |\n| --- | --- |\n| [`src/`](src/index.md) | Holds `box.py` and `wrap.py`. |\n\n"
        "## Languages\n\n| Language | Files | kB |\n| --- | --- | --- |\n| python | 2 | 0.1 |\n\n"
        "## Not documented\n\n| Class | Reason | Files |\n| --- | --- | --- |\n| text | no grammar | 1 |\n"
    )


def test_a_table_shows_prose_only_where_the_author_said_nothing():
    sources = {
        "documented.py": '"""Defines the shop.\n\nHolds nothing."""\n\n\ndef f():\n    pass\n',
        "plain.py": "def g():\n    pass\n",
    }
    prose = {("file", path): Prose(text="A model said this.", verdict=Verdict.SHOWN) for path in sources}
    index = body(render_site(make_view(sources, demonstration=False), prose)["index.md"])
    assert "| [`documented.py`](documented.py.md) | Defines the shop. |\n" in index
    assert "| [`plain.py`](plain.py.md) | A model said this. |\n" in index


def test_prose_follows_the_authors_words_and_a_demonstration_says_so():
    view = make_view()
    prose = {
        ("file", "src/box.py"): Prose(text="Puts things.", verdict=Verdict.SHOWN),
        view.chunks["src/box.py"][0].subject.identity: Prose(text="Wraps it.", verdict=Verdict.SHOWN),
        ("file", "src/wrap.py"): Prose(text=None, verdict=Verdict.UNFAITHFUL),
    }
    pages = render_site(view, prose)
    page = pages["src/box.py.md"].decode()
    assert "\n> Sentences in *italics* were written by the **demonstration model**" in page
    assert "Boxes.\n\n*Puts things.*\n" in page
    assert "\n*Wraps it.*\n" in page
    assert 'status: "complete"\nmodel: "demo"\ncoverage: "2 of 2 texts"' in page
    assert b"demonstration" not in pages["src/wrap.py.md"]
    assert render_site(view, prose) == pages
    some = dict(render(view, prose, things_of([Subject(Unit.FILE, "src/box.py")])))
    assert some == {path: pages[path] for path in ("src/box.py.md", "src/index.md")}


def test_a_link_template_makes_permalinks():
    view = make_view(link_template="https://forge.example/{path}#L{start}-{end}")
    assert "[lines 4-9](https://forge.example/src/box.py#L4-9)" in render_site(view, {})["src/box.py.md"].decode()


def test_a_long_summary_is_cut_between_words_and_outside_code():
    names = "\n".join(f"def a_rather_long_name_of_a_function_number_{n}(): pass" for n in range(6))
    index = render_site(make_view({"pkg/a.py": names + "\n"}), {})["pkg/index.md"].decode()
    (row,) = [line for line in index.splitlines() if line.startswith("| [`a.py`]")]
    assert row.endswith("`a_rather_long_name_of_a_function_number_3` … |")


def test_page_paths_never_collide():
    paths = page_paths(["a/Index", "a/index", "A/x.py", "a/x.py", "é.py", "e\u0301.py", "index"])
    folded = [page.casefold() for page in paths.values()]
    assert len(set(folded)) == len(folded) == 11
    assert paths["/"] == "index.md"


PAYLOADS = [
    "<script>alert(1)</script>",
    "![x](https://evil.example/p.png)",
    "[x](javascript:alert(1))",
    "\x1b]52;c;aGk=\x07 hi",
    "\x1b[31mred",
    "abc\u202edcba",
    "zero\u200bwidth",
    "<img src=x onerror=y>",
    "# heading",
    "```\nfence",
    "a|b",
    "https://evil.example",
    "<!-- x -->",
    "[ref]: http://evil.example",
    "&lt;b&gt;",
    "$$x$$",
    "- item",
    "1. item",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_text_never_acts_on_a_page(payload):
    shown = inline(payload)
    assert "<" not in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\u200b" not in shown
    assert not re.search(r"(?<!\\)[\[\]!`|]", shown)
    assert "://" not in shown
    assert not shown.startswith(("#", "- ", "1. ", "```"))


@given(st.text(max_size=200))
def test_no_text_ends_its_fence_or_its_span(text):
    lines = fenced(text).split("\n")
    marks = lines[0].removesuffix("text")
    assert lines[-1] == marks
    assert all(set(line.strip()) != {"`"} or len(line.strip()) < len(marks) for line in lines[1:-1])
    assert "\n" not in code(text)
    assert plain(plain(text)) == plain(text)


def test_hostile_sources_make_harmless_pages():
    evil = 'def f():\n    """<script>x</script> ![a](http://b) ```\n\n    ```\n    <b>\n    """\n'
    page = render_site(make_view({"e.py": evil}), {})["e.py.md"].decode()
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert page.count("<b>") == page.count("```text\n<b>\n```") == 1


KNOWN = {"put", "wrap", "Box", "box.py", "src/box.py"}.__contains__


@pytest.mark.parametrize(
    ("text", "logprob", "verdict", "kept"),
    [
        ("Puts a thing into `Box`.", -0.5, Verdict.SHOWN, "Puts a thing into `Box`."),
        ("Puts it. Calls `missing_name` too.", -0.5, Verdict.SHOWN, "Puts it."),
        ("Calls missing_name.", -0.5, Verdict.UNFAITHFUL, None),
        ("Uses TorchThing here.", -0.5, Verdict.UNFAITHFUL, None),
        ("Calls wrap() and `box.py`.", -0.5, Verdict.SHOWN, "Calls wrap() and `box.py`."),
        ("Reads the local thing `local_thing`.", -0.5, Verdict.SHOWN, "Reads the local thing `local_thing`."),
        ("See https://evil.example now.", -0.5, Verdict.UNFAITHFUL, None),
        ("Puts a thing.", -3.0, Verdict.LOW_CONFIDENCE, None),
        ("the box of the box of the box of the box of the box of", -0.1, Verdict.LOW_CONFIDENCE, None),
        ("   ", -0.1, Verdict.EMPTY, None),
        ("?! 12", -0.1, Verdict.EMPTY, None),
    ],
)
def test_only_what_exists_may_be_named(text, logprob, verdict, kept):
    found = validate(
        text, mean_logprob=logprob, min_mean_logprob=-1.0, ended="stop", is_known=KNOWN, source="x = local_thing"
    )
    assert (found.verdict, found.shown_text) == (verdict, kept)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Puts a thing. Then it", "Puts a thing."),
        ("Puts a thing. Then `put`s one.", "Puts a thing. Then `put`s one."),
        ('Says "put." and then', 'Says "put."'),
        ("Wraps a thing (or none.) Then it", "Wraps a thing (or none.)"),
        ("Puts a thing, e.g. a", None),
        ("Puts a thing into", None),
    ],
)
def test_a_sentence_that_was_cut_is_not_shown(text, kept):
    for ended in ("length", "loop"):
        found = validate(text, mean_logprob=-0.1, min_mean_logprob=None, ended=ended, is_known=KNOWN, source="put.")
        assert (found.verdict, found.shown_text) == (Verdict.SHOWN if kept else Verdict.LOW_CONFIDENCE, kept)


def test_what_looped_has_no_confidence_where_confidence_is_asked_for():
    """The repetitions, which are cut off, are the likeliest tokens of all."""
    found = validate("Puts it.", mean_logprob=-0.1, min_mean_logprob=-1.0, ended="loop", is_known=KNOWN, source="")
    assert found.verdict == Verdict.LOW_CONFIDENCE


@pytest.mark.parametrize(
    ("text", "is_shown"),
    [
        ("Update the screen of the console screens.", False),
        ("Put it, then put it again.", True),
        ("Puts a thing with a box that is with it.", True),
        ("Puts the thing. Takes the thing.", True),
    ],
)
def test_a_word_said_twice_in_a_sentence_has_no_confidence_where_confidence_is_asked_for(text, is_shown):
    for least, shown in ((-1.0, is_shown), (None, True)):
        found = validate(text, mean_logprob=-0.1, min_mean_logprob=least, ended="stop", is_known=KNOWN, source="")
        assert (found.verdict == Verdict.SHOWN) == shown


def test_a_sync_writes_only_what_differs_and_removes_what_is_gone(tmp_path):
    pages = render_site(make_view(), {})
    assert len(make_docs(tmp_path / "d", pages).written) == 9
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*")}
    again = make_docs(tmp_path / "d", pages)
    assert (again.written, again.unchanged, again.removed) == ([], 9, [])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*")} == times
    fewer = render_site(make_view({"src/wrap.py": SOURCES["src/wrap.py"]}), {})
    with open_safe_folder(tmp_path, "d", create=False) as folder:
        left = folder.stage("src/left.md", b"a killed run's")
    like_ours = tmp_path / "d" / "src" / ".rotary-0123456789abcdef-0123456789abcdef"
    like_ours.write_text("somebody's")
    assert (tmp_path / "d" / "src" / left.temporary).exists()
    assert make_docs(tmp_path / "d", fewer).removed == ["src/box.py.md"]
    assert [path.name for path in sorted((tmp_path / "d" / "src").iterdir())] == [
        like_ours.name,
        "index.md",
        "wrap.py.md",
    ]


def test_an_edited_page_is_kept_until_a_person_settles_it(tmp_path):
    docs, pages = tmp_path / "d", render_site(make_view(), {})
    make_docs(docs, pages)
    page = docs / "src" / "box.py.md"
    page.write_text(page.read_text() + "\nMy own words.\n")
    edited = page.read_bytes()
    done = make_docs(docs, pages)
    assert (done.conflicts, page.read_bytes()) == (["src/box.py.md"], edited)
    assert (docs / "src" / "box.py.md.rotary-new").read_bytes() == pages["src/box.py.md"]
    settle(docs, "src/box.py.md", "theirs")
    done = make_docs(docs, pages)
    assert (done.conflicts, done.written) == ([], [])
    assert "My own words." in page.read_text()
    assert read(page.read_bytes()).is_human
    other = docs / "src" / "wrap.py.md"
    other.write_text("all mine")
    assert make_docs(docs, pages).conflicts == ["src/wrap.py.md"]
    settle(docs, "src/wrap.py.md", "ours")
    assert other.read_bytes() == pages["src/wrap.py.md"]
    assert make_docs(docs, pages).conflicts == []
    assert mark_human(mark_human(b"text")) == mark_human(b"text")
    with pytest.raises(InputError, match="no such page"):
        settle(docs, "none.md", "ours")


def test_a_docs_folder_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "d").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="symbolic link"):
        make_docs(tmp_path / "d", {"index.md": b"x"})
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_sync_killed_at_any_step_leaves_every_page_old_or_new(tmp_path):
    """Killed before each sync and each rename in turn; the more of them were done, the more pages are new."""
    script = (
        "import os, pickle, signal, sys\nfrom pathlib import Path\nfrom rotary_batch.pages.files import SyncResult, sync_pages\n"
        "from rotary_batch.pages.safe_folder import open_safe_folder\n"
        "n = [int(sys.argv[2])]\n"
        "def counted(call):\n"
        "  def step(*a, **k):\n    n[0] -= 1\n    if n[0] == 0: os.kill(os.getpid(), signal.SIGKILL)\n    return call(*a, **k)\n"
        "  return step\n"
        "docs = Path(sys.argv[1])\n"
        "os.fsync, os.rename = counted(os.fsync), counted(os.rename)\n"
        "with open_safe_folder(docs.parent, docs.name, create=True) as folder:\n"
        "  sync_pages(folder, pickle.load(sys.stdin.buffer).items(), SyncResult())"
    )
    paths = ["a.md", "b.md", "src/c.md", "src/d.md"]
    old, new = ({path: seal({"title": path}, [], f"{word} " * 900) for path in paths} for word in ("old", "new"))
    num_new, count = [], 0
    while not num_new or num_new[-1] is not None:
        count += 1
        docs = tmp_path / str(count)
        make_docs(docs, old)
        done = subprocess.run(
            [sys.executable, "-c", script, str(docs), str(count)], input=pickle.dumps(new), env=os.environ
        )
        found = {path: (docs / path).read_bytes() for path in old}
        assert all(page in (old[path], new[path]) for path, page in found.items())
        num_new.append(sum(found[path] == new[path] for path in found) if done.returncode else None)
        assert done.returncode in (0, -signal.SIGKILL)
        make_docs(docs, new)
        assert {path: (docs / path).read_bytes() for path in new} == new
        assert {path.relative_to(docs).as_posix() for path in docs.rglob("*") if path.is_file()} == set(paths)
    assert num_new[:-1] == sorted(num_new[:-1])
    assert set(num_new[:-1]) == set(range(len(old)))


def test_drift_is_found_without_a_database(tmp_path):
    view = make_view()
    blobs = {path: file.blob for path, file in view.sources.items()}
    make_docs(tmp_path, render_site(view, {}))
    assert drift_of(tmp_path, blobs).num_found == 0
    changed = drift_of(tmp_path, blobs | {"src/box.py": "other"})
    assert (changed.stale, changed.missing, changed.edited, changed.orphaned) == (
        ["src/box.py.md", "src/index.md"],
        [],
        [],
        [],
    )
    more = drift_of(tmp_path, blobs | {"new.py": "n"})
    assert (more.stale, more.missing) == (["index.md", "onboarding.md"], ["new.py.md"])
    fewer = drift_of(tmp_path, {"src/wrap.py": blobs["src/wrap.py"]})
    assert (fewer.orphaned, fewer.stale) == (["src/box.py.md"], ["src/index.md"])
    (tmp_path / "index.md").write_text("mine")
    assert drift_of(tmp_path, blobs).edited == ["index.md"]


def test_several_definitions_of_a_name_have_one_section_that_names_them_all():
    text = '@overload\ndef f(a: int): ...\n@overload\ndef f(a: str): ...\ndef f(a):\n    """Back."""\n    return a\n'
    page = render_site(make_view({"src/a.py": text}), {})["src/a.py.md"].decode()
    assert page.count("## `f`") == 1
    assert "Function, [lines 5-7](../../src/a.py#L5-L7) (also [lines 1-2](../../src/a.py#L1-L2), [lines 3-4]" in page
    assert "def f(a)\n" in page


OVERLOADED = {
    "a.ts": "/** From text. */\nexport function f(a: string): T\n/** From bytes. */\nexport function f(a: Buffer): T\n"
    "export function f(a: any): T { return a }\n",
    "a.py": '@overload\ndef f(a: str) -> T: ...\n@overload\ndef f(a: bytes) -> T: ...\ndef f(a):\n    """Both."""\n',
    "A.java": "class A {\n  /** From text. */\n  T f(String a) { return a; }\n  T f(byte[] a) { return a; }\n}\n",
}


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (
            "a.ts",
            "```typescript\nfunction f(a: string): T\n```\n\nFrom text.\n\n"
            "```typescript\nfunction f(a: Buffer): T\n```\n\nFrom bytes.\n",
        ),
        ("a.py", "```python\ndef f(a: str) -> T\ndef f(a: bytes) -> T\ndef f(a)\n```\n\nBoth.\n"),
        ("A.java", "```java\nT f(String a)\nT f(byte[] a)\n```\n\nFrom text.\n"),
    ],
)
def test_every_overload_is_shown_with_its_own_words(path, shown):
    page = render_site(make_view({path: OVERLOADED[path]}), {})[f"{path}.md"].decode()
    assert page.endswith(shown)


DECORATED = {
    "jar.py": ("class Jar:\n    @staticmethod\n    @cache(size=2)\n    async def lid(): ...\n", "@staticmethod\n@cache(size=2)\nasync def lid()"),
    "Jar.java": ("/** J. */\n@Deprecated\n@Named(\"jar\")\npublic class Jar {}\n", '@Deprecated\n@Named("jar")\npublic class Jar'),
    "jar.ts": ("@Sealed()\nexport class Jar {}\n", "@Sealed()\nclass Jar"),
    "jar.rs": ("#[inline]\npub fn lid() {}\n", "#[inline]\npub fn lid()"),
    "jar.cs": ("[Serializable]\npublic class Jar {}\n", "[Serializable]\npublic class Jar"),
    "jar.php": ("<?php\n#[Entity]\nclass Jar {}\n", "#[Entity]\nclass Jar"),
    "jar.kt": ("@Frozen(1)\nprivate data class Jar(val a: Int)\n", "@Frozen(1)\nprivate data class Jar(val a: Int)"),
    "jar.swift": ("@objc public class Jar {}\n", "@objc\npublic class Jar"),
    "jar.scala": ("@frozen final class Jar\n", "@frozen\nfinal class Jar"),
}  # fmt: skip


@pytest.mark.parametrize("path", DECORATED)
def test_decorators_are_above_their_signature(path):
    text, shown = DECORATED[path]
    assert f"\n{shown}\n```\n" in render_site(make_view({path: text}), {})[f"{path}.md"].decode()


@pytest.mark.parametrize(
    ("path", "text", "shown"),
    [
        ("jar.py", "def lid(\n    a: int,\n    b: tuple = (1,),\n) -> int: ...\n", "def lid(a: int, b: tuple = (1,)) -> int"),
        ("jar.ts", "export function lid(\n  a: number,\n  b: number,\n): void {}\n", "function lid(a: number, b: number): void"),
        ("jar.rs", "pub fn lid(\n    a: u8,\n    b: (u8,),\n) -> u8 { a }\n", "pub fn lid(a: u8, b: (u8,)) -> u8"),
        ("jar.go", "package a\n\nfunc Lid(\n\ta int,\n\tb int,\n) error { return nil }\n", "func Lid(a int, b int) error"),
    ],
)  # fmt: skip
def test_a_signature_of_several_lines_reads_as_one(path, text, shown):
    assert f"\n{shown}\n```\n" in render_site(make_view({path: text}), {})[f"{path}.md"].decode()


def test_overloads_without_end_are_cut_off():
    text = "".join(f"export function f(a: T{number}): void\n" for number in range(1000))
    page = render_site(make_view({"a.ts": text}), {})["a.ts.md"].decode()
    assert page.count("function f(") == MAX_OVERLOADS


def test_summaries_are_whole_sentences_without_rulers():
    text = '"""\nTables of rows\n======\n\nMore.\n"""\n\ndef f():\n    """Makes rows (i.e. ``list``) of them. And more."""\n'
    pages = render_site(make_view({"src/a.py": text}), {})
    page = pages["src/a.py.md"].decode()
    assert "| Makes rows (i.e. `list`) of them. |" in page
    assert "\n\nTables of rows\n\nMore.\n\n" in page
    assert "[src/a.py](src/a.py.md): Tables of rows\n" in pages["llms.txt"].decode()
    empty = render_site(make_view({"src/__init__.py": ""}), {})["src/__init__.py.md"].decode()
    assert "Code without functions or types." in empty
    assert '"lines"' not in empty


def test_an_answer_that_breaks_off_in_a_bracket_loses_its_last_sentence():
    for text, shown in [
        ("Parse math expression (e.g.", None),
        ("It works. Parse math (e.g. `put`", "It works."),
        ("Put it in", "Put it in"),
    ]:
        found = validate(text, mean_logprob=-0.1, min_mean_logprob=None, ended="stop", is_known=KNOWN, source="put")
        assert found.shown_text == shown


def test_the_words_of_what_a_file_is_named_after_are_about_the_file():
    texts = {
        "src/row_set.py": 'class RowSet:\n    """Draws rows."""\n\n\ndef other():\n    pass\n',
        "src/c.py": 'def d():\n    """Not about the file."""\n',
    }
    page = render_site(make_view(texts), {})["src/index.md"].decode()
    assert "| [`row_set.py`](row_set.py.md) | Draws rows. |" in page
    assert "| [`c.py`](c.py.md) | Defines `d`. |" in page


NAMED = {
    "tin.h": "/* {} */\ntypedef struct tin {{ int lid; }} tin;\n",
    "tin.hpp": "/** {} */\nclass tin {{ int lid; }};\n",
    "Tin.java": "/** {} */\nclass Tin {{ }}\n",
    "Tin.kt": "/** {} */\nclass Tin\n",
    "Tin.scala": "/** {} */\nclass Tin\n",
    "Tin.swift": "/// {}\nclass Tin {{ }}\n",
    "Tin.cs": "/// {}\nclass Tin {{ }}\n",
    "Tin.php": "<?php\n/** {} */\nclass Tin {{ }}\n",
    "tin.go": "package a\n\n// {}\ntype Tin struct{{}}\n",
    "tin.rs": "/// {}\nstruct Tin;\n",
    "tin.rb": "# {}\nclass Tin\nend\n",
    "tin.ts": "/** {} */\nexport class Tin {{ }}\n",
    "tin.js": "/** {} */\nexport class Tin {{ }}\n",
    "tin.py": 'class Tin:\n    """{}"""\n',
}


@pytest.mark.parametrize("path", NAMED)
@pytest.mark.parametrize(
    "words",
    [
        "All of the fields of this struct are private. Really.",
        "Internals of this type are private.",
        "The fields must not be written.",
        "This class is not part of the API.",
        "Do not use this one in new code.",
        "Note: not for threads.",
        "Internal use only.",
    ],
)
def test_how_a_type_may_be_used_does_not_sum_up_its_file(path, words):
    def summary(text):
        page = render_site(make_view({f"a/{path}": NAMED[path].format(text)}), {})["a/index.md"].decode()
        return re.search(rf"\| \[`{path}`\]\([^)]*\) \| (.*) \|", page)[1]

    assert summary(words).startswith("Defines `")
    assert summary("Holds lids of the fields of this farm.") == "Holds lids of the fields of this farm."
    assert summary("This class represents a tin. It is not private.").startswith("This class represents a tin.")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("lids.go", "package tin\n\ntype Tin struct{}\n\n// Lids has all lids.\nfunc (t Tin) Lids() {}\n"),
        ("lids.py", 'class Tin:\n    def lids(self):\n        """All lids."""\n'),
        ("lids.rs", "pub struct Tin;\nimpl Tin {\n    /// All lids.\n    pub fn lids(&self) {}\n}\n"),
        ("Lids.ts", "export class Tin {\n  /** All lids. */\n  lids() {}\n}\n"),
        ("lids.c", "#define HAS_LIDS 1\n#define LIDS 2\n\nstruct Tin { int /* All lids. */ lids; };\n"),
    ],
)
def test_no_file_is_about_a_part_of_a_type_or_about_macros_first(path, text):
    page = render_site(make_view({path: text}), {})[f"{path}.md"].decode()
    assert re.search(r"\n\nDefines `Tin`(, `HAS_LIDS` and `LIDS`)?\.\n", page)


@pytest.mark.parametrize(
    ("path", "text", "table"),
    [
        ("a.ts", "export interface Tin {\n  /** How deep. @default 80 */\n  depth?: number\n  /** @deprecated use depth */\n  size: number\n}\n",
         "| Field | Summary |\n| --- | --- |\n| `depth?: number` | How deep. Default: `80` |\n| `size: number` | Deprecated. |\n"),
        ("a.py", 'class Tin(Enum):\n    LOW = 1\n    """Not deep."""\n', "| Member | Summary |\n| --- | --- |\n| `LOW = 1` | Not deep. |\n"),
        ("A.java", "enum Tin { /** Not deep. */ LOW }\n", "| Member | Summary |\n| --- | --- |\n| `LOW` | Not deep. |\n"),
        ("a.rs", "pub enum Tin { /** Not deep. */ Low, /** Deep. */ High }\n", "| Member | Summary |\n| --- | --- |\n| `Low` | Not deep. |\n| `High` | Deep. |\n"),
        ("b.c", "enum tin { /* Not deep. */ LOW, HIGH };\n", "| Member | Summary |\n| --- | --- |\n| `LOW` | Not deep. |\n| `HIGH` |  |\n"),
        ("a.c", "enum tin { LOW /* Not deep. */ };\n", "| Member | Summary |\n| --- | --- |\n| `LOW` | Not deep. |\n"),
    ],
)  # fmt: skip
def test_a_table_of_fields_has_defaults_and_that_of_an_enum_has_members(path, text, table):
    assert table in render_site(make_view({path: text}), {})[f"{path}.md"].decode()


@pytest.mark.parametrize(
    ("path", "text", "summary"),
    [
        ("lid.go", "package tin\n\nfunc (t *Tin) Open() {}\nfunc (t *Tin) close() {}\n", "`Tin.Open` and `Tin.close`"),
        ("lid.rs", "impl Open for Tin { fn open(&self) {} }\n", "`Tin.open`"),
        ("sizes.py", "LIMIT = 3\n", "`LIMIT`"),
        ("tin.py", "LIMIT = 3\n\n\ndef lid(): ...\n", "`lid`"),
    ],
)
def test_a_file_is_summarised_by_functions_and_types_else_by_what_it_has(path, text, summary):
    shown = render_site(make_view({path: text}), {})[f"{path}.md"].decode()
    assert f"\n\nDefines {summary}.\n" in shown
