"""reStructuredText, parsed by docutils; its directives, which read files and the clock, are replaced by our own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rotary_batch.pages.authored.blocks import DEPRECATED, Block, TooDeepError, words
from rotary_batch.pages.authored.doctree import document_blocks

if TYPE_CHECKING:
    from docutils.frontend import Values
    from docutils.parsers.rst import Parser

MAX_INDENTATIONS = 12  # docutils parses what is indented by recursion
MAX_LINE_CHARACTERS = 8_000  # docutils refuses to parse lines of more than 10,000
_NESTED_IN_LINE = re.compile(r"^\s*(?:(?:[-*+•|]|\w{1,4}[.)]|\(\w{1,4}\)|:[^:\n]{1,40}:)[ \t]+){8}", re.MULTILINE)
_OBJECT_ROLES = {"any", "attr", "class", "const", "data", "exc", "func", "meth", "mod", "obj"}
_ROLE_TARGET = re.compile(r"([^<]+?)\s*<[^<>]*>")
_NOTICES = words(
    """
    attention caution danger error hint important note tip warning admonition seealso todo versionadded
    versionchanged versionremoved deprecated topic sidebar
    """
)
_CODE = words(
    """
    code-block code sourcecode ipython prompt parsed-literal math plot csv-table testcode doctest
    """
)
_SILENT = words(
    """
    index contents currentmodule module image highlight testsetup default-role role meta
    """
)
_NOTICE_TITLES = {
    "versionadded": "Added in",
    "versionchanged": "Changed in",
    "versionremoved": "Removed in",
    "seealso": "See also",
    "deprecated": DEPRECATED,
}


def restructured_blocks(text: str) -> list[Block]:
    """The blocks of a reST text.  Raises TooDeepError for one that docutils cannot parse."""
    lines = text.split("\n")
    indentations = {len(line) - len(line.lstrip()) for line in lines if line.strip()}
    is_long = max(map(len, lines)) > MAX_LINE_CHARACTERS
    if len(indentations) > MAX_INDENTATIONS or is_long or _NESTED_IN_LINE.search(text):
        raise TooDeepError
    from docutils.utils import new_document

    document = new_document("docstring", _settings())
    with _own_directives():
        _parser().parse(text, document)
    return document_blocks(document)


@lru_cache(maxsize=1)
def _settings() -> Values:
    from docutils.frontend import get_default_settings  # 50 ms, which commands that show no page save
    from docutils.parsers.rst import Parser

    settings = get_default_settings(Parser)
    settings.report_level, settings.halt_level, settings.warning_stream = 5, 6, False
    settings.file_insertion_enabled = settings.raw_enabled = False
    settings.syntax_highlight = "none"
    return settings


def _parser() -> Parser:
    """A new one for each text: an `Inliner` grows slower with each text that it parses."""
    from docutils.parsers.rst import Parser
    from docutils.parsers.rst.states import Inliner

    inliner = Inliner()
    inliner.interpreted = _role  # every role is code: what `:class:` and its like mean, only Sphinx knows
    return Parser(inliner=inliner)


def _role(rawsource: str, text: str, role: str, lineno: int) -> tuple[list[Any], list[Any]]:
    from docutils import nodes

    if role == "math":
        return [nodes.literal(rawsource, text.replace("\0", "\\"))], []
    shown = text.replace("\0", "")
    if titled := _ROLE_TARGET.fullmatch(shown):  # `title <target>`
        return [nodes.inline(rawsource, titled[1])], []
    if role.rpartition(":")[2] in _OBJECT_ROLES:
        shown = shown.lstrip(".")  # of Sphinx: looked for in every module
    return [nodes.literal(rawsource, shown.rpartition(".")[2] if shown[:1] == "~" else shown.lstrip("!"))], []


@contextmanager
def _own_directives() -> Iterator[None]:
    """Within, docutils knows one directive, ours, by every name."""
    from docutils.parsers.rst import directives

    original = directives.directive
    directives.directive = lambda name, language, document: (_directive(), [])
    try:
        yield
    finally:
        directives.directive = original


class _AnyOption(dict[str, Any]):
    """Options of every name, which are passed over."""

    def __missing__(self, name: str) -> Any:  # noqa: ANN401 (the converter of an option)
        return str


@lru_cache(maxsize=1)
def _directive() -> type:
    from docutils import nodes
    from docutils.parsers.rst import Directive
    from docutils.parsers.rst.states import SubstitutionDef

    class OwnDirective(Directive):  # type: ignore[misc]
        """A notice, a block of code, nothing, or its source."""

        has_content = True
        optional_arguments = 1
        final_argument_whitespace = True
        option_spec = _AnyOption(any=str)

        def run(self) -> list[Any]:
            """The nodes that stand in its place."""
            name = self.name.lower().rpartition(":")[2]
            argument = self.arguments[0] if self.arguments else ""
            if isinstance(self.state, SubstitutionDef):
                return [nodes.inline()]
            if name in _SILENT:
                return []
            if name in _CODE:
                block = nodes.literal_block("", "\n".join(self.content) or argument)
                block["language"] = argument if self.content else "text"
                return [block]
            if name == "rubric":
                return [nodes.rubric("", argument)]
            if name not in _NOTICES and name not in {"table", "list-table", "container", "figure"}:
                return [nodes.literal_block("", self.block_text)]
            around = nodes.admonition() if name in _NOTICES else nodes.container()
            if name in _NOTICES:
                around["title"], argument = _titled(name, argument)
                around += [nodes.paragraph("", "", *self.state.inline_text(argument, 0)[0])] if argument else []
            self.state.nested_parse(self.content, self.content_offset, around)
            return [around]

    return OwnDirective


def _titled(name: str, argument: str) -> tuple[str, str]:
    """The title of a notice, and what is left of its argument."""
    if name in {"admonition", "topic", "sidebar"}:
        return argument, ""
    title = _NOTICE_TITLES.get(name, name.capitalize())
    number, _, rest = argument.partition("\n") if "\n" in argument else argument.partition(" ")
    if name == "deprecated" and number[:1].isdigit():
        return title, f"Since {number}{':' if rest else '.'} {rest}"
    return (f"{title} {number}", rest) if name.startswith("version") else (title, argument)
