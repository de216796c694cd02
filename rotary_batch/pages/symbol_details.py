"""The tables of what a function takes, gives and raises: its code says that, a model what each is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from rotary_batch.core import Symbol
from rotary_batch.pages.parameters import parameters_of, result_of
from rotary_batch.pages.sanitise import code

_LABEL = re.compile(r"`[^`]*`, (?:parameter `([^`]*)`|(result)|raises `([^`]*)`)")


class DetailKind(StrEnum):
    """The kinds of details, as a job names them."""

    PARAMETER = "parameters"
    RESULT = "returns"
    EXCEPTION = "raises"


_BEGINNINGS = {DetailKind.PARAMETER: "The", DetailKind.RESULT: "Returns", DetailKind.EXCEPTION: "Raised if"}


class Detail(NamedTuple):
    """One parameter, the result or one exception of a symbol."""

    kind: DetailKind
    name: str  # "" of a result

    @property
    def beginning(self) -> str:
        """How the text on it begins.  Untuned small models else answer with one name in backticks, and no sentence."""
        return _BEGINNINGS[self.kind]

    def label(self, symbol: str) -> str:
        """What it is called in a prompt, after its symbol; the line on it begins so."""
        match self.kind:
            case DetailKind.PARAMETER:
                return f"`{symbol}`, parameter `{self.name}`"
            case DetailKind.RESULT:
                return f"`{symbol}`, result"
            case DetailKind.EXCEPTION:
                return f"`{symbol}`, raises `{self.name}`"


def detail_of(label: str) -> Detail:
    """The detail that has a label."""
    found = _LABEL.fullmatch(label)
    assert found is not None, f"{label!r} is no label of a detail"
    parameter, result, exception = found.groups()
    if result is not None:
        return Detail(DetailKind.RESULT, "")
    kind = DetailKind.EXCEPTION if parameter is None else DetailKind.PARAMETER
    return Detail(kind, exception if parameter is None else parameter)


class ToldDetail(NamedTuple):
    """A detail, and what a model says of it, if anything."""

    detail: Detail
    text: str | None


def detail_tables(
    symbol: Symbol, language: str | None, told: Sequence[ToldDetail], styled: Callable[[str], str]
) -> Iterator[str]:
    """The tables of one symbol, none that would be empty."""
    of_kind = {kind: [one for one in told if one.detail.kind is kind] for kind in DetailKind}
    parameters = {one.name: one for one in parameters_of(symbol, language)}
    if shown := of_kind[DetailKind.PARAMETER]:
        known = [(one, parameters.get(one.detail.name)) for one in shown]
        rows = [
            (one.detail.name, found.type if found else "", found.default if found else "", one.text)
            for one, found in known
        ]
        yield _table(("Parameter", "Type", "Default"), rows, styled)
    if shown := of_kind[DetailKind.RESULT]:
        kind, text = code(result_of(symbol, language)), shown[0].text
        yield (
            " ".join(filter(None, [f"Result: {kind}." if kind else "", styled(text) if text else ""]))
            or "Result: a value."
        )
    if shown := of_kind[DetailKind.EXCEPTION]:
        yield _table(("Raises",), [(one.detail.name, one.text) for one in shown], styled)


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str | None, ...]], styled: Callable[[str], str]) -> str:
    """A table of code and, in its last column, of text; columns without any entry are left out."""
    kept = [place for place in range(len(columns)) if any(row[place] for row in rows)]
    heads = [columns[place] for place in kept]
    has_text = any(row[-1] for row in rows)
    lines = [f"| {' | '.join([*heads, *(['Meaning'] if has_text else [])])} |"]
    lines.append(f"|{' --- |' * (len(heads) + has_text)}")
    for row in rows:
        cells = [code(row[place] or "") if row[place] else "" for place in kept]
        cells += [styled(row[-1]) if row[-1] else ""] if has_text else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
