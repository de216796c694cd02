"""Pages say how types are derived from others in the words of their language."""

from __future__ import annotations

import re

import pytest

from rotary_batch.core import FileClass, Linked, SourceFile
from rotary_batch.pages.markdown import MAX_LINKS
from rotary_batch.repo.languages import language_of
from rotary_batch.repo.parse import parse_file
from rotary_batch.repo.resolve.resolver import Resolver
from rotary_batch.testing import ByteCounter, MemoryNames, linked
from tests.pages.test_pages import body, make_view, render_site


def told(sources: dict[str, str], limit: int = MAX_LINKS) -> set[str]:
    """Every sentence on inheritance as "Tin: Implements `Lid`", whatever page it is on."""
    files = []
    for path, text in sources.items():
        language = language_of(path)
        file = SourceFile(
            path=path, blob="b", nbytes=len(text), language=language, file_class=FileClass.SOURCE, reason=""
        )
        files.append(parse_file(file, text.encode(), 10_000, ByteCounter()))
    resolver = Resolver(MemoryNames(files, {}))
    edges = [(edge.derived, edge.base) for path in resolver.paths for edge in resolver.bases(path)]
    bases = {one: Linked(ends.ids[:limit], ends.total) for one, ends in linked(edges).items()}
    derived = linked((base, one) for one, base in edges)
    derived = {one: Linked(ends.ids[:limit], ends.total) for one, ends in derived.items()}
    view = make_view(sources, bases=dict.fromkeys(sources, bases), derived=dict.fromkeys(sources, derived))
    pages = render_site(view, {})
    text = "\n".join(body(pages[f"{path}.md"]) for path in sources)
    found, symbol = set(), ""
    for line in text.splitlines():
        if heading := re.match(r"##+ `(\w+)`", line):
            symbol = heading[1]
        elif re.match("Extend|Implement|Embed|Include", line):
            words = re.sub(r"\[`(\w+)`\]\([^)]*\)", r"\1", line)
            found.add(f"{symbol}: {words.rstrip('.')}")
    return found


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.rs", "pub trait Lid: Rim {}\npub trait Rim {}\npub struct Tin;\nimpl Lid for Tin {}\n"),
        ("A.java", "interface Lid extends Rim {}\ninterface Rim {}\nclass Tin implements Lid {}\n"),
        ("a.ts", "export interface Lid extends Rim {}\nexport interface Rim {}\nexport class Tin implements Lid {}\n"),
        ("a.cs", "interface Lid : Rim {}\ninterface Rim {}\nclass Tin : Lid {}\n"),
        ("a.kt", "interface Lid : Rim\ninterface Rim\nclass Tin : Lid\n"),
        ("a.swift", "protocol Lid: Rim {}\nprotocol Rim {}\nclass Tin: Lid {}\n"),
        ("a.php", "<?php\ninterface Lid extends Rim {}\ninterface Rim {}\nclass Tin implements Lid {}\n"),
    ],
)
def test_types_implement_interfaces_and_interfaces_extend_each_other(path, text):
    assert told({path: text}) == {
        *("Tin: Implements Lid", "Lid: Implemented by Tin"),
        *("Lid: Extends Rim", "Rim: Extended by Lid"),
    }


@pytest.mark.parametrize(
    ("path", "text", "word", "passive"),
    [
        ("a.py", "class Rim: pass\nclass Tin(Rim): pass\n", "Extends", "Extended by"),
        ("a.cpp", "class Rim { int x; };\nclass Tin : public Rim { int y; };\n", "Extends", "Extended by"),
        ("A.java", "class Rim {}\nclass Tin extends Rim {}\n", "Extends", "Extended by"),
        ("a.ts", "export class Rim {}\nexport class Tin extends Rim {}\n", "Extends", "Extended by"),
        ("a.ts", "export class Rim {}\nexport class Tin implements Rim {}\n", "Implements", "Implemented by"),
        ("a.scala", "trait Rim\nclass Tin extends Rim\n", "Extends", "Extended by"),
        ("a.go", "package a\ntype Rim struct{ X int }\ntype Tin struct{ Rim }\n", "Embeds", "Embedded in"),
        ("a.go", "package a\ntype Rim interface{ F() }\ntype Tin interface{ Rim }\n", "Embeds", "Embedded in"),
        ("a.rb", "module Rim\nend\nclass Tin\n  include Rim\nend\n", "Includes", "Included in"),
    ],
)
def test_other_derivations_have_the_word_of_their_language(path, text, word, passive):
    assert told({path: text}) == {f"Tin: {word} Rim", f"Rim: {passive} Tin"}


def test_an_argument_of_an_implemented_type_is_not_implemented():
    text = "export class Rim {}\nexport interface Lid<T> {}\nexport class Tin extends Rim implements Lid<Map<Rim>> {}\n"
    assert {"Tin: Extends Rim", "Tin: Implements Lid"} <= told({"a.ts": text})


def test_what_is_not_shown_is_counted_under_a_word_that_is_true():
    sources = {"a.rs": "pub trait Rim {}\npub trait Lid: Rim {}\n" + "pub struct T;\nimpl Rim for T {}\n"}
    sources |= {"b.rs": "use crate::a::Rim;\npub struct U;\nimpl Rim for U {}\n", "lib.rs": "mod a; mod b;\n"}
    assert "Rim: Extended by or implemented by Lid, T and 1 more" in told(sources, limit=2)
