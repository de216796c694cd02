"""Python docstrings: Google's and NumPy's sections, parsed by griffe, around text in reST or Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from rotary_batch.pages.authored.blocks import (
    DEPRECATED,
    Block,
    Field,
    Fields,
    Heading,
    ItemList,
    Notice,
    code_block,
    paragraphs,
    span,
)
from rotary_batch.pages.authored.commonmark import markdown_blocks
from rotary_batch.pages.authored.prose import prose_blocks
from rotary_batch.pages.authored.restructured import restructured_blocks

if TYPE_CHECKING:
    from griffe import DocstringSection

_NUMPY = re.compile(r"^[A-Z][A-Za-z ]{2,30}\n-{3,}[ \t]*$", re.MULTILINE)
_GOOGLE = re.compile(
    r"^(?:Args|Arguments|Params|Parameters|Other (?:Args|Arguments|Params|Parameters)|Keyword (?:Args|Arguments)|Raises"
    r"|Exceptions|Warns|Yields|Receives|Returns|Examples?|Attributes|Notes?|Warnings?|Todo|Deprecated|Tip|See Also"
    r"|References):[ \t]*\n+[ \t]+\S",
    re.MULTILINE,
)
_EPYDOC = re.compile(r"^([ \t]*)@(param|type|returns?|rtype|raises?|keyword|ivar|cvar)\b([^:\n]{0,80}):", re.MULTILINE)
_MARKDOWN = re.compile(
    r"^[ \t]*```|^#{1,6} \S|\]\(\S{1,300}?\)|^[ \t]*\|[^\n]*\|[ \t]*\n[ \t]*\|[ :|-]+\|", re.MULTILINE
)
_RESTRUCTURED = re.compile(
    r"^[ \t]*:\w+[^:\n]{0,80}:(?=\s)|^[ \t]*\.\. \w+::|:\w+:`|^[ \t]*@\w+[^:\n]{0,80}:", re.MULTILINE
)
# How Google's style begins the docstring of a property: "float: Seconds left.".  The signature shows the type.
_RESULT = re.compile(
    r"(?:str|int|float|complex|bool|bytes|list|dict|tuple|set|frozenset|object|None|[A-Za-z_][\w.]*\[[^\n:]{1,100}\])"
    r":[ \t]+(?=[A-Z])"
)
_DOCTEST = re.compile(r"^[ \t]*>>> ?")
_TABLES = {
    "parameters": "Parameter",
    "other parameters": "Parameter",
    "type parameters": "Type parameter",
    "attributes": "Attribute",
    "functions": "Function",
    "classes": "Class",
    "modules": "Module",
    "type aliases": "Type alias",
    "returns": "Returns",
    "yields": "Yields",
    "receives": "Receives",
    "raises": "Raises",
    "warns": "Warns",
}
_NOTICES = frozenset({"note", "warning", "tip", "important", "caution", "danger", "todo", "deprecated", "info"})


def without_result_type(text: str) -> str:
    """A docstring without the type of a result at its start."""
    found = _RESULT.match(text)
    return text[found.end() :] if found else text


def python_blocks(text: str) -> list[Block]:
    """The blocks of a docstring.  Raises TooDeepError."""
    if _NUMPY.search(text):
        return _sectioned(text, "numpy")
    if _GOOGLE.search(text):
        return _sectioned(text, "google")
    return _body(text)


def _body(text: str) -> list[Block]:
    """Text in Markdown where something says that it is, else in reST."""
    if (blocks := prose_blocks(text)) is not None:
        return blocks
    if _MARKDOWN.search(text) and not _RESTRUCTURED.search(text):
        return [block for part, is_test in _doctests(text) for block in _markdown(part, is_test=is_test)]
    return restructured_blocks(_EPYDOC.sub(r"\1:\2\3:", text))


def _markdown(text: str, *, is_test: bool) -> list[Block]:
    return code_block(text, "pycon") if is_test else markdown_blocks(text)


def _doctests(text: str) -> Iterable[tuple[str, bool]]:
    """The parts of a Markdown text, in which a doctest would be a quotation of a quotation of a quotation."""
    lines, is_test, is_fenced = list[str](), False, False
    for line in text.split("\n"):
        begins = not is_fenced and not is_test and bool(_DOCTEST.match(line))
        if begins or (is_test and not line.strip()):
            yield "\n".join(lines), is_test
            lines, is_test = [], begins
        elif not is_test and line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        lines.append(line)
    yield "\n".join(lines), is_test


def _sectioned(text: str, style: Literal["numpy", "google"]) -> list[Block]:
    from griffe import Docstring  # 80 ms, which commands that show no page save

    blocks: list[Block] = []
    options = {"returns_named_value": False} if style == "google" else {}
    # griffe dedents all lines but the first one, which is none here
    for section in Docstring(f"\n{text}").parse(style, warnings=False, **options):
        blocks += _section(section, style)
    return blocks


def _section(section: DocstringSection, style: str) -> list[Block]:
    kind, value = section.kind.value, section.value
    if kind == "text":
        return _body(value)
    if title := _TABLES.get(kind):
        return [Fields(section.title or title if kind == "attributes" else title, tuple(map(_field, value)))]
    if kind == "examples":
        parts = [code_block(part, "pycon") if of_part.value == "examples" else _body(part) for of_part, part in value]
        return [Heading("Examples"), *(block for part in parts for block in part)]
    if kind == "deprecated":
        return [Notice(DEPRECATED, tuple(_body(f"Since {value.version}: {value.description}")))]
    if getattr(value, "annotation", "") == "see-also":
        return [Heading("See also"), *_see_also(value.description)]
    title, inner = section.title or kind.capitalize(), _body(getattr(value, "description", str(value)))
    if style == "google" and getattr(value, "annotation", "") in _NOTICES:
        return [Notice(title.removesuffix("s"), tuple(inner))]
    return [Heading(title), *inner] if inner else []


def _see_also(text: str) -> list[Block]:
    """NumPy's lines `name : text`, whose continuations are indented."""
    items = re.split(r"\n(?=\S)", re.sub(r":[\w:]{1,40}:(?=`)", "", text).strip())
    parted = [re.match(r"([\w.,` *]+?)\s*:\s+(.*)", item, re.DOTALL) for item in items]
    lines = [f"{span(part[1])}: {part[2]}" if part else _names(item) for part, item in zip(parted, items, strict=True)]
    return [ItemList(tuple(tuple(paragraphs(line)) for line in lines if line.strip()))]


def _names(text: str) -> str:
    is_list = re.fullmatch(r"[\w.]+(?:,\s*[\w.]+)*", text.strip())
    return ", ".join(map(span, re.split(r",\s*", text.strip()))) if is_list else text


def _field(item: Any) -> Field:  # noqa: ANN401 (one class for each kind of section)
    kind, text = str(item.annotation or ""), item.description or ""
    name = getattr(item, "name", "") or ""
    if not name and " " in kind and not re.search(r"[\[\],|]", kind):  # Google: `Returns:` with a sentence and a colon
        kind, text = "", f"{kind}: {text}"
    return Field(name, kind.strip("`"), tuple(_body(text)))
