"""What single languages add to Markdown, HTML and block tags."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape

from rotary_batch.pages.authored.blocks import (
    Block,
    CodeBlock,
    Field,
    Fields,
    ItemList,
    Notice,
    Paragraph,
    Table,
    code_block,
    span,
    words,
)
from rotary_batch.pages.authored.commonmark import markdown_blocks
from rotary_batch.pages.authored.html import html_blocks, replace_inline_tags
from rotary_batch.pages.authored.plain import plain_blocks
from rotary_batch.pages.authored.tags import Dialect, TypePlace, tagged_blocks

TextChange = Callable[[str], str]
_FENCE = re.compile(r"[ \t]*(```+|~~~+)")
_FENCE_LINE = re.compile(r"^[ \t]*```", re.MULTILINE)
_RUST_FLAGS = words("rust ignore should_panic no_run compile_fail test_harness standalone_crate")
_RUST_HIDDEN = re.compile(r"^[ \t]*#(?:[ \t].*)?(?:\n|\Z)", re.MULTILINE)
_RUST_ESCAPED = re.compile(r"^([ \t]*)##", re.MULTILINE)
_CODE_LINK = re.compile(r"\[(`[^`\n]{1,200}`)\](?:\[[^\[\]\n]{0,200}\])?")
_NAME_LINK = re.compile(r"(?<![\w\]`\[])\[([A-Za-z_][\w.:]*(?:\(\))?!?)\](?![\w(\[])")
_LABELLED_LINK = re.compile(r"(?<![\w\]`\[])\[([^\[\]\n]{1,200})\]\[[\w.:#]{1,200}\]")
_SCALA_LINK = re.compile(r"\[\[([^\[\]\n]{1,200})\]\]")
_DOXYGEN_CODE = re.compile(r"^[ \t]*[@\\](?:code|verbatim)(?:\{\.?(\w*)[^}\n]*\})?[ \t]*$", re.MULTILINE)
_DOXYGEN_END = re.compile(r"^[ \t]*[@\\]end(?:code|verbatim)\b", re.MULTILINE)
_DOXYGEN_WORD = re.compile(r"(?<!\w)[@\\](c|p|a|ref|e|em|b)[ \t]+([^\s,;]*[\w)>])")
_SWIFT_FIELD = re.compile(r"(Parameters|Parameter|Returns|Throws)\b[ \t]*([\w`]*)[ \t]*:[ \t]*", re.IGNORECASE)
_XML_NAMED = re.compile(r'<(param|typeparam|exception)\s+(?:name|cref)="(?:\w:)?([^"<>\n]*)"\s*>')
_XML_CODE = re.compile(r'<(?:see|seealso|paramref|typeparamref)\s+\w+="(?:\w:)?([^"<>\n]*)"\s*/>')
_XML_TAGS = {"returns": "\n@returns ", "value": "\n@returns ", "summary": "<p>", "remarks": "<p>", "para": "<p>"}
_XML_TAGS |= {"example": "<p>", "code": "<pre>", "/code": "</pre>", "c": "<code>", "/c": "</code>", "list": "<ul>"}
_XML_TAGS |= {"/list": "</ul>", "item": "<li>", "/item": "</li>"}
_XML_TAG = re.compile(
    r"<(/?(?:returns|value|summary|remarks|para|example|code|c|list|item|description|term|param|typeparam|exception))"
    r"(?:\s[^<>]*)?>"
)
_XML_NAMES = {"param": "param", "typeparam": "typeparam", "exception": "throws"}


def rust_blocks(text: str) -> list[Block]:
    """Markdown of rustdoc: code is Rust, its hidden lines are hidden, links to items are code."""
    return _with_text(markdown_blocks(text, _rust_code), _names_as_code)


def _rust_code(info: str, content: str) -> CodeBlock | None:
    words = [word for word in re.split(r"[\s,{}]+", info) if word]
    if all(word in _RUST_FLAGS or word.startswith(("edition", "E0", "ignore-")) for word in words):
        shown = _RUST_ESCAPED.sub(r"\1#", _RUST_HIDDEN.sub("", content))
        return _first(code_block(shown, "rust"))
    return _first(code_block(content, words[0]))


def _first(blocks: list[Block]) -> CodeBlock | None:
    return next((block for block in blocks if isinstance(block, CodeBlock)), None)


def _names_as_code(text: str) -> str:
    text = _LABELLED_LINK.sub(r"\1", _CODE_LINK.sub(r"\1", text))
    return _NAME_LINK.sub(lambda link: span(link[1]), text)


def javascript_blocks(text: str) -> list[Block]:
    """JSDoc and TSDoc: Markdown with block tags."""
    return tagged_blocks(text, Dialect(_spanned_blocks, "javascript"))


def typescript_blocks(text: str) -> list[Block]:
    """The same; its examples are TypeScript."""
    return tagged_blocks(text, Dialect(_spanned_blocks, "typescript"))


def kotlin_blocks(text: str) -> list[Block]:
    """KDoc: Markdown with block tags, and links of brackets."""
    return _with_text(tagged_blocks(text, Dialect(markdown_blocks, "kotlin")), _names_as_code)


def scala_blocks(text: str) -> list[Block]:
    """Scaladoc: its wiki syntax has the paragraphs and lists of Markdown."""
    fenced = _outside_fences(text, _scala_fences)
    dialect = Dialect(lambda part: markdown_blocks(_SCALA_LINK.sub(lambda link: span(link[1]), part)), "scala")
    return tagged_blocks(fenced, dialect)


def _scala_fences(text: str) -> str:
    return text.replace("{{{", "\n```scala\n").replace("}}}", "\n```\n").replace("@tparam", "@typeparam")


def java_blocks(text: str) -> list[Block]:
    """Javadoc: HTML with block tags; the `{@code}` of a whole block first, as it may hold anything."""
    if _FENCE_LINE.search(text):  # `///` comments of Java 23 are Markdown
        return tagged_blocks(text, Dialect(_spanned_blocks, "java"))
    return tagged_blocks(replace_inline_tags(text, as_html=True), Dialect(html_blocks, "java"))


def c_blocks(text: str) -> list[Block]:
    """Doxygen: plain text with block tags, commands for code, and commands for single words."""
    return tagged_blocks(_outside_fences(text, _doxygen_fences), Dialect(_doxygen_body, "cpp", signs="@\\"))


def _doxygen_fences(text: str) -> str:
    return _DOXYGEN_END.sub("```", _DOXYGEN_CODE.sub(r"```\1", text))


def _doxygen_body(text: str) -> list[Block]:
    def word(found: re.Match[str]) -> str:
        return found[2] if found[1] in {"e", "em", "b"} else span(found[2])

    return _with_text(plain_blocks(text), lambda part: _DOXYGEN_WORD.sub(word, part))


def php_blocks(text: str) -> list[Block]:
    """PHPDoc: Markdown with block tags, types first."""
    return tagged_blocks(text, Dialect(_spanned_blocks, "php", types=TypePlace.FIRST))


def ruby_blocks(text: str) -> list[Block]:
    """YARD and RDoc: indented code, block tags with types in brackets."""
    return tagged_blocks(text, Dialect(plain_blocks, "ruby", types=TypePlace.BRACKETS))


def lua_blocks(text: str) -> list[Block]:
    """LDoc: plain text with block tags."""
    return tagged_blocks(text, Dialect(plain_blocks, "lua"))


def csharp_blocks(text: str) -> list[Block]:
    """XML documentation comments, as the Javadoc that says the same."""
    text = _XML_CODE.sub(r"<tt>\1</tt>", text)
    text = _XML_NAMED.sub(lambda tag: f"\n@{_XML_NAMES[tag[1]]} {unescape(tag[2])} ", text)
    text = _XML_TAG.sub(lambda tag: _XML_TAGS.get(tag[1], ""), text)
    return tagged_blocks(text, Dialect(html_blocks, "csharp"))


def swift_blocks(text: str) -> list[Block]:
    """Swift's Markdown, in which list items that begin with certain words are fields."""
    blocks: list[Block] = []
    for block in markdown_blocks(text):
        blocks += _swift_fields(block) if isinstance(block, ItemList) else [block]
    return _with_text(blocks, lambda part: part.replace("``", "`"))


def _swift_fields(block: ItemList) -> list[Block]:
    fields: dict[str, list[Field]] = {}
    others = []
    for item in block.items:
        first = item[0] if item and isinstance(item[0], Paragraph) else None
        found = _SWIFT_FIELD.match(first.text) if first else None
        if found is None or first is None:
            others.append(item)
        elif found[1].lower() == "parameters":
            inner = [part for each in item if isinstance(each, ItemList) for part in each.items]
            fields.setdefault("Parameter", []).extend(_swift_parameter(part) for part in inner)
        else:
            title = found[1].capitalize()
            texts = (Paragraph(first.text[found.end() :]), *item[1:])
            fields.setdefault(title, []).append(Field(found[2].strip("`"), "", texts))
    tables: list[Block] = [Fields(title, tuple(some)) for title, some in fields.items() if some]
    return [*([ItemList(tuple(others), block.is_ordered)] if others else []), *tables]


def _swift_parameter(item: tuple[Block, ...]) -> Field:
    first, rest = (item[0].text, item[1:]) if item and isinstance(item[0], Paragraph) else ("", item)
    name, _, text = first.partition(":")
    return Field(name.strip("` "), "", (Paragraph(text.strip()), *rest))


def _outside_fences(text: str, change: TextChange) -> str:
    """With a change of all that is not in a fence."""
    parts: list[list[str]] = [[]]  # outside, inside, outside, ...
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
            parts.append([line])
        elif fence and line.strip() == fence:
            fence = ""
            parts[-1].append(line)
            parts.append([])
        else:
            parts[-1].append(line)
    changed = [part if n % 2 or not part else change("\n".join(part)).split("\n") for n, part in enumerate(parts)]
    return "\n".join(line for part in changed for line in part)


def _spanned_blocks(text: str) -> list[Block]:
    """Markdown with the inline tags of JSDoc and its like."""
    return markdown_blocks(_outside_fences(text, lambda part: replace_inline_tags(part, as_html=False)))


def _with_text(blocks: list[Block], change: TextChange) -> list[Block]:
    """The blocks with a change of every text that is not code; what is nested is as deep as the parsers allow."""
    return [_changed(block, change) for block in blocks]


def _changed(block: Block, change: TextChange) -> Block:
    match block:
        case Paragraph(text):
            return Paragraph(change(text))
        case ItemList(items, is_ordered):
            return ItemList(tuple(tuple(_with_text(list(item), change)) for item in items), is_ordered)
        case Notice(title, blocks):
            return Notice(title, tuple(_with_text(list(blocks), change)))
        case Table(header, rows):
            return Table(tuple(map(change, header)), tuple(tuple(map(change, row)) for row in rows))
        case Fields(title, fields):
            changed = [field._replace(blocks=tuple(_with_text(list(field.blocks), change))) for field in fields]
            return Fields(title, tuple(changed))
    return block
