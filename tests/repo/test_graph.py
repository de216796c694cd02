"""The graph: a name links only where scope says so, in every language, and never by guessing."""

from __future__ import annotations

import pytest

from rotary_batch.core import FileClass, ParsedFile, SourceFile
from rotary_batch.repo.churn import recent_changes
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.graph import page_rank, priorities
from rotary_batch.repo.languages import language_of
from rotary_batch.repo.parse import parse_file
from rotary_batch.repo.resolve.resolver import Resolver
from rotary_batch.testing import ByteCounter, MemoryNames, resolve


def parsed(texts: dict[str, str]) -> list[ParsedFile]:
    files = [
        SourceFile(
            path=path, blob="", nbytes=1, language=language_of(path), file_class=FileClass.SOURCE, reason="a test"
        )
        for path in texts
    ]
    return [parse_file(file, texts[file.path].encode(), 10_000, ByteCounter()) for file in files]


def calls_of(texts: dict[str, str], manifests: dict[str, str] | None = None) -> set[str]:
    """`path:caller > path:callee` of small sources."""
    files = parsed(texts)
    names = {symbol.id: f"{symbol.path}:{symbol.qualified_name}" for one in files for symbol in one.symbols}
    calls = resolve(files, {path: text.encode() for path, text in (manifests or {}).items()})
    return {f"{names[call.caller]} > {names[call.callee]}" for call in calls}


def resolver_of(texts: dict[str, str], manifests: dict[str, str] | None = None) -> tuple[Resolver, list[ParsedFile]]:
    files = parsed(texts)
    return Resolver(MemoryNames(files, {path: text.encode() for path, text in (manifests or {}).items()})), files


def imported(texts: dict[str, str], manifests: dict[str, str] | None = None) -> dict[str, str | None]:
    """Module as written -> the file that it is."""
    resolver, files = resolver_of(texts, manifests)
    return {one.module: resolver.imported(one) for file in files for one in file.imports if one.module}


UNSEEN = {
    "kotlin": (
        "b/b.kt",
        "fun send() {}",
        "a/a.kt",
        "fun run(x: Any) { send(); x.run2(); println(1) }\nfun other(y: Any) { y.run() }",
    ),
    "swift": (
        "b/b.swift",
        "func send() {}",
        "a/a.swift",
        "func run(x: Any) { send(); print(1) }\nfunc other(y: Any) { y.run() }",
    ),
    "scala": (
        "b/b.scala",
        "def send() = 1",
        "a/a.scala",
        "def run(x: Any) = { send(); println(1) }\ndef other(y: Any) = { y.run() }",
    ),
    "lua": (
        "b/b.lua",
        "function send() end",
        "a/a.lua",
        "function run(x) send(); print(1) end\nfunction other(y) y.run(); y:run() end",
    ),
    "c_sharp": (
        "b/b.cs",
        "class B { static void Send() {} }",
        "a/a.cs",
        "class A { void Run(object x) { Send(); x.Other(); } void Other() { } }",
    ),
    "php": (
        "b/b.php",
        "<?php function send() {}",
        "a/a.php",
        "<?php function run($x) { send(); $x->other(); strlen('x'); }\nfunction other() {}",
    ),
    "ruby": (
        "b/b.rb",
        "def send_it; end",
        "a/a.rb",
        "def run(x)\n  send_it(1)\n  x.other(1)\n  puts(1)\nend\ndef other(y)\nend",
    ),
    "python": (
        "b.py",
        "def close(x): pass\ndef send(x): pass\n",
        "a.py",
        "def run():\n    close(1); send(2); print(3)\n",
    ),
    "javascript": (
        "b.js",
        "export function fetch(u) {}\nexport function send() {}",
        "a.js",
        "function run() { fetch(1); send(2); JSON.parse('') }",
    ),
    "typescript": (
        "b.ts",
        "export function parse(u: string) {}",
        "a.ts",
        "function run() { parse('') ; parseInt('') }",
    ),
    "go": (
        "b/b.go",
        "package b\nfunc Send() {}\nfunc close() {}",
        "a/a.go",
        "package a\nfunc run(c chan int) { Send(); close(c) }",
    ),
    "rust": ("src/b.rs", "pub fn send() {}", "src/a.rs", "fn run() { send(); drop(1) }"),
    "java": (
        "b/B.java",
        "package b; class B { static void send() {} }",
        "a/A.java",
        "package a; class A { void run() { send(); B.send(); } }",
    ),
    "c": (
        "b.c",
        "static void send_all(void) {}\nint read(int f) { return f; }",
        "a.c",
        "void run(void) { send_all(); read(1); }",
    ),
    "cpp": ("b.cpp", "static void send_all() {}", "a.cpp", "void run() { send_all(); }"),
}


@pytest.mark.parametrize("language", UNSEEN)
def test_what_is_neither_here_nor_imported_links_to_nothing(language):
    other, there, path, here = UNSEEN[language]
    assert calls_of({other: there, path: here}) == set()


SHADOWED = {
    "kotlin": (
        "a.kt",
        "fun job() {}\nfun p(job: () -> Unit) { job() }\nfun l() { val job = get(); job() }\nfun m(x: List<F>) { x.map { job -> job() } }\nfun i(x: List<F>) { for (job in x) { job() } }",
    ),
    "swift": (
        "a.swift",
        "func job() {}\nfunc p(job: F) { job() }\nfunc q(_ job: F) { job() }\nfunc l() { let job = get(); job() }\nfunc i(x: [F]) { for job in x { job() } }",
    ),
    "scala": (
        "a.scala",
        "def job() = 1\ndef p(job: F) = { job() }\ndef l() = { val job = get(); job() }\ndef m(x: List[F]) = { x.map(job => job()) }",
    ),
    "lua": (
        "a.lua",
        "function job() end\nfunction p(job) job() end\nfunction l() local job = get(); job() end\nfunction i(x) for _, job in pairs(x) do job() end end",
    ),
    "c_sharp": (
        "a.cs",
        "class A { void Job() {} void P(Action Job) { Job(); } void L() { var Job = Get(); Job(); } void M(X x) { x.Map(Job => Job()); } }",
    ),
    "python": (
        "a.py",
        "def job(): pass\ndef by_parameter(job): job()\ndef by_local():\n    job = open('x')\n    job()\ndef by_loop(all):\n    for job in all: job()\ndef by_lambda(): return lambda job: job()\ndef by_with(x):\n    with x as job: job()\n",
    ),
    "javascript": (
        "a.js",
        "function job() {}\nfunction p(job) { job() }\nfunction l() { const job = get(); job() }\nconst r = (job) => job()\nfunction d({ job }) { job() }\nfunction c() { try {} catch (job) { job() } }",
    ),
    "typescript": (
        "a.ts",
        "function job() {}\nfunction p(job: () => void) { job() }\nfunction l() { let job = get(); job() }",
    ),
    "go": (
        "a.go",
        "package a\nfunc job() {}\nfunc p(job func()) { job() }\nfunc l() { job := get(); job() }\nfunc r(all []func()) { for _, job := range all { job() } }",
    ),
    "rust": (
        "src/lib.rs",
        "fn job() {}\nfn p(job: impl Fn()) { job() }\nfn l() { let job = get(); job() }\nfn m(x: Option<F>) { if let Some(job) = x { job() } }",
    ),
    "c": (
        "a.c",
        "void job(void) {}\nvoid p(void (*job)(void)) { job(); }\nvoid l(void) { void (*job)(void) = get; job(); }",
    ),
    "cpp": ("a.cpp", "void job() {}\nvoid p(Fn job) { job(); }\nvoid l() { auto job = [] { return 1; }; job(); }"),
}


@pytest.mark.parametrize("language", SHADOWED)
def test_parameters_and_locals_shadow(language):
    path, text = SHADOWED[language]
    assert calls_of({path: text}) == set()


TYPED = {
    "kotlin": (
        {
            "a/box.kt": "package a\nclass Box { fun put() {} }",
            "a/app.kt": "package a\nclass App(val one: Box) { val two: Box = get()\n fun go(x: Box, y: Other) { x.put(); y.put(); one.put(); this.two.put(); val z = Box(); z.put(); stay() }\n fun stay() {} }",
        },
        {"a/app.kt:App.go > a/box.kt:Box.put", "a/app.kt:App.go > a/box.kt:Box", "a/app.kt:App.go > a/app.kt:App.stay"},
    ),
    "c_sharp": (
        {
            "a/Box.cs": "namespace N { class Box { public void Put() {} } }",
            "a/App.cs": "namespace N { class App : Base { Box one; void Go(Box x, Other y) { x.Put(); y.Put(); one.Put(); this.one.Put(); var z = new Box(); z.Put(); } } }",
        },
        {"a/App.cs:N.App.Go > a/Box.cs:N.Box.Put", "a/App.cs:N.App.Go > a/Box.cs:N.Box"},
    ),
    "python": (
        {
            "lib/box.py": "class Box:\n    def put(self): return self\n    def make() -> 'Box': pass\n",
            "app.py": "from lib.box import Box as Crate\nimport lib.box as boxes\nclass App:\n    def __init__(self, one: Crate):\n        self.one = one\n        self.two = boxes.Box()\n    def go(self, x: 'Crate | None', y):\n        x.put(); y.put(); self.one.put(); self.two.put()\n        z = Crate.make()\n        z.put()\n",
        },
        {
            "app.py:App.__init__ > lib/box.py:Box",
            "app.py:App.go > lib/box.py:Box.put",
            "app.py:App.go > lib/box.py:Box.make",
        },
    ),
    "typescript": (
        {
            "lib/box.ts": "export class Box { put() {} static make(): Box { return new Box() } }",
            "app.ts": "import { Box as Crate } from './lib/box'\nimport * as boxes from './lib/box'\nclass App {\n  one: Crate\n  constructor(private two: boxes.Box) { this.one = new Crate() }\n  go(x: Crate | undefined, y) { y.put(); x.put(); this.one.put(); this.two.put(); const z = Crate.make(); z.put() }\n}",
        },
        {
            "lib/box.ts:Box.make > lib/box.ts:Box",
            "app.ts:App.constructor > lib/box.ts:Box",
            "app.ts:App.go > lib/box.ts:Box.put",
            "app.ts:App.go > lib/box.ts:Box.make",
        },
    ),
    "go": (
        {
            "lib/box.go": "package lib\ntype Box struct{}\nfunc (b *Box) Put() {}\nfunc Make() (*Box, error) { return nil, nil }",
            "app/app.go": 'package app\nimport crates "example.com/m/lib"\ntype App struct { one *crates.Box; two other.Box }\nfunc (a App) Go(x crates.Box, y func()) { x.Put(); a.one.Put(); a.two.Put(); z, err := crates.Make(); z.Put(); err.Put() }',
        },
        {"app/app.go:App.Go > lib/box.go:Box.Put", "app/app.go:App.Go > lib/box.go:Make"},
    ),
    "rust": (
        {
            "src/lib.rs": "mod lib_box; mod app;",
            "src/lib_box.rs": "pub struct Crate; impl Crate { pub fn put(&self) {} pub fn make() -> Self { todo() } }",
            "src/app.rs": "use crate::lib_box::Crate as Box2;\nstruct App { one: Box2 }\nimpl App { fn go(&self, x: &Box2, y: T) { y.put(); self.one.put(); let z = Box2::make(); z.put(); } }",
        },
        {"src/app.rs:App.go > src/lib_box.rs:Crate.put", "src/app.rs:App.go > src/lib_box.rs:Crate.make"},
    ),
    "java": (
        {
            "src/main/java/lib/Box.java": "package lib; public class Box { public void put() {} public static Box make() { return null; } }",
            "src/main/java/app/App.java": "package app; import lib.Box; class App { Box one; void go(Box x, Other y) { y.put(); x.put(); one.put(); this.one.put(); var z = Box.make(); z.put(); } }",
        },
        {
            "src/main/java/app/App.java:App.go > src/main/java/lib/Box.java:Box.put",
            "src/main/java/app/App.java:App.go > src/main/java/lib/Box.java:Box.make",
        },
    ),
    "cpp": (
        {
            "lib/box.hpp": "class Box { public: void put() {} };",
            "app.cpp": '#include "lib/box.hpp"\nclass App { Box one; void go(Box *x, Other y) { y.put(); x->put(); one.put(); this->one.put(); auto z = new Box(); z->put(); } };',
        },
        {"app.cpp:App.go > lib/box.hpp:Box.put", "app.cpp:App.go > lib/box.hpp:Box"},
    ),
}


@pytest.mark.parametrize("language", TYPED)
def test_a_receiver_links_as_far_as_its_type_is_known(language):
    texts, expected = TYPED[language]
    assert calls_of(texts, {"go.mod": "module example.com/m\n"}) == expected


def test_python_names_come_from_the_file_its_functions_and_its_imports():
    assert calls_of(
        {
            "pkg/__init__.py": "from .core import run as start\nfrom .core import *\n",
            "pkg/core.py": "def run(): pass\ndef stop(): pass\ndef _hidden(): pass\n",
            "pkg/sub/__init__.py": "",
            "pkg/sub/deep.py": "from ..core import stop\nfrom .. import core\ndef go():\n    stop(); core.run()\n",
            "src/other/mod.py": "def work(): pass\n",
            "use.py": (
                "import pkg, pkg.core\nimport other.mod as m\nfrom pkg import start\n"
                "def f():\n    start(); pkg.stop(); pkg.core.run(); m.work(); run()\n"
                "def outer():\n    def run(): pass\n    run()\n"
                "def late():\n    from pprint import f\n    f()\n"
                "class A:\n    def run(self): pass\n    def go(self): run(); self.run(); A().run(); super().run()\n"
                "    @classmethod\n    def make(cls): return cls()\n"
            ),
        }
    ) == {
        "pkg/sub/deep.py:go > pkg/core.py:stop",
        "pkg/sub/deep.py:go > pkg/core.py:run",
        "use.py:f > pkg/core.py:run",
        "use.py:f > pkg/core.py:stop",
        "use.py:f > src/other/mod.py:work",
        "use.py:outer > use.py:outer.run",
        "use.py:A.go > use.py:A.run",
        "use.py:A.go > use.py:A",
        "use.py:A.make > use.py:A",
    }


def test_a_local_that_is_another_name_for_something_means_that():
    assert calls_of(
        {
            "a.py": "class Box:\n    def put(self): pass\n    def all(self):\n        put = self.put\n        put()\n        Other = Box\n        Other()\n"
        }
    ) == {"a.py:Box.all > a.py:Box.put", "a.py:Box.all > a.py:Box"}


def test_a_value_of_two_types_is_of_none():
    assert calls_of(
        {
            "a.py": "class A:\n    def m(self): pass\nclass B:\n    def m(self): pass\ndef f(x):\n    y = A()\n    if x: y = B()\n    y.m()\n    z = None\n    z = A()\n    z.m()\n"
        }
    ) == {"a.py:f > a.py:A", "a.py:f > a.py:B", "a.py:f > a.py:A.m"}


def test_javascript_follows_modules_of_both_kinds():
    assert calls_of(
        {
            "lib/a.js": "function work() {}\nfunction other() {}\nmodule.exports = { work, renamed: other }",
            "lib/index.js": "export { default as go, named } from './b'\nexport * from './c.js'",
            "lib/b.mjs": "export default function main() {}\nexport function named() {}",
            "lib/c.ts": "export const arrow = () => 1",
            "lib/d.js": "function one() {}\nmodule.exports = one",
            "use.js": (
                "const a = require('./lib/a')\nconst { renamed: r } = require('./lib/a')\nimport { go, named as n, arrow } from './lib'\n"
                "import * as all from './lib'\nimport d from './lib/d'\nimport { x } from 'elsewhere'\n"
                "function f() { a.work(); r(); go(); n(); arrow(); all.named(); d(); x(); all.missing() }"
            ),
        }
    ) == {
        "use.js:f > lib/a.js:work",
        "use.js:f > lib/a.js:other",
        "use.js:f > lib/b.mjs:main",
        "use.js:f > lib/b.mjs:named",
        "use.js:f > lib/c.ts:arrow",
        "use.js:f > lib/d.js:one",
    }


def test_packages_of_the_workspace_and_paths_of_a_tsconfig_are_files():
    texts = {
        "packages/core/src/index.ts": "export function run() {}",
        "packages/core/src/deep.ts": "export function dive() {}",
        "app/src/shared/log.ts": "export function log() {}",
        "app/src/main.ts": "import { run } from '@me/core'\nimport { dive } from '@me/core/deep'\nimport { log } from '~/log'\nimport z from 'zod'\nfunction f() { run(); dive(); log(); z() }",
    }
    manifests = {
        "packages/core/package.json": '{"name": "@me/core", "main": "./dist/index.js"}',
        "app/tsconfig.json": '{ // paths\n "compilerOptions": {"baseUrl": ".", "paths": {"~/*": ["src/shared/*"],}}}',
    }
    assert imported(texts, manifests) == {
        "@me/core": "packages/core/src/index.ts",
        "@me/core/deep": "packages/core/src/deep.ts",
        "~/log": "app/src/shared/log.ts",
        "zod": None,
    }
    assert calls_of(texts, manifests) == {
        "app/src/main.ts:f > packages/core/src/index.ts:run",
        "app/src/main.ts:f > packages/core/src/deep.ts:dive",
        "app/src/main.ts:f > app/src/shared/log.ts:log",
    }


def test_go_packages_are_folders_and_package_clauses():
    assert calls_of(
        {
            "a.go": "package m\nfunc shared() {}\nfunc len(x int) int { return x }",
            "b.go": "package m\nfunc use() { shared(); len(1); util.Do(); fmt.Println() }",
            "c.go": "package other\nfunc use2() { shared() }",
            "util/u.go": "package util\nfunc Do() {}\ntype T struct { Base }\ntype Base struct{}\nfunc (b Base) Up() {}",
            "util/v.go": "package util\nfunc (t *T) Down() { t.Up(); t.Base.Up() }",
            "x/x.go": 'package x\nimport "example.com/m/util"\nimport "fmt"\nfunc use3() { util.Do(); fmt.Println(); var util T; util.Do() }',
        },
        {"go.mod": "module example.com/m\n\ngo 1.22\n"},
    ) >= {"b.go:use > a.go:shared", "b.go:use > a.go:len", "x/x.go:use3 > util/u.go:Do"}


def test_rust_paths_go_through_modules_and_crates():
    assert calls_of(
        {
            "one/src/lib.rs": "pub mod net;\npub fn top() {}\nmacro_rules! shout { () => {} }",
            "one/src/net/mod.rs": "pub mod tcp;\npub fn connect() { super::top(); self::tcp::open(); tcp::open(); shout!() }",
            "one/src/net/tcp.rs": "pub fn open() { super::connect(); crate::top() }",
            "two/src/main.rs": "use one_lib::net::{self, tcp::open as dial};\nfn main() { dial(); net::connect(); one_lib::top(); std::top() }",
        },
        {
            "one/Cargo.toml": '[package]\nname = "one-lib"\nversion = "1.0.0"\n',
            "two/Cargo.toml": '[package]\nname = "two"\n',
        },
    ) == {
        "one/src/net/mod.rs:connect > one/src/lib.rs:top",
        "one/src/net/mod.rs:connect > one/src/net/tcp.rs:open",
        "one/src/net/mod.rs:connect > one/src/lib.rs:shout",
        "one/src/net/tcp.rs:open > one/src/net/mod.rs:connect",
        "one/src/net/tcp.rs:open > one/src/lib.rs:top",
        "two/src/main.rs:main > one/src/net/tcp.rs:open",
        "two/src/main.rs:main > one/src/net/mod.rs:connect",
        "two/src/main.rs:main > one/src/lib.rs:top",
    }


def test_java_classes_are_found_by_package():
    main, test = "src/main/java/a", "src/test/java/a"
    assert calls_of(
        {
            f"{main}/A.java": "package a; import static b.Util.go; import b.*; class A { A() {} void f() { go(); g(); this.g(); Peer.p(); new Wild(); Util.go(); Gone.x(); } void g() {} }",
            f"{main}/Peer.java": "package a; class Peer extends A { static void p() {} void h() { g(); super.f(); } class Inner { void i() { h(); } } }",
            "src/main/java/b/Util.java": "package b; public class Util { public static void go() {} }",
            "src/main/java/b/Wild.java": "package b; public class Wild {}",
            f"{test}/ATest.java": "package a; class ATest { void t() { Peer.p(); } }",
        }
    ) == {
        f"{main}/A.java:A.f > src/main/java/b/Util.java:Util.go",
        f"{main}/A.java:A.f > {main}/A.java:A.g",
        f"{main}/A.java:A.f > {main}/Peer.java:Peer.p",
        f"{main}/A.java:A.f > src/main/java/b/Wild.java:Wild",
        f"{main}/Peer.java:Peer.h > {main}/A.java:A.g",
        f"{main}/Peer.java:Peer.h > {main}/A.java:A.f",
        f"{main}/Peer.java:Peer.Inner.i > {main}/Peer.java:Peer.h",
        f"{test}/ATest.java:ATest.t > {main}/Peer.java:Peer.p",
    }


def test_kotlin_and_scala_import_by_package():
    assert calls_of(
        {
            "lib/src/one/two/Tools.kt": "package one.two\nfun help() {}\nclass Box { fun put() {} }",
            "app/src/main.kt": "package app\nimport one.two.help as assist\nimport one.two.*\nfun run(b: Box) { assist(); b.put(); help() }",
            "lib/src/one/three/Tools.scala": "package one.three\nobject Tools { def help() = 1 }\nclass Lid { def close() = 1 }",
            "app/src/main.scala": "package app\nimport one.three.{Tools => T, Lid}\nobject Main { def run(l: Lid) = { T.help(); l.close(); Tools.help() } }",
        }
    ) == {
        "app/src/main.kt:run > lib/src/one/two/Tools.kt:help",
        "app/src/main.kt:run > lib/src/one/two/Tools.kt:Box.put",
        "app/src/main.scala:Main.run > lib/src/one/three/Tools.scala:Tools.help",
        "app/src/main.scala:Main.run > lib/src/one/three/Tools.scala:Lid.close",
    }


def test_c_functions_are_of_the_file_of_its_includes_or_the_only_ones():
    assert calls_of(
        {
            "src/a.c": '#include "util.h"\n#include <stdio.h>\nstatic int helper(void) { return 1; }\nint run(void) { helper(); shared(); inlined(); lone(); twice(); printf(""); write(1); return 0; }',
            "src/b.c": "static int helper(void) { return 2; }\nint shared(void) { return helper(); }\nint printf(const char *f) { return 0; }\nint twice(void) { return 1; }",
            "src/c.c": "int lone(void) { return 1; }\nint twice(void) { return 2; }",
            "include/util.h": "int shared(void);\nstatic inline int inlined(void) { return 1; }\nint write(int);",
            "src/d.c": "int write(int f) { return f; }",
        }
    ) == {
        "src/a.c:run > src/a.c:helper",
        "src/a.c:run > src/b.c:shared",
        "src/a.c:run > include/util.h:inlined",
        "src/a.c:run > src/c.c:lone",
        "src/a.c:run > src/d.c:write",
        "src/b.c:shared > src/b.c:helper",
    }


def test_bases_are_edges_across_files():
    resolver, files = resolver_of(
        {
            "base.py": "class Base: pass\nclass Other: pass\n",
            "use.py": "import base\nfrom base import Other as O\nclass Near(O): pass\nclass Far(Near, base.Base, Exception): pass\n",
        }
    )
    names = {symbol.id: symbol.name for one in files for symbol in one.symbols}
    edges = {(names[edge.derived], names[edge.base]) for path in resolver.paths for edge in resolver.bases(path)}
    assert edges == {("Near", "Other"), ("Far", "Near"), ("Far", "Base")}


NO_BASES = {
    "go": "package a\n\ntype Ink struct{}\ntype Blot Ink\ntype Pens []Ink\ntype Mixer func(a Ink) *Ink\n",
    "java": "class Ink {}\nrecord Blot(Ink ink, int size) {}\nclass Pens<T extends Ink> {}\n",
    "c": "struct ink { int size; };\ntypedef struct ink blot;\ntypedef struct ink (*mixer)(struct ink one);\n",
    "cpp": "class Ink {};\nusing Blot = Ink;\ntemplate <class T> struct Pens { Ink one; };\n",
    "rust": "struct Ink;\nstruct Blot(Ink);\ntype Pens = Vec<Ink>;\nenum Mixed { One(Ink) }\n",
    "typescript": "class Ink {}\ntype Blot = Ink\ntype Mixer = (one: Ink) => Ink\nclass Pens<T = Ink> {}\n",
    "kotlin": "class Ink\nclass Blot(val ink: Ink)\ntypealias Pens = List<Ink>\n",
    "python": "class Ink: pass\nclass Blot[T: Ink]: pass\nclass Pens(metaclass=Ink): pass\ntype Mixed = Ink\n",
}
_ENDINGS = {"python": "py", "rust": "rs", "typescript": "ts", "kotlin": "kt"}


@pytest.mark.parametrize("language", NO_BASES)
def test_a_type_whose_signature_names_another_does_not_extend_it(language):
    resolver, _ = resolver_of({f"a.{_ENDINGS.get(language, language)}": NO_BASES[language]})
    assert [edge for path in resolver.paths for edge in resolver.bases(path)] == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.cpp", "class Ink { public: int dry() { return 1; } };\nusing Blot = Ink;\nint f(Blot b) { return b.dry(); }\n"),
        ("a.hpp", "class Ink { public: int dry() { return 1; } };\ntypedef Ink Blot;\nint f(Blot b) { return b.dry(); }\n"),
        ("a.ts", "class Ink { dry() {} }\ntype Blot = Ink\nfunction f(b: Blot) { b.dry() }\n"),
        ("a.rs", "struct Ink; impl Ink { fn dry(&self) {} }\ntype Blot = Ink;\nfn f(b: Blot) { b.dry() }\n"),
        ("a.go", "package a\ntype Ink struct{}\nfunc (i Ink) dry() {}\ntype Blot = Ink\nfunc f(b Blot) { b.dry() }\n"),
        ("a.kt", "class Ink { fun dry() {} }\ntypealias Blot = Ink\nfun f(b: Blot) { b.dry() }\n"),
    ],
)  # fmt: skip
def test_an_alias_has_the_members_of_its_type(path, text):
    assert calls_of({path: text}) == {f"{path}:f > {path}:Ink.dry"}


def test_imports_that_go_round_in_circles_end():
    texts = {
        "a.py": "from b import x\ndef f(): x()\n",
        "b.py": "from a import x\nfrom a import *\n",
        "c.js": "export * from './d'\nexport { y } from './d'\nfunction g() { y() }",
        "d.js": "export * from './c'\nexport { y } from './c'",
        "e.py": "class A(B): pass\nclass B(A):\n    def m(self): self.nothing()\n",
        "f.py": "def p() -> 'q': pass\ndef q(): return p().a.b.c()\nclass R:\n    def __init__(self):\n        self.x = self.x.y\n        self.x.y.z()\n",
    }
    assert calls_of(texts) == {"f.py:q > f.py:p"}


def test_the_most_used_files_come_first():
    texts = {
        "a.py": "def f(): pass\n",
        "b.py": "from a import f\ndef g(): f()\n",
        "c.py": "from a import f\nfrom b import g\ndef h(): f(); g()\n",
        "d.py": "def last(): pass\n",
    }
    edges = [(call.caller.path, call.callee.path) for call in resolve(parsed(texts))]

    def order(**more) -> str:
        ranks = priorities(page_rank(list(texts), edges), **more)
        return "".join(path[0] for path in sorted(ranks, key=ranks.__getitem__, reverse=True))

    assert order() == "abcd"
    assert order(churn={"c.py": 1, "gone.py": 9}) == "acbd"
    assert order(churn={"d.py": 100}) == "dabc"
    assert order(stale={"b.py", "c.py"}) == "bacd"


def test_the_last_commits_say_how_often_a_file_changed(make_repository, git):
    root = make_repository({"a.py": "x = 1\n", "sub/b.py": "x = 1\n", "ü\n.py": "x = 1\n"})
    for number in range(3):
        (root / "a.py").write_text(f"x = {number + 2}\n")
        if number == 2:
            (root / "ü\n.py").unlink()
            (root / "sub/b.py").write_text("x = 2\n")
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "more")
    commit = open_repository(root).commit
    assert recent_changes(root, commit) == {"a.py": 3, "sub/b.py": 1, "ü\n.py": 1}
    assert recent_changes(root / "sub", commit) == {"b.py": 1}
    assert recent_changes(root, None) == {}


def test_long_chains_and_common_names_take_no_longer_than_their_length():
    chain = "x" + ".foo(1)" * 5000 + "\n"
    text = f"def foo(): pass\n\ndef f(x):\n    {chain}" + "    foo()\n" * 5000
    (found,) = parsed({"a.py": text})
    assert [reference.receiver for reference in found.references] == [None] * 5000
    assert len(resolve([found])) == 1


@pytest.mark.timeout(60)  # seconds; one path through the imports after the other would be 30 ** 6 lookups
def test_modules_that_all_import_each_other_as_a_whole_are_looked_through_once():
    number = 30
    stars = "".join(f"from m{other} import *\n" for other in range(number))
    texts = {
        f"m{one}.py": f"{stars}\ndef f{one}():\n    missing()\n    f{(one + 7) % number}()\n" for one in range(number)
    }
    assert calls_of(texts) == {
        f"m{one}.py:f{one} > m{(one + 7) % number}.py:f{(one + 7) % number}" for one in range(number)
    }


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", "class X(X.Y):\n    def f(self):\n        return self.g()\n"),
        ("a.py", "class P(Q.R): pass\nclass Q(P.S):\n    def f(self): return self.g()\n"),
        (
            "a.hpp",
            "template<int N> struct A : A<N - 1>::type {};\nstruct B : C::D {};\nstruct C : B::E { int f() { return g(); } };\n",
        ),
        ("a.py", "".join(f"class C{n}(C{n + 1}.T):\n    def f(self): return self.g()\n" for n in range(3000))),
    ],
    ids=["itself", "each other", "templates", "a chain"],
)
def test_bases_that_are_members_of_what_has_them_end(path, text):
    assert calls_of({path: text}) == set()


def test_a_base_that_is_a_member_of_an_inherited_type_is_found():
    text = "class A:\n    class T:\n        def g(self): pass\nclass B(A): pass\nclass D(B.T):\n    def f(self): self.g()\n"
    assert calls_of({"a.py": text}) == {"a.py:D.f > a.py:A.T.g"}
