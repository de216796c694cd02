"""Symbols and references of one source file, from a tree-sitter query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from typing import NamedTuple

from tree_sitter import Node, Parser, Point, Query, QueryCursor, Range, Tree

from rotary_batch.core import Import, Reference, Symbol, ValueType
from rotary_batch.repo.comments import last_row, text_of
from rotary_batch.repo.languages import LANGUAGES, Definition, Language, grammar, query
from rotary_batch.repo.scopes import Uses, result_type
from rotary_batch.repo.section_titles import titles_above
from rotary_batch.repo.signatures import signature_from, signature_of

_MAX_NAME = 200  # characters; nobody reads or calls longer names
_MAX_DECORATORS = 20  # of one definition
_MAX_UNPARSED_NESTING = 3  # of brackets that are parsed anew: all that is in them is parsed once for each
_MAX_NESTING = 50  # of symbols: a qualified name repeats all those around it
# Nodes around what is read.  A query checks each open pattern at every node, and the parent of a node is looked for
# from the top of the file, so 10,000 nested calls took 20 s.  The deepest of 1,500 files of 15 languages has 41.
_MAX_DEPTH = 1000
_CALLABLE_KINDS = {"function", "method", "constructor", "property"}
_CLASS_KINDS = {"class", "struct", "interface", "trait", "enum", "record", "union", "scope"}


class Extract(NamedTuple):
    """What one file holds."""

    docstring: str | None
    symbols: tuple[Symbol, ...]
    references: tuple[Reference, ...]
    imports: tuple[str, ...]  # names that import statements bind
    imported: tuple[Import, ...]
    value_types: tuple[ValueType, ...]


def parse(language: str, source: bytes) -> Tree:
    """The syntax tree; it has error nodes where the code is broken."""
    language, source = _code(language, source)
    rules = LANGUAGES[language]
    tree = Parser(grammar(language)).parse(rules.clean(source))
    spans = rules.misread_breaks(source) if tree.root_node.has_error else []
    if not spans:
        return tree
    joined = _with_lines_joined(language, source, spans)
    return joined if _unparsed_nbytes(language, joined) < _unparsed_nbytes(language, tree) else tree


def _with_lines_joined(language: str, source: bytes, spans: Sequence[tuple[int, int]]) -> Tree:
    """The tree of a source in which spans are spaces; every node keeps its line."""
    parser, row, begin, place = Parser(grammar(language)), 0, Point(0, 0), 0
    ranges: list[Range] = []
    pieces: list[bytes] = []
    for start, end in spans:
        row += source.count(b"\n", place, start)
        here = Point(row, end - source.rfind(b"\n", 0, start) - 1)
        row += source.count(b"\n", start, end)
        ranges.append(Range(begin, here, ranges[-1].end_byte if ranges else 0, end))
        begin = Point(row, end - source.rfind(b"\n", 0, end) - 1)
        pieces += [source[place:start], b" " * (end - start)]
        place = end
    parser.included_ranges = [*ranges, Range(begin, Point(2**32 - 1, 2**32 - 1), place, 2**32 - 1)]
    return parser.parse(b"".join([*pieces, source[place:]]))


def _unparsed_nbytes(language: str, tree: Tree) -> int:
    """The size of what the grammar could not make sense of; what is nested counts again."""
    errors = QueryCursor(Query(grammar(language), "(ERROR) @error")).captures(tree.root_node)
    return sum(node.end_byte - node.start_byte for node in errors.get("error", ()))


def _code(language: str, source: bytes) -> tuple[str, bytes]:
    """The language and the code of a file in which only a part is code; every byte stays at its place."""
    embedded = LANGUAGES[language].embedded
    return embedded(source) if embedded else (language, source)


def extract(language: str, source: bytes, path: str, tree: Tree) -> Extract:
    """Symbols in file order, and references with the symbol that they are in."""
    language, source = _code(language, source)
    rules = LANGUAGES[language]
    uses = Uses()
    definitions, imports = _matches(rules, _roots(rules, tree, source), uses)
    symbols: list[Symbol] = []
    exports: list[Definition] = []
    results: list[ValueType] = []
    scopes: list[tuple[int, str, str]] = []  # (end, qualified name, kind) of what is open
    for item in definitions:
        while scopes and scopes[-1][0] <= item.node.start_byte:
            scopes.pop()
        if len(item.name) > _MAX_NAME or len(scopes) >= _MAX_NESTING:
            continue
        around = _around(item, scopes)
        outer = item.receiver or (around[-1][1] if around else "")
        qualified = f"{outer}.{item.name}" if outer else item.name
        if item.kind == "export":
            target = f"{outer}.{item.target}" if outer and item.target else item.target
            exports.append(item._replace(name=qualified, target=target))
            continue
        if item.kind != "scope":
            inside = bool(item.receiver) or bool(scopes and scopes[-1][2] in _CLASS_KINDS)
            kind = "method" if item.kind == "function" and inside else item.kind
            is_local = any(scope[2] in _CALLABLE_KINDS for scope in around)
            symbols.append(_symbol(item._replace(kind=kind), qualified, rules, source, path, is_local=is_local))
            results += result_type(item.node, qualified, rules, path)
        scopes.append((item.node.end_byte, qualified, item.kind))
    symbols = sorted(rules.complete(symbols, exports), key=attrgetter("start_byte"))
    if not rules.is_data and (titles := titles_above(source)):
        symbols = [_without(titles.get(symbol.start_line - 1), symbol) for symbol in symbols]
    scoped = uses.read(tree.root_node, rules, symbols, path)
    return Extract(
        docstring=rules.file_docstring(tree.root_node),
        symbols=tuple(symbols),
        references=scoped.references,
        imports=imports,
        imported=scoped.imports,
        value_types=(*results, *scoped.value_types),
    )


def _without(title: str | None, symbol: Symbol) -> Symbol:
    """A symbol without the title of its section, which is not about it."""
    return replace(symbol, docstring=None) if title and symbol.docstring == title else symbol


def _around(item: Definition, scopes: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """What an item is a part of: a field that a constructor declares is one of the class."""
    if item.kind != "field":
        return scopes
    last = next((place for place in range(len(scopes), 0, -1) if scopes[place - 1][2] not in _CALLABLE_KINDS), 0)
    return scopes[:last]


def _roots(rules: Language, tree: Tree, source: bytes) -> list[Node]:
    """The root of the tree, and of what parses in brackets that the grammar did not look into."""
    roots = last = [tree.root_node]
    parser = Parser(grammar(rules.name))
    for _ in range(_MAX_UNPARSED_NESTING):
        parsed = []
        for node in (inner for root in last for inner in rules.unparsed(root)):
            start, end = node.start_point, node.end_point
            points = Point(start.row, start.column + 1), Point(end.row, end.column - 1)
            parser.included_ranges = [Range(*points, node.start_byte + 1, node.end_byte - 1)]
            root = parser.parse(source).root_node
            parsed += [] if root.has_error else [root]
        last = parsed
        roots = [*roots, *parsed]
    return roots


def _matches(rules: Language, roots: Sequence[Node], uses: Uses) -> tuple[list[Definition], tuple[str, ...]]:
    definitions: dict[tuple[int, str, bool], Definition] = {}
    imports: list[str] = []
    cursor = QueryCursor(query(rules.name))
    cursor.set_max_start_depth(_MAX_DEPTH)
    for captures in (one for root in roots for _, one in cursor.matches(root)):
        if "import" in captures:
            imports += [text_of(node) for node in captures["import"]]
        elif not uses.take(captures):
            for item in rules.refine(_definition(captures, rules)):
                key = (item.outer.start_byte, item.name, item.kind == "export")
                # A typedef of a named struct is both; the struct says more.
                if key not in definitions or definitions[key].kind in {"type", "declaration"}:
                    definitions[key] = item
    in_order = sorted(definitions.values(), key=lambda item: (item.node.start_byte, -item.node.end_byte))
    return in_order, tuple(dict.fromkeys(imports))


def _definition(captures: dict[str, list[Node]], rules: Language) -> Definition:
    label = next(name for name in captures if name.startswith(("definition.", "scope")))
    node = outer = captures[label][0]
    around = outer.parent if rules.wrappers else None  # deep down a parent is looked for from the top of the file
    while around is not None and around.type in rules.wrappers and around.named_child_count <= 2:
        outer, around = around, around.parent
    name = text_of(captures["name"][0]) if "name" in captures else ""
    return Definition(
        outer=outer,
        node=node,
        kind=label.removeprefix("definition."),
        name="".join(name.split()).strip("'\"").replace("::", "."),
        receiver=text_of(captures["receiver"][0]) if "receiver" in captures else None,
        bases=tuple(" ".join(text_of(base).split())[:_MAX_NAME] for base in captures.get("base", ())),
    )


def _symbol(item: Definition, qualified: str, rules: Language, source: bytes, path: str, *, is_local: bool) -> Symbol:
    shown, end = item.span or (item.node, None)
    last = item.last or item.outer
    is_header = path.lower().endswith(rules.headers)
    if item.parts:
        item = item._replace(signature=signature_from(item.parts, source))
    decorators, signature = _decorators(item, rules), item.signature or signature_of(shown, end, source)
    for decorator in decorators:  # where they are modifiers, the signature begins with them
        signature = signature.removeprefix(decorator).lstrip()
    return Symbol(
        path=path,
        kind=item.kind,
        name=item.name if rules.is_data else _last_name(item.name),
        qualified_name=qualified,
        start_line=item.outer.start_point.row + 1,
        end_line=max(item.outer.start_point.row, last_row(last)) + 1,
        start_byte=item.outer.start_byte,
        end_byte=last.end_byte,
        signature=signature,
        docstring=rules.docstring(item),
        bases=item.bases,
        decorators=decorators,
        is_public=not is_local and rules.is_public(item) and (is_header or not item.is_local),
    )


def _last_name(name: str) -> str:
    """The part of a name behind its last dot; `[Symbol.iterator]` is one part."""
    bracket = name.rfind("[") if name.endswith("]") else -1
    is_computed = bracket == 0 or (bracket > 0 and name[bracket - 1] == ".")
    return name[bracket:] if is_computed else name.rsplit(".", 1)[-1]


def _decorators(item: Definition, rules: Language) -> tuple[str, ...]:
    """The decorators or annotations of a definition, each on one line."""
    if item.decorators is not None or not rules.decorators:
        return tuple(" ".join(text_of(node).split())[:_MAX_NAME] for node in (item.decorators or ())[:_MAX_DECORATORS])
    around = [item.outer, item.node] if item.outer.id != item.node.id else [item.node]
    modifiers = [child for node in around for child in node.named_children if child.type == "modifiers"]
    nodes = [child for node in (*around, *modifiers) for child in node.named_children if child.type in rules.decorators]
    before = item.outer.prev_named_sibling
    while before is not None and before.type in rules.decorators and len(nodes) < _MAX_DECORATORS:
        nodes.insert(0, before)
        before = before.prev_named_sibling
    return tuple(" ".join(text_of(node).split())[:_MAX_NAME] for node in nodes[:_MAX_DECORATORS])
