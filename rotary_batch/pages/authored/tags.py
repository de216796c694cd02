"""Comments with block tags: JSDoc, TSDoc, Javadoc, KDoc, Scaladoc, Doxygen, PHPDoc, YARD and LDoc."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from rotary_batch.pages.authored.blocks import (
    DEPRECATED,
    Block,
    CodeBlock,
    Field,
    Fields,
    Heading,
    ItemList,
    Notice,
    Paragraph,
    code_block,
    fold,
    paragraphs,
    words,
)


class TypePlace(Enum):
    """Where a dialect writes a type, besides `{T}`, which is read everywhere."""

    NOWHERE = "nowhere"
    FIRST = "first"  # PHPDoc: `@param T $name`, `@return T`
    BRACKETS = "brackets"  # YARD: `@param name [T]`, `@return [T]`


class Dialect(NamedTuple):
    """How the comments of one language are written."""

    body: Callable[[str], list[Block]]  # the markup around and inside tags
    language: str  # of code in `@example`
    signs: str = "@"
    types: TypePlace = TypePlace.NOWHERE


class _Tag(NamedTuple):
    name: str
    text: str


_TITLES = {
    **dict.fromkeys(("param", "arg", "argument", "parameter"), "Parameter"),
    **dict.fromkeys(("typeparam", "typeParam", "template", "tparam"), "Type parameter"),
    **dict.fromkeys(("prop", "property", "field", "option"), "Property"),
    **dict.fromkeys(("return", "returns", "result", "retval"), "Returns"),
    **dict.fromkeys(("yield", "yields", "yieldreturn"), "Yields"),
    **dict.fromkeys(("throws", "throw", "exception", "raises", "raise"), "Throws"),
}
_NAMELESS = {"Returns", "Yields", "Throws"}
_NOTICES = {
    "deprecated": DEPRECATED,
    **{name: name.capitalize() for name in ("note", "warning", "attention", "caution", "important", "bug", "todo")},
    "remark": "Remark",
    "invariant": "Invariant",
    "pre": "Precondition",
    "post": "Postcondition",
}
_PROSE = words(
    """
    brief short summary desc description details detailed remarks file fileoverview overview
    packageDocumentation privateRemarks par classdesc constructor
    """
)
_EXAMPLES = frozenset({"example", "usage"})
_LABELS = {"see": "See also", "sa": "See also", "seealso": "See also", "since": "Since", "default": "Default"}
_LABELS |= {"defaultValue": "Default", "defaultvalue": "Default", "sample": "Sample"}
# They say nothing that the page does not say elsewhere.
_SILENT = words(
    """
    abstract access addtogroup alpha api async augments author authors beta callback category class const
    constant copyright date defgroup endcond cond endinternal enum event eventProperty experimental export
    exports extends external final fn function func generator global hide hideconstructor ignore implements
    inheritDoc inheritdoc ingroup inner instance interface internal kind lends license licence lends memberof
    memberOf method mixes mixin module name nosubgrouping namespace nocollapse nosideeffects override package
    private protected public readonly requires sealed static struct suppress this type typedef union var
    variation version virtual weakgroup
    """
)
_KNOWN = _TITLES.keys() | _NOTICES.keys() | _PROSE | _EXAMPLES | _LABELS.keys() | _SILENT
_IN_LINE = re.compile(
    r"(?<=\s)@(?=(?:default|defaultValue|deprecated|example|internal|param|readonly|returns?|see|since|throws|type)\b)"
)
_FENCE = re.compile(r"[ \t]*(```+|~~~+)")
_DIRECTION = re.compile(r"\s*\[\s*(?:in|out|inout|in\s*,\s*out)\s*\]")
_CAPTION = re.compile(r"\s*<caption>(.*?)</caption>", re.DOTALL)
_VARIABLE = re.compile(r"(?:(\S+)\s+)?(&?(?:\.\.\.)?\$\w+)\s*")
_NAME = re.compile(r"(\[[^\]\n]*\]|<\w+>|\S+)\s*")


def tagged_blocks(text: str, dialect: Dialect) -> list[Block]:
    """The description, then parameters, returns and exceptions, examples, and what else tags say."""
    description, tags = _split(text, dialect.signs)
    blocks = dialect.body(description)
    fields: dict[str, list[Field]] = {}
    after: list[Block] = []
    others: list[tuple[Block, ...]] = []
    for tag in tags:
        if title := _TITLES.get(tag.name):
            field = _field(title, tag, dialect)
            is_type = field.name.startswith("<")  # Javadoc: `@param <T>`
            fields.setdefault("Type parameter" if is_type else title, []).append(field)
        elif tag.name in _PROSE:
            blocks += dialect.body(tag.text)
        elif tag.name in _NOTICES:
            after.append(Notice(_NOTICES[tag.name], tuple(dialect.body(tag.text))))
        elif tag.name in _EXAMPLES:
            after += _example(tag.text, dialect)
        elif tag.name in _LABELS:
            after += _labelled(_LABELS[tag.name], tag.text, dialect)
        elif tag.name not in _SILENT:
            others.append((Paragraph(fold(f"`@{tag.name}` {tag.text}")),))
    blocks += [Fields(title, tuple(some)) for title, some in fields.items()]
    return [*blocks, *after, *([ItemList(tuple(others))] if others else [])]


def _split(text: str, signs: str) -> tuple[str, list[_Tag]]:
    """The description, and each tag with its text, to the line before the next tag.  Tags in fences are code."""
    if "\n" not in text:
        text = _IN_LINE.sub("\n@", text)
    tag_line = re.compile(rf"[ \t]*([{re.escape(signs)}])(\w+)(?![\w(.])[ \t]?")
    names, parts, fence = [""], [list[str]()], ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or line.strip() == fence):
            fence = "" if fence else mark[1]
        tag = None if fence or mark else tag_line.match(line)
        if tag and (tag[2] in _KNOWN or _is_unknown_tag(tag, names[-1])):
            names.append(tag[2])
            parts.append([line[tag.end() :]])
        else:
            parts[-1].append(line)
    description, *texts = ("\n".join(lines) for lines in parts)
    return description, [_Tag(name, text) for name, text in zip(names[1:], texts, strict=True)]


def _is_unknown_tag(tag: re.Match[str], around: str) -> bool:
    """Not in an example, where `@name` may be a decorator, nor behind a backslash, which C writes in text."""
    return tag[1] == "@" and tag[2][0].islower() and around not in _EXAMPLES


def _field(title: str, tag: _Tag, dialect: Dialect) -> Field:
    rest = _DIRECTION.sub("", tag.text, count=1) if tag.text.lstrip().startswith("[") else tag.text
    kind, rest = _type_in_braces(rest.strip())
    if tag.name == "retval" or title not in _NAMELESS:
        name, kind, rest = _named(rest, kind, dialect.types)
    else:
        name, kind, rest = "", *_typed(title, rest, kind, dialect.types)
    return Field(name, kind, tuple(dialect.body(rest.lstrip("-–—: \t\n") if name or kind else rest)))


def _type_in_braces(text: str) -> tuple[str, str]:
    """The type of `{T} rest`, and the rest."""
    depth = 0
    for at, letter in enumerate(text[:1000] if text.startswith("{") and not text.startswith("{@") else ""):
        depth += (letter == "{") - (letter == "}")
        if not depth:
            return fold(text[1:at]), text[at + 1 :].lstrip()
    return "", text


def _named(text: str, kind: str, types: TypePlace) -> tuple[str, str, str]:
    """Name, type and description of a parameter."""
    if types is TypePlace.FIRST and (variable := _VARIABLE.match(text)):
        return variable[2], kind or variable[1] or "", text[variable.end() :]
    if types is TypePlace.BRACKETS and not kind:
        kind, text = _type_in_brackets(text)
    found = _NAME.match(text)
    name, rest = (found[1], text[found.end() :]) if found else ("", "")
    if types is TypePlace.BRACKETS and not kind:
        kind, rest = _type_in_brackets(rest)
    if name.startswith("[") and name.endswith("]"):  # JSDoc: `[name=default]`
        name, _, default = name[1:-1].partition("=")
        kind = " = ".join(filter(None, [kind, default]))
    return name.strip("`:"), kind, rest


def _typed(title: str, text: str, kind: str, types: TypePlace) -> tuple[str, str]:
    """Type and description of a return value or an exception."""
    if kind:
        return kind, text
    if types is TypePlace.BRACKETS:
        return _type_in_brackets(text)
    first, _, rest = text.partition(" ")
    if types is TypePlace.FIRST or (title == "Throws" and re.fullmatch(r"\w+(?:[.:\\]+\w+)*", first.strip())):
        return (fold(first), rest) if "\n" not in first.strip() else (first.split("\n", 1)[0], text.split("\n", 1)[1])
    return "", text


def _type_in_brackets(text: str) -> tuple[str, str]:
    end = text.find("]", 0, 500)
    return (fold(text[1:end]), text[end + 1 :].lstrip()) if text.startswith("[") and end > 0 else ("", text)


def _example(text: str, dialect: Dialect) -> Iterator[Block]:
    """An example is code, unless it has fences of its own."""
    yield Heading("Example")
    if caption := _CAPTION.match(text):
        yield from paragraphs(caption[1])
        text = text[caption.end() :]
    blocks = dialect.body(text) if "```" in text or "<pre" in text else []
    if any(isinstance(block, CodeBlock) for block in blocks):
        yield from blocks
    else:
        yield from code_block(text, dialect.language)


def _labelled(label: str, text: str, dialect: Dialect) -> list[Block]:
    if label == "Default":
        text = f"`{fold(text)}`" if text.strip() and "`" not in text else text
    blocks = dialect.body(text)
    if blocks and isinstance(blocks[0], Paragraph):
        return [Paragraph(f"{label}: {blocks[0].text}"), *blocks[1:]]
    return blocks
