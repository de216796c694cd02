"""What a comment says that is not about the code: licences, authors, rulers, and lines meant for tools."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, dropwhile, takewhile

MAX_EXAMINED_CHARACTERS = 50_000  # notices are at the top; what follows stays as it is
_MAX_KEPT_CHARACTERS = 4000  # of a comment that may be read again
_MAX_LINE_CHARACTERS = 300  # no notice has longer lines
_MIN_LEGAL_WORDS = 2  # in one paragraph of a comment that holds a licence


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE | re.VERBOSE)


# Lines that address a tool; what is also an English word has to be followed by what it says.
_TOOLS = (
    r"checkstyle|clang-format|clang-tidy|codespell|cppcheck|cspell|cython|deno-fmt|deno-lint|distutils|dprint|eslint|flake8"
    r"|gosec|hadolint|isort|istanbul|iwyu|jscs|jshint|jslint|kate|ktlint|luacheck|markdownlint|mypy|nosemgrep|oxlint|phpcs"
    r"|phpstan|prettier|psalm|pycodestyle|pyflakes|pylint|pyre|pyright|pytype|rubocop|ruff|rustfmt|shellcheck|spell-?checker"
    r"|staticcheck|stylelint|swift-tools-version|swiftformat|swiftlint|tslint|uncrustify|vim?|webpack\w+|yapf"
)
_ORDER = r"(?:disable|enable|ignore|skip|off|on|pragma|next|line|suppress|expect|env|start|end)"
_DIRECTIVE = _pattern(
    rf"""[\s!/*\#;-]*(?:
      (?:{_TOOLS})(?:\s*: | -{_ORDER}\b | \s+{_ORDER}\b).* | (?:jshint|jslint|eslint)\s+[\w-]+\s*[:=].*
      |(?:fmt|lint|standard|typed|black|doctest)\s?:\s?(?:{_ORDER}|file-ignore|true|false|strict|strong|\+)\S*.*
      |(?:c8|v8|biome|svelte)[-\s]ignore\b.* | lint\s*-e\d+.*
      |no(?:qa|sec|sonar|inspection|lint(?:nextline|begin|end)?)\b.*
      |(?:en)?coding\s*[:=]\s*[\w.-]+ | ex:\s+set?\b.* | local\s+variables:.* | end: | fall\s?through | language=\w+
      |<(?:reference|amd-(?:module|dependency))\b.* | @?ts-(?:check|nocheck|ignore|expect-error)\b.*
      |@(?:format|prettier|preserve|cc_on|noformat|formatter:\w+|vite-ignore) | @(?:no)?flow\b.* | @jsx\w*\s.*
      |[@\#]__\w+__ | (?-i:globals?)\s+[\w$]+(?:\s*[:,]\s*[\w$]+)*,? | (?-i:exported)\s+[\w$]+(?:\s*,\s*[\w$]+)*
      |(?:coverity|pvs-studio|lcov_excl\w*|gcovr?_excl\w*)\b.* | type:\s*ignore\b.*
      |(?:frozen_string_literal|warn_indent):.*
      |pragma:?\s+(?:no|once|region|endregion|mark|warning|gcc|clang)\b.* | \#(?:end)?region\b.* | endregion\b.*
      |go:[a-z]+\b.* | \+build\s.* | line\s+\S+:\d+.* | source(?:mapping)?url=.* | [@\\][{{}}]
    )\s*"""
)

# Lines that only a licence has, and words that its other paragraphs have.
_LEGAL_LINE = _pattern(
    r"""[\W\d_]*(?:
      (?:portions\s+|(?:some\s+)?parts\s+)?copy(?:right|left)\b\s*(?:
        [:,] | \(c\) | © | \d{4} | by\b | notice\b | (?-i:[A-Z]) | $
        |the\s.*\b(?:authors?|contributors?|developers|project|team)\b)
      |.{0,80}?\(c\)\s*(?:copyright\s*)?(?:19|20)\d\d\b | \(c\)\s*(?:copyright|(?-i:[A-Z])) | ©\s*\d
      |spdx- | all\s+rights\s+reserved | (?:dual[- ])?licen[cs]ed\s+(?:under|to|by|according|with)
      |licen[cs]e\s*(?:$|:)
      |(?:released|distributed|available|published|covered)\s+under\s+(?:\S+\s+){0,8}?(?:licen[cs]e|terms|gpl|mit|bsd)
      |(?:the\s+)?(?:mit|isc|bsd|apache|zlib|boost|mozilla|gnu)\b[\w\s.,-]{0,30}\blicen[cs]ed?\b
      |.{0,80}\b(?:open\s+source|public|free)\s+licen[cs]e(?:\s+\(\w+\))?\s*$
      |permission\s+(?:is\s+(?:hereby|granted)|to\s+use) | redistributions?\s+(?:and\s+use|of\s+source|in\s+binary)
      |this\s+(?:\w+\s+){0,3}?(?:file|program|software|source|library|code|work|module|package|script|header|product)\b
        .{0,200}?(?:\blicen[cs]|copyright|free\s+software|public\s+domain|open\s+source|provided\s.{0,80}as.is)
      |you\s+should\s+have\s+received\s+a\s+copy | this\s.{0,80}\bis\s+distributed\s+in\s+the\s+hope
      |the\s+authors?\s+of\s+this\s+(?:software|file|code|library|program)\s+(?:is|are)\b
      |use\s+of\s+this\s+s | the\s+contents\s+of\s+this\s+file | you\s+may\s+(?:not\s+use|obtain)
      |unless\s+required\s+by\s+app | part\s+of\s+the\s+\S+\s+project,\s+under
      |see\s+(?:the\s+)?\W*(?:accompanying\s+|included\s+)?(?:files?\s+)?\W*(?:\S*/)?(?:licen[cs]e|copying|copyright)s?\b
      |for\s+(?:the\s+)?(?:full\s+|more\s+)?(?:licen[cs]\w*|copyright)\s+(?:details|info\w*|terms|and)
      |(?:placed\s+)?in(?:to)?\s+the\s+public\s+domain | public\s+domain\b | cddl\s+header
      |\$?(?:begin[_\s])?licen[cs]e\b[\$:] | proprietary\s+and\s+confidential | no\s+warranty | disclaimer\s*$
      |:(?:copyright|licen[cs]e)s?: | [@\\](?:licen[cs]e|copyright)\b
      |https?://(?:www\.)?(?:apache|gnu|opensource|mozilla|boost|creativecommons)\.org/\S*(?:licen[cs]e|mpl)
    )"""
)
_LEGAL_WORD = _pattern(
    r"""\b(?:licen[cs]|copyright|warrant|liab|redistribut|permission|permitted|trademark|patent|damages|granted|agreement
    |rights|merchantab|infring|fitness|retain|endorse|disclaim|provided|distribut|modif|terms|conditions|misrepresent
    |software|notice|acknowledg|law|copies|copy\b|gnu\b|gpl\b|sublicen|freely|governing)"""
)

# What says who wrote the code, when and from what: whole lines with labels, and sentences.  A file has more of them.
_KEYWORD = re.compile(
    r"\$(?:Id|Rev|Revision|Date|Author|Header|Log|Source|RCSfile|Name|State|HeadURL|URL|LastChanged\w+|\w*BSD)\b"
    r"[^$\n]{0,300}\$|@\(#\)"
)
_FIELD = _pattern(
    r"""[\s*\#:;-]*(?:(?:original\s+|main\s+)?(?:authors?|maintainers?|contributors?)(?:\(s\))?\s*(?::|by\b|\s-\s).*
      |[@\\](?:authors?|since|version|date)\b.*)"""
)
_FILE_FIELD = _pattern(
    r"""[\s*\#@\\:;-]*(?:
      (?:file(?:\s?name)?|authors?\w*|e-?mail|version|revision|rev|date|history|change\s?log|website|web|home\s?page|url
        |(?:created|modified|last[- ]?(?:modified|updated?|changed?))(?:\s+(?:by|on|at))?|modifications?|sources?
        |project
        |package|program|component|platform|compiler|language|contact|credits?|thanks(?:\s+to)?|bugs?|status|reviewed\s+by
        |tested\s+\w+|since|tabs?(?:\s+size)?|indent\w*|see(?:\s+also)?|maintainers?)\s*[:=].*
      |(?:created|written|coded|authored)\s+by\s+\S+\W* | by\s+(?-i:[A-Z])[\w.-]*\s+(?-i:[A-Z]).*
      |\(?\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\)?.* | <?[\w.+-]+@[\w-]+\.[\w.]+>?\W* | <?https?://\S+>?\W*
      |(?:v|version|release|revision)\.?\s*\d[\w.]*\W*
    )"""
)
_ATTRIBUTION = _pattern(
    r"""[\s*\#:;-]*(?:
      (?:(?:originally|initially|first|mostly)\s+)?(?:written|created|contributed|authored|coded|maintained|modified)
        \s+(?:and\s+\w+\s+)?(?:by\s+(?-i:[A-Z])[\w.-]*\s+(?-i:[A-Z])|in\s+\d{4}|on\s+\d)
      |(?:(?:heavily|loosely|partly|originally|initially|mostly|shamelessly|largely|directly|code|modified|is|was|this)\s+)
        {0,3}(?:(?:adapted|ported|backported|stolen|borrowed|cribbed)\s+(?:and\s+\w+\s+)?(?:directly\s+|almost\s+)?from\b
        |(?:taken|copied|lifted|translated|forked|extracted|derived)\s+(?:verbatim\s+|directly\s+|almost\s+)?from
          \s+(?:https?:|(?-i:[A-Z])))
    )"""
)
_FILE_NOTE = _pattern(
    r"""[\s*\#@\\:;-]*(?:
      (?:this\s+(?:\w+\s+){0,2}?(?:file|code|program|script|library|header|module)\s+)?(?:is\s+|was\s+)?
        (?:a\s+)?part\s+of\b
      |this\s+(?:file|code|module)\s+(?:is|was)\s+(?:\w+\s+)?(?:adapted|taken|copied|originally|derived|based)\b
      |(?:(?:loosely|heavily|partly|originally)\s+)?(?:based|derived)\s+(?:up)?(?:on|from)\b | inspired\s+by\b
      |thanks\s+to\b
      |(?:please\s+)?(?:send|report|e?-?mail|direct)\s+(?:\w+\s+){0,2}?(?:bugs?|comments|questions|patches|reports)\b
      |(?:todo|fixme|xxx|hack)\b\W
    ).*"""
)
_GENERATED = _pattern(
    r"""(?:\W|note\b|warning\b|attention\b)*(?:
      this\s+(?:\w+\s+){0,2}?(?:file|code|module|class|header)\s+(?:is|was|has\s+been)\s+(?:auto\w*[-\s]*)?generated\b
      |(?:\S+\.\s+)?(?:auto\w*[-\s]*)?generated\s+(?:by|from|with|on|auto\w+|using|file|code)\b
      |.{0,80}\bdo\s+not\s+(?:hand-?)?(?:edit|modify)\b
    ).*"""
)

# What the first line of a file may begin with.
_IS_FILE_TAG = re.compile(r"^\s*[@\\](?:file|fileoverview|module|packageDocumentation)(?=\s|$)", re.MULTILINE)
_FILE_NAME = r"[<\"'`(]?(?:[\w+.-]+/)*[\w+-]+(?:\.[\w+-]+)*\.[A-Za-z][\w+]{0,7}[>\"'`)]?"
_SUMMARY = r"(?:description|purpose|abstract|summary|synopsis|overview|brief)\s*[:=]"
_LABEL = _pattern(
    rf"""\s*(?:[@\\](?:file(?:overview)?|packageDocumentation|brief|short|desc(?:ription)?|summary)(?=\s|$)[ \t]*
      (?:{_FILE_NAME}(?=\s|$))? | [@\\](?:module|namespace|package)(?=\s|$).* | {_SUMMARY}\s*
    |\W*(?:begin(?:ning)?\s+(?:of\s+)?|file\s+)?{_FILE_NAME}\s*(?:[-:–—]+\s+|$))"""
)
_LABELLED = _pattern(rf"\s*{_SUMMARY}.*")
_BRIEF = re.compile(r"\s*[@\\]brief\s+")
_ONE_WORD = re.compile(r"\W*[\w+./:-]*\W*")
_EMACS = re.compile(r"-\*-.*?-\*-|\s[-*]+\s?C(?:\+\+)?\s[-*=/]+$")

# A line of stars, dashes or parts of a box; one with words in it is a heading.
_MARKS = frozenset("-=*#_~+/.:\\|<>^%&@$! \t\u2022\u00b7\u00af") | {chr(code) for code in range(0x2500, 0x25A0)}
_HEADING = re.compile(
    r"\s*([^\w\s])\1{2,}.*?([^\w\s])\2{2,}\W*|\s*([-=*#_~+/\u2500-\u257f])\3{5,}\s*\S.*"
    r"|.*?\S\s*([-=*_~+/\u2500-\u257f])\4{5,}\W*"
)
_CODE_LINE = re.compile(
    r"\s*(?:#?\s*(?:include|define|undef|ifn?def|endif)\b.*|import\s.*|from\s\S+\s+import\b.*|.*[;{}])\s*"
)


def about_the_code(
    text: str, *, is_file: bool = False, is_comment: bool = True, in_licence: bool = False
) -> str | None:
    """A comment or docstring without its notices, or None when nothing else is in it.

    Licences and lines for tools are left out everywhere; what says who wrote the code, and rulers, only before the
    first line about it.  The head of a file (`is_file`) has more such lines than a symbol.  `in_licence` says that the
    comment before this one was a licence, which this one may continue.
    """
    # A comment is looked at alone and with its neighbours, and licences are in many files.
    read = _read_again if len(text) <= _MAX_KEPT_CHARACTERS else _read
    return read(text, is_file, is_comment, in_licence)


def _read(text: str, is_file: bool, is_comment: bool, in_licence: bool) -> str | None:  # noqa: FBT001
    head, rest = text[:MAX_EXAMINED_CHARACTERS], text[MAX_EXAMINED_CHARACTERS:]
    lines = [line for line in head.split("\n") if not _is_keyword(line)]
    if is_comment:
        lines = [_without_emacs(line) for line in lines if not _is(_DIRECTIVE, line)]
    paragraphs = _without_licence(_paragraphs(lines))
    if in_licence:
        paragraphs = list(dropwhile(lambda paragraph: _num_legal_words(paragraph) > _MIN_LEGAL_WORDS, paragraphs))
    for place, paragraph in enumerate(paragraphs):
        if opening := _opening(paragraph, is_file=is_file):
            lines = [*opening, *chain.from_iterable(paragraphs[place + 1 :])]
            break
    else:
        lines = []
    while is_comment and not rest and lines and (_is_ruler(lines[-1]) or not lines[-1].strip()):
        del lines[-1]
    return ("\n".join(lines).rstrip() + rest).strip("\n") or None


_read_again = lru_cache(maxsize=500)(_read)


def has_licence(text: str) -> bool:
    """Whether a licence, or a part of one, is in a comment."""
    lines = text[:MAX_EXAMINED_CHARACTERS].split("\n")
    return any(_is_legal(line) for line in lines)


def speaks_for_file(text: str) -> bool:
    """Whether a comment says by a tag that it is about its file."""
    return _IS_FILE_TAG.search(text[:MAX_EXAMINED_CHARACTERS]) is not None


def _is(pattern: re.Pattern[str], line: str) -> bool:
    return len(line) <= _MAX_LINE_CHARACTERS and pattern.fullmatch(line) is not None and bool(line.strip())


def _without_emacs(line: str) -> str:
    return _EMACS.sub("", line) if "-*-" in line or "C" in line else line


def _is_keyword(line: str) -> bool:
    return ("$" in line or "@(#)" in line) and _KEYWORD.search(line[:_MAX_LINE_CHARACTERS]) is not None


def _is_legal(line: str) -> bool:
    return _LEGAL_LINE.match(line[:_MAX_LINE_CHARACTERS]) is not None


def _is_ruler(line: str) -> bool:
    marks = line.strip()
    return (
        bool(marks) and _MARKS.issuperset(marks) and (len(marks) > 2 or marks in {"*", "#", "|", "-", "**", "--", "//"})
    )


def _paragraphs(lines: Sequence[str]) -> list[list[str]]:
    """Runs of lines with text, each with the blank lines after it."""
    paragraphs: list[list[str]] = []
    for line in lines:
        if line.strip() and (not paragraphs or not paragraphs[-1][-1].strip()):
            paragraphs.append([])
        if paragraphs:
            paragraphs[-1].append(line)
    return paragraphs


def _without_licence(paragraphs: list[list[str]]) -> list[list[str]]:
    """Without the paragraphs of licences; what is between two of them belongs to one."""
    legal = [_legal_from(paragraph) for paragraph in paragraphs]
    if all(place is None for place in legal):
        return paragraphs
    is_legal = [
        place is not None or _num_legal_words(paragraph) >= _MIN_LEGAL_WORDS
        for place, paragraph in zip(legal, paragraphs, strict=True)
    ]
    first, last = is_legal.index(True), len(is_legal) - is_legal[::-1].index(True)
    before = [[*paragraphs[first][: legal[first]], ""]] if legal[first] else []
    return [*paragraphs[:first], *before, *paragraphs[last:]]


def _legal_from(paragraph: Sequence[str]) -> int | None:
    """The first line of a paragraph that belongs to a licence; sentences go on in the next line."""
    place = next((n for n in range(len(paragraph)) if _is_legal(" ".join(paragraph[n : n + 2]))), None)
    if place and _num_legal_words(paragraph[:place]) >= _MIN_LEGAL_WORDS:
        return 0
    return place


def _num_legal_words(paragraph: Sequence[str]) -> int:
    return len({word.lower() for word in _LEGAL_WORD.findall("\n".join(paragraph))})


def _opening(paragraph: Sequence[str], *, is_file: bool) -> list[str]:
    """The first paragraph from its first line about the code on; empty when it has none."""
    lines = list(paragraph)
    while lines and lines[0].strip():
        line = lines[0]
        if _is_ruler(line):
            del lines[0]
        elif is_file and _is(_GENERATED, line):
            return []
        elif _is(_FIELD, line) or (is_file and _is(_FILE_FIELD, line)):
            lines = _after_item(lines)
        elif _ATTRIBUTION.match(line[:_MAX_LINE_CHARACTERS]) or (is_file and _is(_FILE_NOTE, line)):
            lines = _after_sentence(lines)
        elif _is(_HEADING, line):
            lines = [title, *lines[1:]] if is_file and (title := _title(line)) else lines[1:]
        elif is_file and (label := _LABEL.match(line[:_MAX_LINE_CHARACTERS])):
            lines = [rest, *lines[1:]] if (rest := line[label.end() :].strip().rstrip("-=*/# ")) else lines[1:]
        else:
            break
    if not lines or not lines[0].strip() or (is_file and _says_nothing(lines)):
        return []
    lines[0] = _BRIEF.sub("", lines[0], count=1)
    return _without_fields(lines) if is_file else lines


def _without_fields(lines: Sequence[str]) -> list[str]:
    """Without the lines with labels, such as `Author:`, that end the first paragraph of a file."""
    kept = list(takewhile(lambda line: not _is_field(line), lines[1:]))
    return [lines[0], *kept, *([""] if len(kept) + 1 < len(lines) else [])]


def _is_field(line: str) -> bool:
    attribution = _ATTRIBUTION.match(line[:_MAX_LINE_CHARACTERS])
    return any(_is(pattern, line) for pattern in (_FIELD, _FILE_FIELD, _LABELLED)) or attribution is not None


def _says_nothing(paragraph: Sequence[str]) -> bool:
    """Whether the first paragraph of a file is a name, or code that was commented out."""
    lines = [line.strip() for line in paragraph if line.strip()]
    words = [line for line in lines if not _is_ruler(line)]
    if len(words) == 1 and _ONE_WORD.fullmatch(words[0]) and not words[0].endswith("."):
        return words[0].islower() or not words[0].isalpha()
    return all(_is(_CODE_LINE, line) for line in words)


def _title(heading: str) -> str:
    """The words of a heading between rulers."""
    return re.sub(r"^\W+|[^\w.)]+$", "", heading)


def _after_item(lines: Sequence[str]) -> list[str]:
    """What follows a line with a label and the lines that are indented below it."""
    indent = _indent(lines[0])
    return list(dropwhile(lambda line: _indent(line) > indent and bool(line.strip()), lines[1:]))


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _after_sentence(lines: Sequence[str]) -> list[str]:
    """What follows the first sentence of a paragraph, from the start of a line or in the middle of one."""
    for place, line in enumerate(lines):
        if end := re.search(r"(?<!\b[A-Z])[.!?](?:\s+(?=[A-Z])|\s*$)", line[:_MAX_LINE_CHARACTERS]):
            return [rest, *lines[place + 1 :]] if (rest := line[end.end() :]) else list(lines[place + 1 :])
    return []
