"""Files that are meant to take all time or memory: each costs its own syntax, and all together a bounded time."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import rotary_batch.repo.parse as parse_module
from rotary_batch.core import FileClass, ParsedFile, SourceFile
from rotary_batch.errors import UnavailableError
from rotary_batch.repo.files import classify
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.parse import parse_file, parse_files
from rotary_batch.repo.symbols import extract, parse
from rotary_batch.testing import ByteCounter, resolve


def file_of(path: str, source: bytes, language: str = "python") -> tuple[SourceFile, bytes]:
    return SourceFile(
        path=path, blob="0", nbytes=len(source), language=language, file_class=FileClass.SOURCE, reason=""
    ), source


def parsed(files: list[tuple[SourceFile, bytes]], checkpoint: Path, **options) -> list[ParsedFile]:
    """What comes back, in order and complete."""
    found = list(parse_files(files, tokenizer_dir=checkpoint, budget_tokens=64, **options))
    assert [one.file.path for one in found] == [file.path for file, _ in files]
    for one, (_, source) in zip(found, files, strict=True):
        assert b"".join(source[c.start_byte : c.end_byte] for c in one.chunks) == source
    return found


def hang_crash_or_parse(file, source, budget_tokens, tokenizer):
    if b"hang" in source:
        time.sleep(600)
    if b"eat" in source:
        bytearray(8 * 10**9)
    if b"crash" in source:
        os.kill(os.getpid(), signal.SIGKILL)
    if b"bug" in source:
        raise KeyError(source)
    return parse_file(file, source, budget_tokens, tokenizer)


def test_many_bombs_waste_a_bounded_time_and_what_is_then_not_tried_says_so(tiny_checkpoint, monkeypatch):
    """Of 60 files that hang a few are waited for, each a shorter time; files before and after have their chunks."""
    monkeypatch.setattr(parse_module, "MAX_WASTED_S", 12.0)
    bombs = [file_of(f"b{n:02}.py", b"hang\n") for n in range(60)]
    files = [file_of("a.py", b"def f(): pass\n"), *bombs, file_of("z.py", b"def g(): pass\n")]
    began = time.monotonic()
    found = parsed(files, tiny_checkpoint, parse_one=hang_crash_or_parse, timeout_s=2.0)
    assert time.monotonic() - began < 100  # 12 s, starts of processes, and a machine ten times slower
    reasons = [one.fallback for one in found]
    assert reasons[0] is None
    tried = reasons.count("parsing took too long")
    untried = reasons.count("not parsed, since parsing other files of this repository took too long without a result")
    assert 2 <= tried < 20
    assert tried + untried in {60, 61}
    assert [symbol.name for symbol in found[0].symbols] == ["f"]


def test_workers_that_are_killed_run_out_of_memory_or_fail_are_replaced(tiny_checkpoint):
    sources = [b"crash\n", b"x = 1\n", b"eat\n", b"bug\n", b"def f(): pass\n"] * 2
    files = [file_of(f"m{n}.py", source) for n, source in enumerate(sources)]
    found = parsed(files, tiny_checkpoint, parse_one=hang_crash_or_parse, num_workers=1)
    assert [one.fallback for one in found] == [
        "the parser crashed",
        None,
        "parsing took too much memory",
        "the parser failed with KeyError",
        None,
    ] * 2


def test_a_worker_that_is_killed_while_it_has_nothing_to_do_is_replaced(tiny_checkpoint):
    """As a system does that is out of memory."""

    def files():
        yield file_of("a.py", b"def f(): pass\n")
        yield file_of("b.py", b"def g(): pass\n")
        for process in parse_module.multiprocessing.active_children():
            process.kill()
            process.join()
        yield file_of("c.py", b"def h(): pass\n")

    found = list(parse_files(files(), tokenizer_dir=tiny_checkpoint, budget_tokens=64, num_workers=1))
    assert [(one.fallback, [symbol.name for symbol in one.symbols]) for one in found] == [
        (None, ["f"]),
        (None, ["g"]),
        (None, ["h"]),
    ]


def test_a_worker_that_dies_at_its_start_is_not_started_for_ever(tiny_checkpoint, monkeypatch):
    started = []
    start = parse_module.multiprocessing.context.SpawnProcess.start

    def counted(self):
        started.append(self)
        start(self)

    monkeypatch.setattr(parse_module.multiprocessing.context.SpawnProcess, "start", counted)
    monkeypatch.setattr(parse_module, "_work", os.abort)
    with pytest.raises(UnavailableError, match="end before they begin"):
        list(parse_files([file_of("a.py", b"x\n")], tokenizer_dir=tiny_checkpoint, budget_tokens=64, num_workers=1))
    assert len(started) == parse_module.MAX_STARTS


def send_me_signals_and_parse(file, source, budget_tokens, tokenizer):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return parse_file(file, source, budget_tokens, tokenizer)


def test_ctrl_c_and_sigterm_end_no_worker_from_its_very_start(tiny_checkpoint, monkeypatch, capfd):
    start = parse_module.multiprocessing.context.SpawnProcess.start

    def start_and_interrupt(process):
        start(process)
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)

    monkeypatch.setattr(parse_module.multiprocessing.context.SpawnProcess, "start", start_and_interrupt)
    files = [file_of(f"m{n}.py", b"def f(): pass\n") for n in range(3)]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    found = parsed(files, tiny_checkpoint, parse_one=send_me_signals_and_parse, num_workers=1)
    assert [one.fallback for one in found] == [None] * 3
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert "Traceback" not in capfd.readouterr().err


def alarm_left(file, source, budget_tokens, tokenizer):
    raise type(f"Alarm{200 - signal.alarm(0) < 20}", (Exception,), {})


def test_a_worker_whose_starter_is_gone_ends_by_itself(tiny_checkpoint):
    """An alarm is set in it; the default action ends a process in the midst of a parser that never returns."""
    found = parsed([file_of("a.py", b"x = 1\n")], tiny_checkpoint, parse_one=alarm_left)
    assert [one.fallback for one in found] == ["the parser failed with AlarmTrue"]


DEEP = 30_000
BOMBS = {
    "parens.py": (b"x = " + b"(\n" * DEEP + b")\n" * DEEP, "python"),
    "calls.js": (b"f(\n" * DEEP + b")\n" * DEEP, "javascript"),
    "blocks.go": (b"package p\nfunc f() {\n" + b"{\n" * DEEP + b"}\n" * DEEP + b"}\n", "go"),
    "classes.java": (b"class A {\n" * 2000 + b"}\n" * 2000, "java"),
    "many.js": (b"".join(b"function f%d(){}\n" % n for n in range(10_000)), "javascript"),
    "names.py": (b"".join(b"def %s%d(): pass\n" % (b"n" * 15_000, n) for n in range(10)), "python"),
    "references.py": (b"def f():\n" + b"  g(); h.i()\n" * 10_000, "python"),
    "imports.py": (b"".join(b"import m%d\n" % n for n in range(10_000)), "python"),
    "lines.c": (b"\n" * 200_000 + b"int f() { return 1; }\n", "c"),
    "unclosed.rs": (b"fn f() { " + b'"' * 10_000 + b"/*" * 5_000, "rust"),
    "ternaries.ts": (b"x = " + b"a ? b :\n" * 15_000 + b"c;\n", "typescript"),
}


@pytest.mark.timeout(280)
def test_deep_wide_and_long_files_come_back_whole(tiny_checkpoint):
    """Parsed, or cut at lines with the reason; never a crash of this process, and never the end of the others."""
    files = [file_of(path, source, language) for path, (source, language) in BOMBS.items()]
    files += [file_of("good.py", b"def good(): pass\n")]
    found = list(parse_files(files, tokenizer_dir=tiny_checkpoint, budget_tokens=4000, num_workers=2, timeout_s=2.0))
    by_path = {one.file.path: one for one in found}
    assert list(by_path) == [*BOMBS, "good.py"]
    for path, (source, _) in BOMBS.items():
        assert sum(chunk.end_byte - chunk.start_byte for chunk in by_path[path].chunks) == len(source)
    assert [symbol.name for symbol in by_path["good.py"].symbols] == ["good"]
    assert by_path["names.py"].symbols == ()
    symbols = [symbol for one in found for symbol in one.symbols]
    assert max(map(len, (symbol.qualified_name for symbol in symbols)), default=0) < 51 * 201
    resolve(found)


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("javascript", "function g() { %s1%s }"),
        ("typescript", "function g() { %s1%s }"),
        ("python", "def g():\n    %s1%s\n"),
        ("go", "package p\nfunc g() { %s1%s }"),
        ("rust", "fn g() { %s1%s }"),
        ("java", "class A { void g() { %s1%s; } }"),
        ("c", "void g() { %s1%s; }"),
        ("cpp", "void g() { %s1%s; }"),
        ("php", "<?php function g() { %s1%s; }"),
        ("c_sharp", "class A { void g() { %s1%s; } }"),
        ("ruby", "def g\n  %s1%s\nend\n"),
        ("kotlin", "fun g() { %s1%s }"),
        ("swift", "func g() { %s1%s }"),
        ("scala", "object A { def g() = %s1%s }"),
        ("lua", "function g() %s1%s end"),
    ],
)
def test_calls_are_read_down_to_a_depth_that_no_code_has(language, source):
    """Each level further down costs all of those above it: 10,000 took 20 s."""
    calls = {}
    for depth in (200, 3000, 6000):
        text = (source % ("g(" * depth, ")" * depth)).encode()
        calls[depth] = len(extract(language, text, "a", parse(language, text)).references)
    assert calls[200] == 200
    assert 200 <= calls[3000] == calls[6000] < 1000


@pytest.mark.timeout(30)  # one of them took 80 s
@pytest.mark.parametrize(
    ("language", "head"),
    [
        ("javascript", "class A extends%sB"),
        ("python", "class A(B,%sC)"),
        ("typescript", "class A extends%sB"),
        ("go", "func f(a%sint)"),
        ("rust", "fn f(a: u8)%s-> u8"),
        ("java", "class A extends%sB"),
        ("c", "int%sf(int a)"),
        ("cpp", "class A :%sB"),
    ],
)
def test_a_head_of_thousands_of_line_breaks_is_one_line(language, head):
    body = ":\n    pass\n" if language == "python" else " {}\n"
    source = (head % ("\r\n" * 2000) + body).encode()
    (symbol,) = extract(language, source, "a", parse(language, source)).symbols
    assert symbol.signature == head % " "


def test_one_long_line_and_large_files_are_not_parsed_at_all(make_repository):
    root = make_repository({"a.js": "x" * 3_000_000, "b.py": "x = '" + "y" * 200_000 + "'\n", "c.py": "x = 1\n"})
    found = {file.path: file.file_class.value for file in classify(open_repository(root), docs_dir="d")}
    assert found == {"a.js": "oversized", "b.py": "minified", "c.py": "source"}


@pytest.mark.timeout(120)
def test_common_names_long_families_and_deep_classes_resolve_in_linear_time():
    """Many classes of one name, a line of 3,000 that each inherit from the one before, references to all."""

    texts = {f"same{n}.py": "class Meta:\n    def m(self):\n        self.x(); Meta.m()\n" for n in range(2000)}
    texts["line.py"] = "class C0:\n    def base(self): pass\n" + "".join(
        f"class C{n}(C{n - 1}):\n    def m{n}(self):\n        self.nothing(); self.base()\n" for n in range(1, 3000)
    )
    found = [parse_file(*file_of(path, text.encode()), 10_000, ByteCounter()) for path, text in texts.items()]
    symbols = [symbol for one in found for symbol in one.symbols]
    calls = resolve(found)
    names = {symbol.id: f"{symbol.path}:{symbol.qualified_name}" for symbol in symbols}
    pairs = {(names[call.caller], names[call.callee]) for call in calls}
    assert ("line.py:C1.m1", "line.py:C0.base") in pairs
    assert ("line.py:C40.m40", "line.py:C0.base") in pairs
    assert ("line.py:C2999.m2999", "line.py:C0.base") not in pairs  # further than any real family reaches
