"""Names that PHP, C#, Kotlin, Scala, Swift, Ruby and Lua import from other files, and names that only look so."""

from __future__ import annotations

import pytest

from tests.repo.test_graph import calls_of, imported, parsed, resolver_of

LINKED = {
    "php: a class that is used, one under another name, one in full, a function": (
        {
            "src/Tin/Lid.php": "<?php\nnamespace App\\Tin;\nclass Lid { public static function cut() {} }\n",
            "src/Tin/Rim.php": "<?php\nnamespace App\\Tin {\nclass Rim { public static function bend() {} }\n}\n",
            "src/tools.php": "<?php\nnamespace App;\nfunction weld() {}\nfunction file() {}\n",
            "web/Shop.php": (
                "<?php\nnamespace Web;\nuse App\\Tin\\{Lid, Rim as Edge};\nuse function App\\weld;\n"
                "function run() { Lid::cut(); Edge::bend(); \\App\\Tin\\Rim::bend(); weld(); \\App\\file(); }\n"
            ),
        },
        {"Lid.php:Lid.cut", "Rim.php:App.Tin.Rim.bend", "tools.php:weld", "tools.php:file"},
    ),
    "php: the namespace of the file, wherever its files are": (
        {
            "a/Lid.php": "<?php\nnamespace App;\nclass Lid { public static function cut() {} }\n",
            "b/Tin.php": "<?php\nnamespace App;\nfunction run() { Lid::cut(); }\n",
        },
        {"Lid.php:Lid.cut"},
    ),
    "php: names relative to the namespace of the file, to one that it uses, and to the top": (
        {
            "src/Lid.php": "<?php\nnamespace App\\Tin;\nclass Lid { public static function cut() {} }\n",
            "src/Rim.php": "<?php\nnamespace App\\Tin\\Edge;\nclass Rim { public static function bend() {} }\nfunction file() {}\n",
            "src/near.php": "<?php\nnamespace App;\nfunction solder() {}\n",
            "top.php": "<?php\nfunction weld() {}\nfunction solder() {}\nclass Lid { public static function top() {} }\n",
            "shop.php": (
                "<?php\nnamespace App;\nuse App\\Tin\\Edge as E;\n"
                "function run() {\n"
                "  Tin\\Lid::cut(); E\\Rim::bend(); E\\file(); namespace\\solder(); \\weld(); \\Lid::top();\n"
                "  weld(); new Tin\\Lid();\n}\n"
            ),
            "block.php": "<?php\nnamespace App\\Tin { function two() { Edge\\file(); } }\nnamespace Web { function three() {} }\n",
        },
        {
            *(
                "Lid.php:Lid.cut",
                "Rim.php:Rim.bend",
                "Rim.php:file",
                "near.php:solder",
                "top.php:weld",
                "top.php:Lid.top",
            ),
            "Lid.php:Lid",
        },
    ),
    "php: files that are required": (
        {
            "lib/tools.php": "<?php\nfunction weld() {}\n",
            "lib/more.php": "<?php\nfunction bend() {}\n",
            "web/run.php": (
                "<?php\nrequire_once __DIR__ . '/../lib/tools.php';\ninclude(dirname(__DIR__) . '/lib/more.php');\n"
                "function run() { weld(); bend(); }\n"
            ),
        },
        {"tools.php:weld", "more.php:bend"},
    ),
    "c_sharp: namespaces that are used, an alias, static members, namespaces around": (
        {
            "a/Lid.cs": "namespace App.Tins;\nclass Lid { public static void Cut() {} }\n",
            "b/Rim.cs": "namespace App.Rims { class Rim { public static void Bend() {} } }\n",
            "c/Tools.cs": "namespace App { static class Tools { public static void Weld() {} } }\n",
            "d/Top.cs": "namespace Web { class Top { public static void Go() {} } }\n",
            "e/Shop.cs": (
                "using App.Tins;\nusing Edge = App.Rims.Rim;\nusing static App.Tools;\nnamespace Web.Shop;\n"
                "class Shop { void Run() { Lid.Cut(); Edge.Bend(); Weld(); Top.Go(); App.Rims.Rim.Bend(); } }\n"
            ),
        },
        {"Lid.cs:Lid.Cut", "Rim.cs:App.Rims.Rim.Bend", "Tools.cs:App.Tools.Weld", "Top.cs:Web.Top.Go"},
    ),
    "c_sharp: the parts of a type, and what they inherit": (
        {
            "a/Lid.Cut.cs": "namespace App;\npublic partial class Lid { public void Cut() { Bend(); this.Weld(); Base1(); } }\n",
            "b/Lid.Bend.cs": "namespace App;\npartial class Lid : Rim { void Bend() {} int Weld() { return 1; } }\n",
            "c/Rim.cs": "namespace App { class Rim { public void Base1() {} } }\n",
            "d/Other.cs": "namespace Web;\npartial class Lid { void Bend() {} void Weld() {} }\n",
            "e/Shop.cs": "using App;\nnamespace Web.Shop;\nclass Shop { void Run(App.Lid lid) { lid.Bend(); lid.Cut(); } }\n",
        },
        {"Lid.Bend.cs:Lid.Bend", "Lid.Bend.cs:Lid.Weld", "Rim.cs:App.Rim.Base1", "Lid.Cut.cs:Lid.Cut"},
    ),
    "kotlin: packages whose folders have other names": (
        {
            "src/tins/Lid.kt": "package org.x.tins\nclass Lid\nfun cut() {}\n",
            "src/rims/Rim.kt": "package org.x.rims\nfun bend() {}\n",
            "src/shop/Shop.kt": "package org.x.shop\nimport org.x.tins.cut\nimport org.x.rims.*\nfun run() { cut(); bend(); near() }\n",
            "src/other/Near.kt": "package org.x.shop\nfun near() {}\n",
        },
        {"Lid.kt:cut", "Rim.kt:bend", "Near.kt:near"},
    ),
    "scala: packages whose folders have other names": (
        {
            "src/tins/Lid.scala": "package org.x.tins\nobject Lid { def cut() = 1 }\n",
            "src/rims/Rim.scala": "package org.x.rims\nobject Rim { def bend() = 1 }\n",
            "src/shop/Shop.scala": (
                "package org.x.shop\nimport org.x.tins.{Lid => Cover}\nimport org.x.rims._\n"
                "object Shop { def run() = { Cover.cut(); Rim.bend() } }\n"
            ),
        },
        {"Lid.scala:Lid.cut", "Rim.scala:Rim.bend"},
    ),
    "swift: the module of the file, modules that are imported, tests": (
        {
            "Sources/Tins/Inner/Lid.swift": "public func cut() {}\nfunc weld() {}\n",
            "Sources/Tins/Rim.swift": "func bend() { weld() }\n",
            "Sources/Shop/Shop.swift": "import Tins\nfunc run() { cut() }\n",
            "Tests/TinsTests/T.swift": "@testable import Tins\nfunc test() { bend() }\n",
        },
        {"Lid.swift:weld", "Lid.swift:cut", "Rim.swift:bend"},
    ),
    "ruby: files that are required, modules that several files open": (
        {
            "lib/tins.rb": "require 'tins/lid'\nrequire_relative 'tins/rim'\nmodule Tins\n  VERSION = 1\nend\n",
            "lib/tins/lid.rb": "module Tins\n  class Lid\n    def self.cut; end\n  end\nend\n",
            "lib/tins/rim.rb": "module Tins\n  def self.bend; end\nend\ndef weld; end\n",
            "bin/run.rb": "require 'tins'\ndef run\n  Tins::Lid.cut\n  Tins.bend\n  weld(1)\nend\n",
        },
        {"lid.rb:Tins.Lid.cut", "rim.rb:Tins.bend", "rim.rb:weld"},
    ),
    "lua: what a file returns, one member of it, its own table": (
        {
            "src/tins/lid.lua": "local L = {}\nfunction L.cut() L.weld() end\nL.weld = function() end\nreturn L\n",
            "src/tins/rim/init.lua": "local M = {}\nfunction M:bend() end\nreturn M\n",
            "shop.lua": (
                'local lid = require("tins.lid")\nlocal rim <const> = require "tins.rim"\n'
                "local weld = require('tins/lid').weld\nfunction run() lid.cut() rim:bend() weld() end\n"
            ),
        },
        {"lid.lua:L.cut", "lid.lua:L.weld", "init.lua:M.bend"},
    ),
}


@pytest.mark.parametrize("case", LINKED)
def test_imported_names_are_linked(case):
    texts, expected = LINKED[case]
    assert {call.partition(" > ")[2].rpartition("/")[2] for call in calls_of(texts)} == expected


NOT_LINKED = {
    "php: another namespace, a foreign one, a builtin": {
        "a/Lid.php": "<?php\nnamespace App;\nclass Lid { public static function cut() {} }\nfunction strlen() {}\n",
        "b/Tin.php": "<?php\nnamespace Web;\nuse Vendor\\Lid;\nfunction run() { Lid::cut(); strlen(1); Rim::cut(); }\n",
        "b/Top.php": "<?php\nfunction run2() { Lid::cut(); strlen(2); }\n",
    },
    "php: relative names that only look as if they were from the top, a class of the name of a namespace": {
        "a/Lid.php": "<?php\nnamespace App\\Tin;\nclass Lid { public static function cut() {} }\n",
        "b/Tin.php": "<?php\nnamespace Web;\nclass Tin { public static function Lid() {} }\nfunction run() { App\\Tin\\Lid::cut(); Tin\\Lid(); }\n",
        "c/top.php": "<?php\nclass Weld {}\n",
        "d/use.php": "<?php\nnamespace Web;\nfunction run2() { new Weld(); \\cut(); }\n",
    },
    "php: a path that is computed, and one that leaves the repository": {
        "lib/tools.php": "<?php\nfunction weld() {}\n",
        "web/run.php": "<?php\nrequire $x . '/lib/tools.php';\nrequire '../../lib/tools.php';\nfunction run() { weld(); }\n",
    },
    "c_sharp: namespaces that are not used, foreign ones, two of one name": {
        "a/Lid.cs": "namespace App.Tins;\nclass Lid { public static void Cut() {} }\n",
        "b/Two.cs": "namespace App.Two;\nclass Rim { public static void Bend() {} }\n",
        "c/Two.cs": "namespace App.Two;\nclass Rim { public static void Bend() {} }\n",
        "e/Shop.cs": "using System.Tins;\nusing App.Two;\nclass Shop { void Run() { Lid.Cut(); Rim.Bend(); } }\n",
    },
    "kotlin: another package": {
        "src/tins/Lid.kt": "package org.x.tins\nfun cut() {}\n",
        "src/shop/Shop.kt": "package org.x.shop\nimport org.y.tins.cut\nfun run() { cut() }\n",
    },
    "swift: what is not public, what is private to a file, what is not imported": {
        "Sources/Tins/Lid.swift": "func cut() {}\nprivate func weld() {}\npublic func bend() {}\n",
        "Sources/Tins/Rim.swift": "func run1() { weld() }\n",
        "Sources/Shop/Shop.swift": "import Tins\nfunc run() { cut() }\n",
        "Sources/Web/Web.swift": "import Foundation\nfunc run2() { bend() }\n",
    },
    "ruby: files that are not required, and those of a library": {
        "lib/tins/lid.rb": "module Tins\n  class Lid\n    def self.cut; end\n  end\nend\n",
        "vendored/json.rb": "module JSON\n  def self.parse; end\nend\n",
        "bin/run.rb": "require 'json'\ndef run\n  Tins::Lid.cut\n  JSON.parse\nend\n",
    },
    "lua: a library of a common name, a table that is not returned": {
        "test/data/json.lua": "local M = {}\nfunction M.parse() end\nreturn M\n",
        "tins.lua": "local M = {}\nlocal N = {}\nfunction N.cut() end\nreturn M\n",
        "run.lua": 'local json = require("json")\nlocal t = require("tins")\nfunction run() json.parse() t.cut() end\n',
    },
}


@pytest.mark.parametrize("case", NOT_LINKED)
def test_names_that_only_look_imported_are_not_linked(case):
    assert calls_of(NOT_LINKED[case]) == set()


def test_imports_are_about_files():
    texts = {
        "a/Lid.php": "<?php\nnamespace App;\nclass Lid {}\n",
        "b/Tin.php": "<?php\nuse App\\Lid;\nuse Vendor\\Rim;\nrequire '../a/Lid.php';\n",
        "c/Lid.cs": "namespace Web.Tins;\nclass Lid {}\n",
        "d/Tin.cs": "using L = Web.Tins.Lid;\nusing System.Text;\n",
        "Sources/Tins/a.swift": "import Shop\nimport Foundation\n",
        "Sources/Shop/b.swift": "func f() {}\n",
        "lib/lid.rb": "require 'json'\nrequire_relative 'rim'\n",
        "lib/rim.rb": "require 'lid'\n",
        "lua/tin.lua": 'local s = require("socket")\nlocal l = require("lid")\n',
        "lua/lid.lua": "return 1\n",
    }
    assert imported(texts) == {
        "App": "a/Lid.php",
        "Vendor": None,
        "./../a/Lid.php": "a/Lid.php",
        "Web.Tins": "c/Lid.cs",
        "System.Text": None,
        "Shop": "Sources/Shop/",
        "Foundation": None,
        "json": None,
        "./rim": "lib/rim.rb",
        "lid": "lua/lid.lua",
        "socket": None,
    }


def test_bases_are_found_through_imports():
    texts = {
        "a/Lid.php": "<?php\nnamespace App;\ninterface Lid {}\n",
        "b/Tin.php": "<?php\nnamespace Web;\nuse App\\Lid;\nclass Tin implements Lid {}\n",
        "b/Can.php": "<?php\nnamespace App\\Can;\nclass Can extends Inner\\Base implements \\App\\Lid {}\n",
        "a/Base.php": "<?php\nnamespace App\\Can\\Inner;\nclass Base {}\n",
        "c/Lid.cs": "namespace Web.Tins;\ninterface Lid {}\n",
        "d/Tin.cs": "using Web.Tins;\nclass Tin : Lid {}\n",
        "lib/lid.rb": "module Tins\n  module Lid\n  end\nend\n",
        "lib/tin.rb": "require_relative 'lid'\nclass Tin\n  include Tins::Lid\nend\n",
    }
    resolver, files = resolver_of(texts)
    names = {symbol.id: f"{symbol.path}:{symbol.name}" for one in files for symbol in one.symbols}
    edges = {(names[edge.derived], names[edge.base]) for path in resolver.paths for edge in resolver.bases(path)}
    assert edges == {
        ("b/Tin.php:Tin", "a/Lid.php:Lid"),
        ("b/Can.php:Can", "a/Lid.php:Lid"),
        ("b/Can.php:Can", "a/Base.php:Base"),
        ("d/Tin.cs:Tin", "c/Lid.cs:Lid"),
        ("lib/tin.rb:Tin", "lib/lid.rb:Lid"),
    }


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.php", "<?php\n" + "use A\\B;\n" * 20_000 + "use A\\{" + "B, " * 100_000 + "C};\n"),
        ("a.php", "<?php\nrequire " + "dirname(" * 2_000 + "1" + ")" * 2_000 + ";\n"),
        ("a.cs", "using " + "A." * 50_000 + "B;\n" + "using A;\n" * 20_000),
        ("a.rb", "require 'a'\n" * 20_000 + "require '" + "a/" * 100_000 + "'\n"),
        ("a.lua", 'local a = require("b")\n' * 20_000 + "local a = " + "{" * 20_000 + "}" * 20_000 + "\n"),
        ("a.swift", "import A\n" * 20_000),
    ],
)
def test_many_and_long_imports_take_linear_time(path, text):
    assert len(parsed({path: text})) == 1
