"""Whatever an author wrote, in whatever markup: on the page it has no effect, and code reads as it was."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import markdown
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rotary_batch.pages.authored.blocks import (
    Block,
    CodeBlock,
    Field,
    Fields,
    Heading,
    ItemList,
    Notice,
    Paragraph,
    Table,
)
from rotary_batch.pages.authored.reading import authored_summary, read_authored
from rotary_batch.pages.authored.render import to_markdown
from rotary_batch.pages.sanitise import inline, plain

FORGE = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
LANGUAGES = [
    *("python", "rust", "go", "javascript", "typescript", "java", "kotlin", "scala", "c", "cpp", "c_sharp", "php"),
    *("ruby", "lua", "swift", "markdown", "bash", None),
]
PIECES = [
    *("<script>alert(1)</script>", "<img src=x onerror=y>", "<!--", "-->", "<details>", "<T>", "&lt;b&gt;", "&#60;"),
    *("![x](http://evil.example/p.png)", "[x](javascript:alert(1))", "[r]: http://evil.example", "[r]", "http://e.x"),
    *("```", "````", "~~~", "```html", "    ", "\t", "  ", "\n", "\n\n", "- ", "* ", "1. ", "> ", "# ", "===", "---"),
    *("| a | b |", "|---|---|", "|", "`", "``", "**", "_", "\\", "$$", "${x}", "{{ x }}", "{% x %}", ":::", "!!! note"),
    *("@param {T} [a=<b>] ", "@example", "@deprecated", "@returns", "{@code a<b}", "{@link A#b c}", "<pre>", "</pre>"),
    *(
        "<ul><li>",
        "</li></ul>",
        "<table><tr><td>",
        "<p>",
        "@code",
        "@endcode",
        "\\param x",
        "::",
        ">>> f()",
        ".. raw:: html",
    ),
    *(".. note::", ":param x: y", ":class:`~a.B`", "Args:\n    x: y", "Parameters\n----------\nx : int", "`x <y>`_"),
    *(
        "--8<-- 'x'",
        "word",
        "x",
        "a*b",
        "<summary>",
        '<param name="x">',
        "- Parameter x: y",
        "\x1b[31m",
        "\u202e",
        "Note:",
    ),
]
TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from([*PIECES, "\n", "\n", "\n    "]), max_size=20).map(" ".join),
    st.lists(st.sampled_from([*PIECES, "", "  x", "    y"]), max_size=12).map("\n".join),
)
ALLOWED_TOKENS = re.compile(
    r"(paragraph|bullet_list|ordered_list|list_item|blockquote|table|thead|tbody|tr|th|td)_(open|close)|inline|fence|code_block"
)
ALLOWED_INLINE = {"text", "text_special", "code_inline", "strong_open", "strong_close"}
ALLOWED_ELEMENTS = frozenset(
    "p pre code ul ol li blockquote table thead tbody tr th td strong".split()  # noqa: SIM905
)


def markdown_of(text: str, language: str | None) -> str:
    words = read_authored(text, language)
    return "\n\n".join(filter(None, ["above", inline(words.summary), *to_markdown(words.blocks), "below"]))


def assert_harmless(page: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", page)
    tokens = FORGE.parse(page)
    for token in tokens:
        assert ALLOWED_TOKENS.fullmatch(token.type), (token.type, page)
        for inner in token.children or ():
            assert inner.type in ALLOWED_INLINE, (inner.type, inner.content, page)
    said = [token.content for token in tokens if token.type == "inline"]
    assert (said[0], said[-1]) == ("above", "below"), page
    elements: set[str] = set()
    reader = HTMLParser()
    reader.handle_starttag = lambda tag, attributes: elements.add(tag)
    reader.handle_comment = reader.handle_decl = reader.handle_pi = lambda data: elements.add(f"<{data}>")
    html = markdown.markdown(page, extensions=["tables", "fenced_code", "toc"])
    reader.feed(html)
    assert elements <= ALLOWED_ELEMENTS, (elements, page, html)


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.sampled_from(LANGUAGES))
def test_no_comment_has_an_effect(text, language):
    assert_harmless(markdown_of(text, language))
    summary = authored_summary(text, language)
    assert "\n" not in summary


CODE = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=20),
        st.sampled_from(PIECES),
    ),
    min_size=1,
    max_size=6,
).map(lambda lines: "\n".join(plain(line.replace("\n", " ")) for line in lines))

WORDS = st.one_of(st.text(max_size=30), st.sampled_from(PIECES))
LEAVES = st.one_of(
    st.builds(Paragraph, WORDS),
    st.builds(Heading, WORDS),
    st.builds(CodeBlock, CODE, st.sampled_from(["python", "mermaid", "text", "<b>", "js"])),
    st.builds(
        Table,
        st.tuples(WORDS, WORDS),
        st.lists(st.tuples(WORDS, WORDS), max_size=3).map(tuple),
    ),
    st.builds(Fields, WORDS, st.lists(st.builds(Field, WORDS, WORDS, st.just(())), max_size=2).map(tuple)),
)
BLOCKS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(ItemList, st.lists(st.lists(inner, max_size=3).map(tuple), max_size=3).map(tuple), st.booleans()),
        st.builds(Notice, WORDS, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Fields, WORDS, st.tuples(st.builds(Field, WORDS, WORDS, st.lists(inner, max_size=2).map(tuple)))),
    ),
    max_leaves=12,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(BLOCKS, max_size=4))
def test_no_block_has_an_effect(blocks):
    assert_harmless("\n\n".join(["above", *to_markdown(blocks), "below"]))


def trimmed(code: str) -> str:
    return re.sub(r"\A(?:[^\S\n]*\n)+|\s+\Z", "", code)


def code_of(page: str) -> list[str]:
    return [trimmed(token.content) for token in FORGE.parse(page) if token.type in {"fence", "code_block"}]


def in_list(block: Block, depth: int) -> Block:
    for _ in range(depth):
        block = ItemList(((Paragraph("item"), block), (Paragraph("next"),)))
    return block


@settings(max_examples=80, deadline=None)
@given(CODE.filter(str.strip), st.integers(0, 4))
def test_code_reads_as_it_was_at_the_margin_and_in_lists(code, depth):
    page = "\n\n".join(["above", *to_markdown([in_list(CodeBlock(trimmed(code)), depth)]), "below"])
    assert code_of(page) == [re.sub(r"^([ \t]*)(;*-+8<-+)", r"\1;\2", trimmed(code), flags=re.MULTILINE)]
    assert_harmless(page)


FENCE_FREE = CODE.filter(lambda code: code.strip() and "`" not in code and "~" not in code and "8<" not in code)
IN_FENCES = {
    "rust": "Text.\n\n```text\n{code}\n```\n\nMore.",
    "javascript": "Text.\n@example\n```js\n{code}\n```\n@see x",
    "typescript": "Text.\n\n```\n{code}\n```\n@param x - y",
    "kotlin": "Text.\n\n~~~\n{code}\n~~~\n",
    "swift": "Text.\n\n```\n{code}\n```\n",
    "c": "Text.\n\n```\n{code}\n```\n",
    "markdown": "# Title\n\n```sh\n{code}\n```\n",
    None: "Text.\n\n```\n{code}\n```\nMore",
}


@settings(max_examples=80, deadline=None)
@given(FENCE_FREE, st.sampled_from(sorted(IN_FENCES, key=str)))
def test_fenced_code_of_an_author_survives_byte_for_byte(code, language):
    page = markdown_of(IN_FENCES[language].replace("{code}", code), language)
    assert trimmed(code) in code_of(page)
