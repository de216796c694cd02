"""What the statements of a Python module or class assign: constants, variables, fields, type aliases."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.language import MAX_SHARING, Definition

_BRANCHES = {"if_statement", "try_statement", "with_statement"}
_CLAUSES = {"elif_clause", "else_clause", "except_clause", "except_group_clause", "finally_clause", "block"}
_IS_SCRIPT = re.compile(r"\(?\s*(?:__name__\s*==\s*(['\"])__main__\1|(['\"])__main__\2\s*==\s*__name__)\s*\)?")
_CONSTANT = re.compile(r"_*[A-Z][A-Z0-9_]*")
_TYPE_MAKERS = {"TypeVar", "ParamSpec", "TypeVarTuple", "NewType", "NamedTuple", "namedtuple", "TypedDict"}
_ENUMS = re.compile(r"\b(Enum|IntEnum|StrEnum|Flag|IntFlag|ReprEnum|EnumType|EnumMeta)\b")
MAX_BRANCHES = 20  # nested in one another


def definitions(body: Node) -> Iterable[Definition]:
    """What the statements of a module or class assign, each name once: not what they define or import as well."""
    is_enum = body.type == "block" and _is_enum(body.parent)
    assigned: dict[str, Definition] = {}
    defined: set[str] = set()
    for statement in _statements(body):
        if statement.type in {"import_statement", "import_from_statement"}:
            defined |= {text_of(name).rpartition(".")[2] for name in _imported(statement)}
        elif statement.type in {"function_definition", "class_definition"}:
            defined |= {text_of(name) for name in statement.children_by_field_name("name")}
        elif statement.type == "type_alias_statement":
            if (alias := _type_alias(statement)).name not in assigned:
                assigned[alias.name] = alias
        elif statement.type == "expression_statement":
            for one in _assigned(statement, is_in_class=body.type == "block", is_enum=is_enum):
                assigned.setdefault(one.name, one)
    return [one for name, one in assigned.items() if name not in defined and name != "__all__"]


def exports(root: Node) -> list[Definition]:
    """The names in `__all__`, itself included, where a module has one that is a list of strings; `+=` counts too."""
    names: dict[str, Definition] = {}
    for statement in _statements(root):
        inner = statement.named_children[0] if statement.named_child_count else statement
        if inner.type not in {"assignment", "augmented_assignment"} or _field_text(inner, "left") != "__all__":
            continue
        try:
            value = ast.literal_eval(_field_text(inner, "right"))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []  # it is computed
        if not isinstance(value, list | tuple):
            return []
        texts = ["__all__", *(name for name in value if isinstance(name, str))]
        names |= {name: Definition(statement, statement, "export", name) for name in texts}
    return list(names.values())


def _statements(body: Node) -> Iterator[Node]:
    """The statements of a module or class, with those of its branches; definitions without their decorators.

    What is done only where a module runs as a script is no part of what others import.
    """
    waiting = [(child, 0) for child in reversed(body.named_children)]
    while waiting:
        node, depth = waiting.pop()
        if node.type == "if_statement" and _IS_SCRIPT.fullmatch(_field_text(node, "condition")):
            waiting += [(child, depth + 1) for child in reversed(node.children_by_field_name("alternative"))]
        elif node.type in _BRANCHES or node.type in _CLAUSES:
            inner = node.named_children if depth < MAX_BRANCHES else []
            waiting += [(child, depth + 1) for child in reversed(inner)]
        elif node.type == "decorated_definition":
            yield from node.children_by_field_name("definition")
        else:
            yield node


def _imported(statement: Node) -> Iterator[Node]:
    for name in statement.children_by_field_name("name"):
        yield name.child_by_field_name("alias") or name


def _type_alias(statement: Node) -> Definition:
    """`type Name[T] = value`."""
    head, value = statement.named_children[0], statement.named_children[-1]
    name = text_of(head).partition("[")[0].strip()
    return Definition(statement, statement, "type", name, parts=("type", head, "=", value))


def _assigned(statement: Node, *, is_in_class: bool, is_enum: bool) -> Iterator[Definition]:
    """The names that one statement assigns, as in `a = b = 1` or `a, b = 1, 2`."""
    node: Node | None = statement.named_children[0] if statement.named_child_count == 1 else None
    names: list[tuple[Node, bool]] = []  # and whether it gets the whole value
    annotation = value = None
    while node is not None and node.type == "assignment" and len(names) < MAX_SHARING:
        left, value = node.child_by_field_name("left"), node.child_by_field_name("right")
        annotation = annotation or node.child_by_field_name("type")
        if left is not None and left.type == "identifier":
            names.append((left, True))
        elif left is not None and left.type in {"pattern_list", "tuple_pattern", "list_pattern"}:
            names += [(child, False) for child in left.named_children if child.type == "identifier"]
        node = value
    for name, is_whole in names:
        outer = statement if len(names) == 1 else name
        text, shown = text_of(name), value if is_whole else None
        kind = "member" if is_enum and annotation is None else _kind(text, annotation, shown)
        kind = "field" if is_in_class and kind == "variable" else kind
        shown = shown if len(names) < MAX_SHARING else None
        head = (text,) if annotation is None else (f"{text}:", annotation)
        yield Definition(outer, name, kind, text, parts=(*head, "=", shown) if shown is not None else head)


def _kind(name: str, annotation: Node | None, value: Node | None) -> str:
    annotated = text_of(annotation) if annotation is not None else ""
    called = _field_text(value, "function").rpartition(".")[2] if value is not None and value.type == "call" else ""
    if annotated.endswith("TypeAlias") or called in _TYPE_MAKERS:
        return "type"
    if called == "property":
        return "property"
    if annotated.partition("[")[0].endswith("Final") or _CONSTANT.fullmatch(name):
        return "constant"
    is_type = value is not None and value.type in {"subscript", "binary_operator"} and not annotated
    return "type" if is_type and name.lstrip("_")[:1].isupper() else "variable"


def _is_enum(node: Node | None) -> bool:
    superclasses = node.child_by_field_name("superclasses") if node is not None else None
    return superclasses is not None and bool(_ENUMS.search(text_of(superclasses)[:2000]))


def _field_text(node: Node, field: str) -> str:
    child = node.child_by_field_name(field)
    return text_of(child) if child is not None else ""
