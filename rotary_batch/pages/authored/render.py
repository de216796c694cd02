"""Blocks as Markdown that has no effect: no HTML, no link, no image, no heading, whatever the author wrote.

The same bytes have to read alike in CommonMark, on forges, and in Python-Markdown, which MkDocs and Zensical use: items
are indented by four columns, and code within them is indented code, as fences there are known to CommonMark only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rotary_batch.pages.authored.blocks import (
    MAX_DEPTH,
    Block,
    CodeBlock,
    Field,
    Fields,
    Heading,
    ItemList,
    Notice,
    Paragraph,
    Table,
    words,
)
from rotary_batch.pages.sanitise import code, fenced, indented, inline

# Languages that are coloured and nothing else: forges draw `mermaid`, `math` and maps.
_LANGUAGES = words(
    """
    bash c console cpp csharp css diff dockerfile go html http ini java javascript json jsx kotlin lua make markdown
    php powershell pycon python ruby rust scala sh shell sql svelte swift text toml tsx typescript vue xml yaml
    """
)
_ALIASES = {
    "c++": "cpp",
    "c_sharp": "csharp",
    "js": "javascript",
    "notebook": "python",
    "py": "python",
    "rs": "rust",
    "ts": "typescript",
    "yml": "yaml",
}


def to_markdown(blocks: Iterable[Block], depth: int = 0) -> list[str]:
    """One text for each block, to be parted by blank lines; `depth` is the number of lists around them."""
    texts: list[str] = []
    is_paragraph = False
    for block in blocks:
        if not (text := _block(block, depth)):
            continue
        if depth and not is_paragraph and not isinstance(block, Paragraph | Heading):
            texts.append("…")  # parsers differ in what they take indented code behind a bullet or a list for
        texts.append(text)
        is_paragraph = isinstance(block, Paragraph | Heading)
    return texts


def _block(block: Block, depth: int) -> str:
    match block:
        case Paragraph(text):
            return inline(text)
        case Heading(text):
            return _bold(text)
        case CodeBlock(text, language):
            return indented(text) if depth else fenced(text, known_language(language))
        case ItemList(items, is_ordered):
            return _list(items, depth, is_ordered=is_ordered)
        case Table(header, rows):
            return _table([inline(cell) for cell in header], [[inline(cell) for cell in row] for row in rows])
        case Notice(title, blocks):
            return _notice(title, blocks, depth)
        case Fields(title, fields):
            return _fields(title, fields, depth)


def known_language(name: str) -> str:
    """A language that may stand at a fence."""
    lower = name.lower()
    lower = _ALIASES.get(lower, lower)
    return lower if lower in _LANGUAGES else "text"


def _bold(text: str) -> str:
    shown = inline(text)
    return f"**{shown}**" if shown else ""


def _list(items: Sequence[Sequence[Block]], depth: int, *, is_ordered: bool) -> str:
    if depth >= MAX_DEPTH:
        return "\n\n".join(text for item in items for text in to_markdown(item, depth))
    shown: list[str] = []
    for item in items:
        if not (texts := to_markdown(_with_short_code(item), depth + 1)):
            continue
        marker = f"{min(len(shown) + 1, 99)}." if is_ordered else "-"
        lines = "\n\n".join(texts).split("\n")
        body = "\n".join(f"    {line}" if line else "" for line in lines)
        shown.append(marker.ljust(4) + body.removeprefix("    "))
    return ("\n\n" if any("\n" in item for item in shown) else "\n").join(shown)


def _with_short_code(item: Sequence[Block]) -> Sequence[Block]:
    """An item that begins with one line of code begins with a code span."""
    if item and isinstance(item[0], CodeBlock) and "\n" not in item[0].text and "`" not in item[0].text:
        return [Paragraph(f"`{item[0].text}`"), *item[1:]]
    return item


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if header else ""


def _notice(title: str, blocks: Sequence[Block], depth: int) -> str:
    """Its paragraphs as a quotation; code and tables stand below it, at the margin."""
    shown: list[str] = []
    head = f"**{inline(title)}.**" if title else ""
    for block in blocks or [Paragraph("")]:
        if not isinstance(block, Paragraph):
            shown += [*([f"> {head}"] if head else []), *to_markdown([block], depth)]
        elif line := " ".join(filter(None, [head, inline(block.text)])):
            above = f"{shown.pop()}\n>\n" if shown and shown[-1].startswith("> ") else ""
            shown.append(f"{above}> {line}")
        head = ""
    return "\n\n".join(shown)


def _fields(title: str, fields: Sequence[Field], depth: int) -> str:
    """A table of the columns that say anything; below it what a cell cannot hold."""
    rows, below = [], []
    for field in fields:
        is_text = bool(field.blocks) and isinstance(field.blocks[0], Paragraph)
        text, rest = (field.blocks[:1], field.blocks[1:]) if is_text else ((), field.blocks)
        rows.append(
            [
                code(field.name),
                inline(field.type) if "`" in field.type else code(field.type),
                *(to_markdown(text) or [""]),
            ]
        )
        if more := to_markdown(rest, depth):
            below += [f"{code(field.name or field.type) or inline(title)}:", *more]
    used = [n for n in range(3) if any(row[n] for row in rows)]
    names = ["", "Type", "Description"]
    header = [inline(title) if n == used[0] else names[n] for n in used]
    return "\n\n".join(filter(None, [_table(header, [[row[n] for n in used] for row in rows]), *below]))
