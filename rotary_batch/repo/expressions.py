"""Expressions and types of any language as one notation, which the graph evaluates: `a.b().c`.

A part ending in `()` is the result of a call, one ending in `{}` is a value of a type: `store.Cache{}.get()` is what
`get` of a `store.Cache` returns.  `@a` is what an import calls `a`, whatever else has that name.  `self` is the
instance around a place in every language, `super` that of its base.

PHP's `\\A\\B` is `\\.A.B`, from the top.  Its `A\\B` is `\\A.B`, where `A` is a namespace as the file calls it, or one
within its own.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from tree_sitter import Node

from rotary_batch.repo.comments import text_of

MAX_EXPRESSION = 200  # characters
_MAX_PARTS = 12
_OBJECT_FIELDS = (
    *("object", "operand", "argument", "value", "path", "scope", "expression", "receiver", "package"),
    *("target", "table", "qualifier"),
)
_NAME_FIELDS = ("attribute", "property", "field", "name", "method", "suffix")
_MEMBERS = {
    "attribute",
    "member_expression",
    "selector_expression",
    "field_expression",
    "scoped_identifier",
    "scoped_type_identifier",
    "qualified_identifier",
    "qualified_type",
    "field_access",
    "nested_identifier",
    "nested_type_identifier",
    "member_access_expression",
    "navigation_expression",
    "dot_index_expression",
    "method_index_expression",
    "scope_resolution",
    "qualified_name",
}
_NAMESPACED = {"qualified_name", "relative_name"}  # of PHP, where they have backslashes
_CALLS = {"call", "call_expression", "invocation_expression", "function_call", "function_call_expression"}
_METHOD_CALLS = {
    "method_invocation",
    "member_call_expression",
    "nullsafe_member_call_expression",
    "scoped_call_expression",
}
_MADE = {
    "new_expression",
    "object_creation_expression",
    "composite_literal",
    "struct_expression",
    "instance_expression",
}
_CASTS = {
    "type_assertion_expression",
    "cast_expression",
    "as_expression",
    "satisfies_expression",
    "type_cast_expression",
}
_TRANSPARENT = {
    "parenthesized_expression",
    "await",
    "await_expression",
    "non_null_expression",
    "reference_expression",
    "try_expression",
    "pointer_expression",
}
_GENERIC = {"expression_list", "generic_function", "template_function", "generic_type", "template_type"}
_NAMES = {
    "identifier",
    "type_identifier",
    "field_identifier",
    "property_identifier",
    "private_property_identifier",
    "package_identifier",
    "namespace_identifier",
    "constant",
    "name",
    "crate",
    "simple_identifier",
    "metavariable",
}
_SELF = {"self", "this", "this_expression", "self_expression"}
_SUPER = {"super", "base", "base_expression", "super_expression"}


def expression(node: Node | None) -> str | None:
    """The notation of an expression; None when it is anything but names, calls and new values."""
    parts: list[str] = []
    suffix = ""
    while node is not None and len(parts) < _MAX_PARTS:
        if _is_namespaced(node):
            return _joined([*parts, _namespaced(text_of(node)) + suffix])
        is_method_call = node.type in _METHOD_CALLS or (node.type == "call" and _has_field(node, "method"))
        if node.type in _MEMBERS or is_method_call:
            call = "()" if is_method_call else ""
            name, node = _member(node)
            parts.append(name + call + suffix)
            suffix = ""
            if node is None:  # Java's `name()`, C++'s `::name`
                return _joined(parts)
        elif node.type in _CALLS:
            node, suffix = node.child_by_field_name("function") or _first(node), "()" + suffix
        elif (inner := _transparent(node)) is not None:
            node = inner
        else:
            first = _start(node)
            return _joined([*parts, first + suffix]) if first else None
    return None


def _transparent(node: Node) -> Node | None:
    """What an expression is the same as, as far as types go: parentheses, `await`, `&`, type arguments."""
    if node.type in _TRANSPARENT:
        return _any_field(node, ("argument", "value", "expression")) or _first(node)
    if node.type == "unary_expression" and node.children[0].type in {"&", "*"}:
        return node.child_by_field_name("operand")
    return _any_field(node, ("function", "name", "type")) or _only(node) if node.type in _GENERIC else None


def _start(node: Node) -> str | None:
    """The first part of an expression: a name, or a value of a type that is named."""
    if node.type in _MADE:
        return type_of(_any_field(node, ("constructor", "type", "name")) or _first(node))
    if node.type in _CASTS:
        return type_of(node.child_by_field_name("type") or node.named_children[-1])
    return _root_name(node)


def _root_name(node: Node) -> str | None:
    if node.type in _SELF:
        return "self"
    if node.type == "variable_name" and node.text == b"$this":  # PHP's
        return "self"
    if node.type == "relative_scope":  # PHP's `self::`, `static::`, `parent::`
        return "super" if node.text == b"parent" else "self"
    if node.type in _SUPER:
        return "super"
    return text_of(node) if node.type in _NAMES and node.end_byte - node.start_byte <= MAX_EXPRESSION else None


def _is_namespaced(node: Node) -> bool:
    return node.type in _NAMESPACED and any(child.type == "\\" for child in node.children)


def _namespaced(name: str) -> str:
    """The notation of a name of PHP with a backslash in it, or of what is before its last one."""
    top = "\\." if name.startswith("\\") and name != "\\" else "\\"
    return top + name.removeprefix("\\").replace("\\", ".")


def _joined(parts: list[str]) -> str | None:
    text = ".".join(reversed(parts))
    if text.startswith("super()"):  # Python's
        text = "super" + text.removeprefix("super()")
    return text if len(text) <= MAX_EXPRESSION else None


def _member(node: Node) -> tuple[str, Node | None]:
    """The name behind a dot, an arrow or colons, and what is before it."""
    name = _any_field(node, _NAME_FIELDS) or node.named_children[-1]
    before = _any_field(node, _OBJECT_FIELDS)
    if before is None and node.named_children and node.named_children[0].start_byte != name.start_byte:
        before = node.named_children[0]
    if name.type == "navigation_suffix":
        name = _first(name) or name
    if name.type in {"template_function", "template_type", "generic_type"}:
        name = _any_field(name, ("name", "type")) or name
    return text_of(name)[:MAX_EXPRESSION], before


def receiver_of(name: Node, dotted: Collection[str]) -> tuple[bool, str | None]:
    """Whether a name is behind a dot, an arrow or colons; and the expression before it.

    `dotted` has the nodes of a name behind a dot in its language.
    """
    around = name.parent
    while around is not None and around.type in {"template_function", "generic_function", "navigation_suffix"}:
        around = around.parent
    if around is None or not (around.type in dotted or around.type in _METHOD_CALLS):
        return False, None
    if _is_namespaced(around):
        before_name = (around.text or b"")[: name.start_byte - around.start_byte].decode("utf-8", "replace")
        return True, _namespaced(before_name.removesuffix("\\") or "\\")
    before = _any_field(around, _OBJECT_FIELDS) or _first(around)
    if before is None or before.start_byte >= name.start_byte:
        return False, None
    value = expression(before)
    # C++ nests `a::b::c` to the right.  To find a parent takes as long as the tree is deep.
    outer = around.parent if around.type == "qualified_identifier" else None
    while value is not None and outer is not None and around.type == outer.type == "qualified_identifier":
        above = outer.child_by_field_name("scope")
        if above is not None:
            value = f"{text_of(above)[:MAX_EXPRESSION]}.{value}"
        around, outer = outer, outer.parent
        if len(value) > MAX_EXPRESSION:
            return True, None
    return True, value


def _any_field(node: Node, fields: tuple[str, ...]) -> Node | None:
    for field in fields:
        if (child := node.child_by_field_name(field)) is not None:
            return child
    return None


def _has_field(node: Node, field: str) -> bool:
    return node.child_by_field_name(field) is not None


def _first(node: Node) -> Node | None:
    return next((child for child in node.named_children if "comment" not in child.type), None)


def _only(node: Node) -> Node | None:
    return node.named_children[0] if node.named_child_count == 1 else None


_WORDS = re.compile(
    r"\b(const|volatile|mut|dyn|impl|struct|union|enum|class|final|readonly|typename|static|inline|extern|register"
    r"|virtual|public|private|protected|abstract|in|out|ref|params)\s+|'[a-z_]\w*\s+|@\w+\s+"
)
_NOTHING = re.compile(r"\s*\|\s*(None|null|undefined)\b|\b(None|null|undefined)\s*\|\s*")
_WRAPPER = re.compile(
    r"(?:typing\.|t\.|std::|std\.)?(?:Optional|Annotated|ClassVar|Final|Awaitable|Promise|Readonly|Required|Box|Rc|Arc"
    r"|unique_ptr|shared_ptr)\s*[\[<](.*)[\]>]\s*&?",
    re.DOTALL,
)
_NAMESPACED_TYPE = re.compile(r"(?=[^\\]*\\)\\?[^\W\d]\w*(?:\\[^\W\d]\w*)*")  # of PHP
_TYPE = re.compile(r"([^\W\d]\w*(?:(?:\.|::)[^\W\d]\w*)*)\s*([\[<].*)?[\s*&?!.]*", re.DOTALL)
# fmt: off
_PRIMITIVES = frozenset({
    "int", "str", "float", "bool", "bytes", "object", "None", "Any", "void", "char", "short", "long", "double",
    "unsigned", "signed", "size_t", "ssize_t", "string", "Int", "Double", "Bool", "Unit", "number",
    "boolean", "any", "unknown", "never", "undefined",
    "null", "symbol", "bigint", "error", "byte", "rune", "uint", "uintptr", "int8", "int16", "int32", "int64", "uint8",
    "uint16", "uint32", "uint64", "float32", "float64", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32",
    "i64", "i128", "isize", "f32", "f64", "int8_t", "int16_t", "int32_t", "int64_t", "uint8_t", "uint16_t", "uint32_t",
    "uint64_t", "String", "Integer", "Boolean", "Object", "Long", "list", "dict", "set", "tuple", "frozenset",
    "type", "List", "Dict", "Set", "Tuple", "Callable", "Iterable", "Iterator", "Sequence", "Mapping", "Vec", "auto",
    "var", "let", "decltype", "func", "map", "chan", "interface", "struct", "complex64", "complex128",
})
# fmt: on


def type_of(node: Node | None) -> str | None:
    """The notation of a value of the type that a node names; of a list, as Go's results, the first one counts."""
    if node is not None and node.type == "parameter_list":
        first = _first(node)
        node = first and first.child_by_field_name("type")
    # a type may be a whole struct: text beyond any name is not even copied
    if node is None or node.end_byte - node.start_byte > 4 * MAX_EXPRESSION:
        return None
    return type_expression(text_of(node))


def type_expression(text: str) -> str | None:
    """The notation of a value of a declared type; None for primitives, containers, unions, functions."""
    text = text.strip().lstrip(":->").strip().strip("\"'`").strip()
    text = _NOTHING.sub("", text)
    for _ in range(4):
        text = _WORDS.sub("", text).lstrip("*&? \t\n")
        wrapped = _WRAPPER.fullmatch(text)
        if wrapped is None:
            break
        text = _first_argument(wrapped[1])
    if _NAMESPACED_TYPE.fullmatch(text) and len(text) < MAX_EXPRESSION - 4:
        return _namespaced(text) + "{}"
    found = _TYPE.fullmatch(text)
    if found is None or len(found[1]) > MAX_EXPRESSION - 2:
        return None
    arguments = found[2] or ""
    if re.match(r"\[\s*\d*\s*\]", arguments) or re.search(r"\]\s*\[|\)|[>\]]\s*\[\s*\d*\s*\]$|=>", arguments):
        return None  # an array, or a function
    name = found[1].replace("::", ".")
    return None if name in _PRIMITIVES or name.startswith("std.") else name + "{}"


def _first_argument(text: str) -> str:
    """The first of some type arguments."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter in "[<(") - (letter in "]>)")
        if letter == "," and depth == 0:
            return text[:place]
    return text
