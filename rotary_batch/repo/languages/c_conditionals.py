"""Conditionals of C's preprocessor: a copy of the source without them, whose bytes are where they were.

A grammar cannot parse `#ifdef` around half a statement.  So the lines of all conditionals become spaces.  Branches that
are whole statements all stay; of others one stays, chosen as if the first condition were true wherever it occurs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

COMMENT = rb"/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?|//(?:\\\r?\n|[^\n])*+"
STRING = rb'"(?:\\.|[^"\\\n])*+"?|(?<![0-9A-Fa-f])\'(?:\\.|[^\'\\\n])*+\'?'
DIRECTIVE = rb"^[ \t]*+\#(?:\\\r?\n|" + COMMENT + rb'|"(?:\\.|[^"\\\n])*+"|[^\n])*+'
# Tokens of code up to a bracket, a string or the line of a directive are read as one.
_TOKEN = re.compile(
    rb"(?P<directive>" + DIRECTIVE + rb")|(?P<skip>" + COMMENT + rb")|(?P<code>" + STRING + rb"|[{}()\[\]/\"'\#])"
    rb"|(?P<run>(?:[^\n/\"'\#{}()\[\]]++|\n(?![ \t]*+\#))++)",
    re.MULTILINE | re.DOTALL,
)
_FIRST = re.compile(rb"\s*+([;,]|[^\s;,]++)")
_BETWEEN = (b" ", b"\t", b"\n", b"\r", b"\f", b"\v", b";", b",")  # tokens of a run
_CONDITION = re.compile(rb"^[ \t]*+\#[ \t]*+if", re.MULTILINE)
_COMMENT = re.compile(COMMENT)
_BLOCK_COMMENT = re.compile(rb"/\*[^*]*+(?:\*(?!/)[^*]*+)*+\*/")
_NAME = re.compile(rb"[ \t]*\#[ \t]*(\w+)")
_REST = re.compile(rb"(?:\s++|" + COMMENT + rb")*+", re.DOTALL)
_DEPTH: dict[bytes, int] = {b"{": 1, b"(": 1, b"[": 1, b"}": -1, b")": -1, b"]": -1}
_ENDS = {b";", b"}", b"{", b":", b""}  # of statements
Span = tuple[int, int]
Condition = tuple[bytes, bool]


@dataclass(slots=True)
class _Branch:
    """What is between two directives of one conditional."""

    condition: Condition
    start: int
    last: bytes
    end: int = 0
    depth: int = 0  # of brackets, relative to the start
    lowest: int = 0
    first: bytes = b""  # token of code
    is_kept: bool = False
    _run: bytes = b""  # the last tokens, when they were read as one

    def add_run(self, run: bytes) -> None:
        """Count tokens without brackets."""
        if first := _FIRST.match(run):
            self.first = self.first or first[1]
            self._run = run

    def last_token(self) -> bytes:
        """Of its code; at first the one before the conditional."""
        if self._run:
            text = self._run.rstrip()
            self.last = text[-1:] if text.endswith((b";", b",")) else text[1 + max(map(text.rfind, _BETWEEN)) :]
            self._run = b""
        return self.last

    def add(self, token: bytes, depth: int, lowest: int) -> None:
        """Count code that follows."""
        self.last, self.first, self._run = token, self.first or token, b""
        self.lowest = min(self.lowest, self.depth + lowest)
        self.depth += depth

    @property
    def is_balanced(self) -> bool:
        return self.depth == 0 and self.lowest == 0


@dataclass(slots=True)
class _Conditional:
    before: bytes  # the token of code before it
    branches: list[_Branch]


class _Reader:
    """Reads the tokens of one source, and collects what is to be blank."""

    def __init__(self, *, is_cpp: bool) -> None:
        self.blank: list[Span] = []
        self._known = {b"0": False, b"1": True, b"__cplusplus": is_cpp}
        self._assumed: dict[bytes, bool] = {}
        self._around: list[_Conditional] = []
        self._top = self._branch = _Branch((b"", True), 0, b"")
        self._guard: bytes | None = b""  # the name that an include guard tests; empty = it may still come
        self._guard_span: Span | None = None  # of the definition of that name
        self._end = 0  # of the last conditional

    def read(self, token: re.Match[bytes]) -> None:
        """Take the next token, or several."""
        if token.lastgroup == "run":
            self._branch.add_run(token[0])
        elif token.lastgroup == "code":
            depth = _DEPTH.get(token[0], 0)
            self._branch.add(token[0], depth, min(depth, 0))
        elif token.lastgroup == "directive" and (found := _NAME.match(token[0])):
            rest = _COMMENT.sub(b"", token[0][found.end() :]).strip()
            if self._directive(found[1], rest, token):
                self.blank.append(token.span())
            elif b"\\" in token[0] and b"/*" in token[0]:  # to the grammar, a macro ends at a comment
                self.blank += _comment_lines(token)

    def _directive(self, name: bytes, rest: bytes, token: re.Match[bytes]) -> bool:
        """Whether it is part of a conditional."""
        if name in {b"if", b"ifdef", b"ifndef"}:
            self._open(_condition(name, rest), token.end())
        elif self._around and name in {b"else", b"elif", b"elifdef", b"elifndef"}:
            self._branch.end = token.start()
            condition = _condition(name, rest) if name != b"else" else (b"", True)
            self._branch = _Branch(condition, token.end(), self._around[-1].before)
            self._around[-1].branches.append(self._branch)
        elif self._around and name == b"endif":
            self._branch.end = token.start()
            self._close(self._around.pop())
            self._end = token.end()
        else:
            if self._guard and name == b"define" and rest.split() in ([self._guard], [self._guard, b"1"]):
                self._guard_span = token.span()
            self._guard = self._guard if name == b"pragma" and not self._guard else None
            return False
        return True

    def finish(self, source: bytes) -> None:
        """What looks like an include guard is one if nothing follows its `#endif`."""
        if self._guard_span is not None and not self._around and _REST.fullmatch(source, self._end):
            self.blank.append(self._guard_span)

    def _open(self, condition: Condition, start: int) -> None:
        is_first = self._guard == b"" and not self._top.first and not condition[1]
        self._guard = condition[0] if is_first else None
        before = self._branch.last_token()
        self._branch = _Branch(condition, start, before)
        self._around.append(_Conditional(before, [self._branch]))

    def _close(self, conditional: _Conditional) -> None:
        """Choose the branches that stay, and count their code in the branch around them."""
        for branch in self._kept(conditional):
            branch.is_kept = True
        self._branch = self._around[-1].branches[-1] if self._around else self._top
        for branch in conditional.branches:
            if not branch.is_kept:
                self.blank.append((branch.start, branch.end))
            elif branch.first:
                self._branch.add(branch.last_token(), branch.depth, branch.lowest)

    def _kept(self, conditional: _Conditional) -> list[_Branch]:
        possible = []
        for branch in conditional.branches:
            name, has_to_be = branch.condition
            truth = self._known.get(name)
            if truth is None or truth == has_to_be:
                possible.append(branch)
            if truth is not None and truth == has_to_be:
                break
        if len(possible) < 2 and all(branch.is_balanced for branch in possible):
            return possible
        if all(_is_whole(branch, conditional.before) for branch in possible):
            return possible
        name, has_to_be = possible[0].condition
        is_true = not name or name in self._known or self._assumed.setdefault(name, has_to_be) == has_to_be
        return possible[:1] if is_true else possible[1:2]


def without_conditionals(source: bytes, *, is_cpp: bool) -> bytes:
    """The source with blanks for the lines of conditionals, branches that are not used, and the include guard."""
    if b"\\" not in source and not _CONDITION.search(source):
        return source
    reader = _Reader(is_cpp=is_cpp)
    for token in _TOKEN.finditer(source):
        reader.read(token)
    reader.finish(source)
    return blanked(source, reader.blank)


def blanked(source: bytes, spans: list[Span]) -> bytes:
    """A copy in which spans are spaces, apart from their line breaks."""
    result, place = [], 0
    for start, end in sorted(spans):
        if end > place:
            begin = max(start, place)
            result += [source[place:begin], re.sub(rb"[^\r\n]", b" ", source[begin:end])]
            place = end
    return b"".join([*result, source[place:]])


def _comment_lines(directive: re.Match[bytes]) -> Iterator[Span]:
    """The comments of a directive, without the backslashes at the ends of their lines."""
    for comment in _BLOCK_COMMENT.finditer(directive[0]):
        for line in re.finditer(rb"(?:[^\\\n]|\\(?!\r?\n))++", comment[0]):
            start = directive.start() + comment.start()
            yield start + line.start(), start + line.end()


def _condition(name: bytes, rest: bytes) -> Condition:
    """What is tested, and what it has to be."""
    text = re.sub(rb"\s+", b"", rest)
    if defined := re.fullmatch(rb"(!?)defined\(?(\w+)\)?", text):
        return defined[2], not defined[1]
    if negated := re.fullmatch(rb"!(\w+)", text):
        return negated[1], False
    return text, name not in {b"ifndef", b"elifndef"}


def _is_whole(branch: _Branch, before: bytes) -> bool:
    """Whether a branch consists of whole statements, or of whole entries of a list."""
    if not branch.is_balanced:
        return False
    is_list = before in {b",", b"{", b"("} and branch.last_token() == b","
    # Behind a bracket a body may follow; else what was before is a macro that is a statement.
    starts = branch.first != b"{" if before == b")" else before[-1:] in _ENDS
    return not branch.first or is_list or (starts and branch.last_token()[-1:] in {b";", b"}", b":"})
