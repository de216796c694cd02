"""Field lists of Python docstrings: `:param int x: text`, `:returns: text`."""

from __future__ import annotations

from collections.abc import Iterable

from rotary_batch.pages.authored.blocks import DEPRECATED, Block, Field, Fields, ItemList, Notice, Paragraph

_TITLES = {
    **dict.fromkeys(("param", "parameter", "arg", "argument", "key", "keyword", "kwarg", "kwparam"), "Parameter"),
    **dict.fromkeys(("var", "ivar", "cvar", "attribute", "attr"), "Attribute"),
    **dict.fromkeys(("return", "returns"), "Returns"),
    **dict.fromkeys(("yield", "yields"), "Yields"),
    **dict.fromkeys(("raise", "raises", "except", "exception"), "Raises"),
}
_TYPES = {"type": "Parameter", "vartype": "Attribute", "rtype": "Returns", "ytype": "Yields"}


def field_blocks(fields: Iterable[tuple[str, list[Block]]]) -> list[Block]:
    """Tables of the fields that have one; the others as a list."""
    tables: dict[str, dict[str, Field]] = {}
    notices: list[Block] = []
    others: list[tuple[Block, ...]] = []
    for label, blocks in fields:
        word, _, argument = label.strip().partition(" ")
        if title := _TITLES.get(word.lower()):
            kind, _, name = (
                argument.strip().rpartition(" ") if title in {"Parameter", "Attribute"} else ("", "", argument)
            )
            table = tables.setdefault(title, {})
            key = name if name not in table or title in {"Parameter", "Attribute"} else f"{name} {len(table)}"
            table[key] = Field(name, kind or (table[key].type if key in table else ""), tuple(blocks))
        elif title := _TYPES.get(word.lower()):
            table = tables.setdefault(title, {})
            old = table.get(argument.strip(), Field(argument.strip(), "", ()))
            table[argument.strip()] = old._replace(type=_text(blocks))
        elif word.lower() == "deprecated":
            notices.append(Notice(DEPRECATED, tuple(blocks)))
        elif word.lower() != "meta":
            others.append((Paragraph(f"{label}: {_text(blocks)}"), *blocks[1:]))
    shown = [Fields(title, tuple(table.values())) for title, table in tables.items()]
    return [*notices, *shown, *([ItemList(tuple(others))] if others else [])]


def _text(blocks: list[Block]) -> str:
    return blocks[0].text.strip("`") if blocks and isinstance(blocks[0], Paragraph) else ""
