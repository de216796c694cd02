"""Macros and attributes among the words of a declaration: a copy of the source without them, byte for byte in place.

A grammar takes `MY_API int f(void)` for a declaration of `int`.  Which words are macros, no header says here; names in
capitals, and what the place allows, do.  Only declarations are read; bodies of functions are skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from typing import NamedTuple, TypeAlias

from rotary_batch.repo.languages.c_conditionals import COMMENT, DIRECTIVE, STRING, Span, blanked

_TOKEN = re.compile(
    rb"(?P<directive>" + DIRECTIVE + rb")|(?P<comment>" + COMMENT + rb")|(?P<string>" + STRING + rb")"
    rb"|(?P<word>[A-Za-z_~][\w$]*+(?:[ \t]*+::[ \t]*+~?[A-Za-z_]\w*+)*+)|(?P<sign>::|->|&&|[^\s\w]|\w++)",
    re.MULTILINE | re.DOTALL,
)
_BRACKET = re.compile(
    rb"(?P<directive>"
    + DIRECTIVE
    + rb")|(?P<other>"
    + COMMENT
    + rb"|"
    + STRING
    + rb")|(?P<open>[{(\[])|(?P<close>[})\]])",
    re.MULTILINE | re.DOTALL,
)
_CAPITALS = re.compile(rb"_*[A-Z][A-Z0-9_]*[A-Z0-9_]")
_CALLING = re.compile(rb"API(?:ENTRY|CALL)?|EXPORTS?|IMPORT|INLINE|CALL(?:BACK)?|PUBLIC|EXTERN|DECL|NORETURN|FUNC")
_ATTRIBUTE = re.compile(
    rb"__attribute(?:__)?|__declspec|__extension__|_?_?asm_?_?|__(?:inline|forceinline|cdecl|stdcall|fastcall|thiscall)"
    rb"|__inline__|_Noreturn|_Alignas|alignas|__nonnull|__wur"
)
_TYPE_ARGUMENT = re.compile(
    rb"\(\s*(?:(?:const|unsigned|signed|long|short|struct|enum|union)\s+)*+[A-Za-z_]\w*(?:::\w+)*[\s*&]*\)"
)
_DECLARATOR = re.compile(rb"\(\s*(?:[A-Z]+\s*)?(?:\*|\w*[a-z]\w*\s*\))")
_CALLING_CONVENTION = re.compile(rb"\(\s*([A-Z_][A-Z0-9_]+|__\w+)\s*\*\s*(?:const\s+)?\w*(?:\[\w*\])?\s*\)\s*\(")
_CUDA = re.compile(rb"\b__(global|device|host|shared|constant|managed)__\b")  # written as attributes of equal length
_LAUNCH = re.compile(rb"<<<[^;{}<>]{1,500}>>>")
_CLASS_KEYS = {b"class", b"struct", b"union", b"enum"}
_ACCESS = {b"public", b"private", b"protected", b"signals", b"slots"}
_PRIMITIVES = {
    *(b"int", b"char", b"void", b"unsigned", b"signed", b"long", b"short", b"float", b"double", b"bool", b"_Bool"),
    *(b"auto", b"size_t"),
}
_QUALIFIERS = {
    *(b"static", b"extern", b"inline", b"const", b"volatile", b"typedef", b"virtual", b"explicit", b"constexpr"),
    *(b"friend", b"register", b"mutable", b"thread_local", b"_Thread_local", b"typename", b"consteval", b"constinit"),
}
_POINTERS = {b"*", b"&", b"&&"}
_ENDS = {b";", b"{", b"}", b""}  # of declarations; empty = a directive
_NO_NAME = {b"}", b"", b":"}  # ends behind which nothing was declared
_AFTER_PARAMETERS = {b"const", b"volatile", b"noexcept", b"override", b"final", b"throw", b"try", b"requires"}


class _Token(NamedTuple):
    kind: str  # word, group (from bracket to bracket), angles, string, sign
    text: bytes  # of a group, its first bracket
    start: int
    end: int


_Unit: TypeAlias = list[_Token]  # a word, with its arguments


def without_macros(source: bytes, *, is_cpp: bool) -> bytes:
    """The source with blanks for attributes and for macros that no grammar knows."""
    if is_cpp and b"<<<" in source:
        source = blanked(source, [match.span() for match in _LAUNCH.finditer(source)])
    if is_cpp and b"__" in source:
        source = _CUDA.sub(rb"[[\1]]", source)
    reader = _Reader(source)
    spans = [span for statement, name in reader.statements() for span in _Statement(source, statement, name).macros()]
    return blanked(source, spans + reader.extra)


class _Reader:
    """Cuts a source into declarations."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        self._is_balanced = True
        self.extra: list[Span] = []  # braces that are never closed, and directives within values

    def statements(self) -> Iterator[tuple[list[_Token], bytes]]:
        """The declarations, each up to its `;`, `{` or what else ends it, which is its last token; and its class.

        Behind the body of a class comes a token of kind "body"; its text is "named" if a name has to follow.
        """
        statement: list[_Token] = []
        opened: list[tuple[bytes, list[_Token]]] = [(b"", [])]  # each class, and how what follows its body begins
        place = 0
        while token := _TOKEN.search(self._source, place):
            kind, text, place = token.lastgroup or "", token[0], token.end()
            if kind == "comment":
                continue
            if kind == "sign" and text in {b"(", b"["}:
                kind, place = "group", self._group_end(token.start())
                if calling := _CALLING_CONVENTION.match(self._source, token.start()):
                    self.extra.append(calling.span(1))
            elif kind == "directive":
                kind, text = "sign", b""
            statement.append(_Token(kind, text, token.start(), place))
            if kind != "sign" or not (text in _ENDS or (text == b":" and _is_access(statement))):
                continue
            yield statement, opened[-1][0]
            after: list[_Token] = []
            if text == b"{" and _holds_declarations(statement):
                opened.append((_name_of_class(statement), _after_body(statement)))
            elif text == b"{":
                is_value = any(token.text == b"=" for token in _outside_angles(statement))
                place = self._body_end(token.start(), is_value=is_value)
            elif text == b"}" and len(opened) > 1:
                after = opened.pop()[1]
            statement = after

    def _group_end(self, start: int) -> int:
        """The place behind the bracket that closes the one at `start`."""
        depth = 0
        for token in _BRACKET.finditer(self._source, start) if self._is_balanced else ():
            if token.lastgroup == "directive":
                self.extra.append(token.span())
            elif token.lastgroup != "other":
                depth += 1 if token.lastgroup == "open" else -1
                if depth <= 0:
                    return token.end()
        self._is_balanced = False  # what follows is not searched again and again
        return start + 1

    def _body_end(self, start: int, *, is_value: bool) -> int:
        """The place behind the brace that closes the one at `start`; without one, behind the next at a line's start."""
        open_braces: list[int] = []
        at_margin: tuple[int, list[int]] | None = None
        for token in _BRACKET.finditer(self._source, start):
            if is_value and token.lastgroup == "directive":
                self.extra.append(token.span())
            elif token[0] == b"{":
                open_braces.append(token.start())
            elif token[0] == b"}":
                if at_margin is None and self._source[token.start() - 1 : token.start()] == b"\n":
                    at_margin = token.end(), open_braces[1:]
                    if not self._is_balanced:
                        break
                open_braces.pop()
                if not open_braces:
                    return token.end()
        self._is_balanced = False
        end, extra = at_margin or (len(self._source), [])
        self.extra += [(place, place + 1) for place in extra]
        return end


def _is_access(statement: list[_Token]) -> bool:
    return len(statement) > 1 and statement[-2].text in _ACCESS


def _holds_declarations(statement: list[_Token]) -> bool:
    """Whether the brace at the end of a statement opens a class, a namespace or the like."""
    words = {token.text for token in statement if token.kind == "word"}
    if b"namespace" in words or [token.kind for token in statement[-3:-1]] == ["word", "string"]:
        return True
    statement = _outside_angles(statement)
    if b"enum" in words or not words & _CLASS_KEYS or any(token.text == b"=" for token in statement):
        return False
    colon = next((place for place, token in enumerate(statement) if token.text == b":"), len(statement))
    pairs = list(pairwise(statement[:colon]))
    if any(one.text == other.text == b"(" for one, other in pairs):  # `struct a *(*f(void))(int) {`
        return False
    return all(_is_macro(one.text) for one, other in pairs if one.kind == "word" and other.text == b"(")


def _name_of_class(statement: list[_Token]) -> bytes:
    """The last word before the bases."""
    words = takewhile(lambda token: token.text not in {b":", b"final"}, _outside_angles(statement))
    return next((token.text for token in reversed(list(words)) if token.kind == "word"), b"")


def _after_body(statement: list[_Token]) -> list[_Token]:
    words = [token.text for token in statement if token.kind == "word"]
    needs_name = b"typedef" in words or (words[-1:] == [statement[-2].text] and words[-1] in _CLASS_KEYS)
    body = _Token("body", b"named" if needs_name else b"", statement[-1].end, statement[-1].end)
    return [body] if _CLASS_KEYS.intersection(words) else []


def _is_macro(word: bytes) -> bool:
    return _CAPITALS.fullmatch(word) is not None or _ATTRIBUTE.fullmatch(word) is not None


def _outside_angles(statement: list[_Token]) -> list[_Token]:
    """The tokens that are in no template's brackets."""
    outside: list[_Token] = []
    depth = 0
    for token in statement:
        if token.text == b"<" and (depth or (outside and outside[-1].kind == "word")):
            depth += 1
        elif token.text == b">" and depth:
            depth -= 1
        elif not depth:
            outside.append(token)
    return outside


def _constraints(statement: list[_Token]) -> list[Span]:
    """Macros in place of a template's parameter, such as `template <class T, ENABLE_IF(is_small<T>::value)>`."""
    if not any(token.text == b"template" for token in statement[:2]):
        return []
    threes = zip(statement, statement[1:], statement[2:], strict=False)
    return [
        (comma.start, group.end)
        for comma, word, group in threes
        if comma.text == b"," and word.kind == "word" and group.text == b"(" and _CAPITALS.fullmatch(word.text)
    ]


def _is_instantiation(statement: list[_Token]) -> bool:
    """`template class Shelf<int>;` or `extern template int f<char>(char);`."""
    words = [token.text for token in statement[:3]]
    return words[words[0] == b"extern" :][:1] == [b"template"] and words[1 + (words[0] == b"extern") :][:1] != [b"<"]


class _Statement:
    """One declaration: which of its tokens are macros."""

    def __init__(self, source: bytes, statement: list[_Token], class_name: bytes) -> None:
        self._class_name = class_name  # around it
        self._source = source
        self._end = statement[-1].text
        self._holds_declarations = self._end == b"{" and _holds_declarations(statement)
        self._span = statement[0].start, statement[-1].end
        self._is_instantiation = self._end == b";" and _is_instantiation(statement)
        self._spans: list[Span] = _constraints(statement)
        self._tokens: list[_Token] = []
        units = _units(_outside_angles(statement[:-1]))
        for unit in units:
            if _ATTRIBUTE.fullmatch(unit[0].text):
                self._blank(unit)
            else:
                self._tokens += unit

    def _blank(self, unit: Sequence[_Token]) -> None:
        self._spans.append((unit[0].start, unit[-1].end))

    def macros(self) -> list[Span]:
        """The spans of its macros, with their arguments; an explicit instantiation declares nothing new."""
        tokens = self._tokens
        if self._is_instantiation:
            return [self._span]
        keys = [place for place, token in enumerate(tokens) if token.text in _CLASS_KEYS]
        if tokens and tokens[0].kind == "body":
            self._after_body(needs_name=tokens[0].text == b"named")
        elif keys and (self._holds_declarations or self._is_enum(keys[0])):
            self._class_head(keys[0], keys[-1] + 1)
        else:
            self._declaration()
        return self._spans

    def _after_body(self, *, needs_name: bool) -> None:
        """What comes between the body of a class and its `;`: attributes and names."""
        words = list(takewhile(lambda unit: unit[0].kind == "word", _units(self._tokens[1:])))
        macros = [unit for unit in words if _is_macro(unit[0].text)]
        if needs_name and len(macros) == len(words):
            macros = macros[:-1]
        for unit in macros:
            self._blank(unit)

    def _is_enum(self, place: int) -> bool:
        """Whether the body of an enum follows, and not that of a function that returns one."""
        calls = [unit for unit in _units(self._tokens[place:]) if len(unit) == 2 and not _is_macro(unit[0].text)]
        return self._end == b"{" and self._tokens[place].text == b"enum" and not calls

    def _class_head(self, first: int, place: int) -> None:
        """Before `class` all words in capitals are macros; of those between it and the bases, the last is the name."""
        for unit in _units(self._tokens[:first]):
            if _is_macro(unit[0].text):
                self._blank(unit)
        head = takewhile(lambda unit: unit[0].kind == "word" and unit[0].text != b"final", _units(self._tokens[place:]))
        for unit in list(head)[:-1]:
            self._blank(unit)

    def _declaration(self) -> None:
        """Macros before the name, if there is a type too, and behind the parameters."""
        macros, types, place = self._before_name()
        if place + 1 < len(self._tokens) and self._tokens[place].kind == "word":
            has_name = len(types) > 1 and types[-1][0].text not in _PRIMITIVES
            self._behind_parameters(place, has_type=bool(types), has_name=has_name)
        elif place + 1 < len(self._tokens) and self._tokens[place + 1].text == b"(":
            self._behind(place + 2)  # of a pointer to a function
        elif macros and types and macros[-1][-1] is self._tokens[place - 1] and len(macros[-1]) == 1:
            macros.pop()  # the name
        elif len(types) + len(macros) > 1 and types[-1:] and types[-1][-1] is self._tokens[place - 1]:
            types = types if types[-1][-1].text in _PRIMITIVES else types[:-1]
        kept = [] if types or self._end in _NO_NAME or self._has_no_type(place) else _type_among(macros)
        for unit in macros:
            if len(unit) == 2 and unit in kept and _TYPE_ARGUMENT.fullmatch(self._source, unit[1].start, unit[1].end):
                # `API(int) f(void);`: its argument is the type
                self._spans += [(unit[0].start, unit[1].start + 1), (unit[1].end - 1, unit[1].end)]
            elif len(unit) == 2 or unit not in kept:
                self._blank(unit)

    def _has_no_type(self, place: int) -> bool:
        """Whether the name at a place is that of a constructor, a destructor or a conversion."""
        after = self._tokens[place : place + 2]
        if not after or after[0].kind != "word":
            return False
        if after[0].text == b"operator":
            return len(after) > 1 and after[1].kind == "word"
        *scopes, name = re.sub(rb"[ \t]", b"", after[0].text).split(b"::")
        return name.startswith(b"~") or name == (scopes[-1] if scopes else self._class_name)

    def _before_name(self) -> tuple[list[_Unit], list[_Unit], int]:
        """Words that may be macros, words that are not, and the place where they end."""
        tokens, place = self._tokens, 0
        macros: list[_Unit] = []
        types: list[_Unit] = []
        while place < len(tokens) and not self._ends_words(tokens[place]):
            token, unit = tokens[place], _unit(tokens, place)
            if token.text in _CLASS_KEYS:
                unit = tokens[place : place + 2]
                types.append(unit)
            elif token.kind != "word" or token.text in _QUALIFIERS:
                unit = [token]
            elif len(unit) == 1 or token.text in _PRIMITIVES or self._is_pointer_type(place):
                unit = [token]
                (macros if _is_macro(token.text) else types).append(unit)
            elif self._is_call(place, types):
                macros.append(unit)
            else:
                break
            place += len(unit)
        return macros, types, place

    def _ends_words(self, token: _Token) -> bool:
        if token.kind == "group":
            return not self._source.startswith(b"[[", token.start)
        return token.text == b"operator" or (token.kind == "sign" and token.text not in _POINTERS)

    def _is_pointer_type(self, place: int) -> bool:
        """Whether it is the type in `type (*name)(int)` or in `type (name)(int)`."""
        is_followed = place + 2 < len(self._tokens) and self._tokens[place + 2].text == b"("
        inner = self._tokens[place + 1]
        return is_followed and _DECLARATOR.match(self._source, inner.start, inner.end) is not None

    def _is_call(self, place: int, types: list[_Unit]) -> bool:
        """Whether a word and its brackets are a macro before or behind a name; else they declare a function."""
        name, arguments = self._tokens[place : place + 2]
        after = self._tokens[place + 2 : place + 5]
        while after and after[0].text in _POINTERS:
            after = after[1:]
        if not after or after[0].kind != "word" or after[0].text in _AFTER_PARAMETERS:
            has_name = len(types) > 1 and types[-1][0].text not in _PRIMITIVES
            is_list = self._source.startswith(b"((", arguments.start)  # `int f OF((int));`
            return _is_macro(name.text) and (self._end in _NO_NAME or (has_name and not is_list))
        if _is_macro(name.text):
            return not _is_macro(after[0].text) or len(after) > 1
        return not types and len(after) > 1 and after[1].text == b"("

    def _behind_parameters(self, name: int, *, has_type: bool, has_name: bool) -> None:
        parameters = self._tokens[name + 1]
        is_macro = has_name or (has_type and _is_macro(self._tokens[name].text))
        if is_macro and self._source.startswith(b"((", parameters.start):
            end = parameters.end  # `int f OF((int));`, `int f __P((int));`
            self._spans += [(self._tokens[name].start, parameters.start + 1), (end - 1, end)]
        self._behind(name + 2)

    def _behind(self, place: int) -> None:
        macros = []
        for unit in _units(self._tokens[place:]):
            text = unit[0].text
            if unit[0].kind == "word" and (_is_macro(text) or text.startswith(b"__")):
                macros.append(unit)
            elif unit[0].kind == "word" and text not in _AFTER_PARAMETERS:
                return  # the parameters of a function of before 1989
            elif unit[0].kind == "sign" and text not in _POINTERS:
                break
        for unit in macros:
            self._blank(unit)


def _unit(tokens: Sequence[_Token], place: int) -> _Unit:
    """A token, with its arguments if it has some."""
    has_arguments = tokens[place].kind == "word" and place + 1 < len(tokens) and tokens[place + 1].text == b"("
    return list(tokens[place : place + 2] if has_arguments else tokens[place : place + 1])


def _units(tokens: Sequence[_Token]) -> Iterator[_Unit]:
    place = 0
    while place < len(tokens):
        yield (unit := _unit(tokens, place))
        place += len(unit)


def _type_among(macros: list[_Unit]) -> list[_Unit]:
    """Of words in capitals alone, one is the type."""
    names = [unit for unit in macros if len(unit) == 1 and not _CALLING.search(unit[0].text)]
    return (names or macros)[-1:]
