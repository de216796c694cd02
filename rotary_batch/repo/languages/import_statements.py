"""Which names the import statements of each language bind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.language import Imported

_MAX_NAMES = 10_000  # of one statement
_VERSION = re.compile(r"/v\d+$|\.v\d+$")


def _field(node: Node, name: str) -> str:
    child = node.child_by_field_name(name)
    return text_of(child) if child is not None else ""


def python_imports(node: Node) -> Iterator[Imported]:
    """`import a.b as c`, `from ..a import b as c`."""
    module = _field(node, "module_name").replace(" ", "")
    for name in node.children_by_field_name("name"):
        written = _field(name, "name") if name.type == "aliased_import" else text_of(name)
        alias = _field(name, "alias")
        if node.type == "import_from_statement":
            yield Imported(module, written, alias or written)
        elif alias:
            yield Imported(written, None, alias)
        else:  # `import a.b` binds `a`; that its part `b` is loaded changes nothing for us
            yield Imported(written.partition(".")[0], None, written.partition(".")[0])
    if any(child.type == "wildcard_import" for child in node.children):
        yield Imported(module, "*", "")


def ecmascript_imports(node: Node) -> Iterator[Imported]:
    """`import`, `export ... from`, `export { a as b }`, `export default a`, `require`, `module.exports`."""
    if node.type == "variable_declarator":
        yield from _required(node)
        return
    if node.type == "assignment_expression":
        yield from _assigned_exports(node)
        return
    module = _field(node, "source").strip("\"'`")
    if node.type == "export_statement":
        yield from _exported(node, module)
        return
    for clause in node.named_children:
        if clause.type == "import_clause":
            yield from _import_clause(clause, module)
        elif clause.type == "import_require_clause":  # import a = require("b")
            yield Imported(_field(clause, "source").strip("\"'`"), None, text_of(clause.named_children[0]))


def _import_clause(clause: Node, module: str) -> Iterator[Imported]:
    for part in clause.named_children:
        if part.type == "identifier":
            yield Imported(module, "default", text_of(part))
        elif part.type == "namespace_import":
            yield Imported(module, None, text_of(part.named_children[-1]))
        else:
            yield from _specifiers(part, module)


def _specifiers(part: Node, module: str) -> Iterator[Imported]:
    for one in part.named_children[:_MAX_NAMES]:
        if one.type in {"import_specifier", "export_specifier"}:
            name = _field(one, "name").strip("\"'")
            alias = _field(one, "alias").strip("\"'") or name
            if module or alias != name:  # `export { a }` gives `a` no other meaning
                yield Imported(module, name, alias)


def _exported(node: Node, module: str) -> Iterator[Imported]:
    value = node.child_by_field_name("value") or node.child_by_field_name("declaration")
    if any(child.type == "default" for child in node.children) and value is not None:
        name = text_of(value) if value.type == "identifier" else _field(value, "name")
        if name:
            yield Imported("", name, "default")
        return
    parts = [child for child in node.named_children if child.type in {"export_clause", "namespace_export"}]
    for part in parts:
        if part.type == "namespace_export":
            yield Imported(module, None, text_of(part.named_children[-1]))
        else:
            yield from _specifiers(part, module)
    if module and not parts:
        yield Imported(module, "*", "")


def _required(node: Node) -> Iterator[Imported]:
    """`const a = require("b")`, `const { a, b: c } = require("d")`, `const a = require("b").c`."""
    value, pattern = node.child_by_field_name("value"), node.child_by_field_name("name")
    name = None
    if value is not None and value.type == "member_expression":
        name, value = _field(value, "property"), value.child_by_field_name("object")
    module = _required_module(value)
    if module is None or pattern is None:
        return
    if pattern.type == "identifier":
        yield Imported(module, name, text_of(pattern))
    elif pattern.type == "object_pattern" and name is None:
        for part in pattern.named_children[:_MAX_NAMES]:
            if part.type == "shorthand_property_identifier_pattern":
                yield Imported(module, text_of(part), text_of(part))
            elif part.type == "pair_pattern" and (inner := part.child_by_field_name("value")) is not None:
                yield Imported(module, _field(part, "key"), text_of(inner))


def _required_module(value: Node | None) -> str | None:
    if value is None or value.type != "call_expression" or _field(value, "function") != "require":
        return None
    arguments = value.child_by_field_name("arguments")
    strings = arguments.named_children if arguments is not None else []
    return text_of(strings[0]).strip("\"'`") if len(strings) == 1 and strings[0].type == "string" else None


def _assigned_exports(node: Node) -> Iterator[Imported]:
    """`module.exports = a`, `module.exports = { a, b: c }`, `exports.a = b`, `module.exports = require("a")`."""
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    if left is None or right is None or left.end_byte - left.start_byte > 200:
        return
    target = text_of(left).removeprefix("module.")
    if target == "exports":
        yield from _whole_exports(node, right)
    elif target.startswith("exports.") and target.count(".") == 1 and right.type == "identifier":
        yield Imported("", text_of(right), target.removeprefix("exports."))


def _whole_exports(node: Node, right: Node) -> Iterator[Imported]:
    """What `module.exports = ...` exports."""
    if (module := _required_module(right)) is not None:
        yield Imported(module, "*", "")
    elif right.type == "identifier":
        yield Imported("", text_of(right), "default")
    elif (name := _declared_around(node)) is not None:
        yield Imported("", name, "default")
    elif right.type == "object":
        for part in right.named_children[:_MAX_NAMES]:
            value = part.child_by_field_name("value") if part.type == "pair" else None
            if value is not None and value.type == "identifier" and text_of(value) != _field(part, "key"):
                yield Imported("", text_of(value), _field(part, "key"))


def _declared_around(node: Node) -> str | None:
    """`a` of `const a = exports = module.exports = ...`."""
    around = node.parent
    for _ in range(4):
        if around is None or around.type not in {"assignment_expression", "variable_declarator"}:
            return None
        if around.type == "variable_declarator":
            return _field(around, "name")
        around = around.parent
    return None


def go_imports(node: Node) -> Iterator[Imported]:
    """One `import_spec`, or the package clause."""
    if node.type == "package_clause":
        yield Imported(text_of(node.named_children[0]), None, "")
        return
    module, name = _field(node, "path").strip('"`'), _field(node, "name")
    if name == ".":
        yield Imported(module, "*", "")
    elif name != "_":
        yield Imported(module, None, name or _VERSION.sub("", module).rpartition("/")[2])


def rust_imports(node: Node) -> Iterator[Imported]:
    """`use a::{b, c as d, e::*}`, `mod a;`, `extern crate a`."""
    if node.type == "mod_item":
        if node.child_by_field_name("body") is None:
            yield Imported(f"self::{_field(node, 'name')}", None, _field(node, "name"))
        return
    argument = node.child_by_field_name("argument")
    waiting = [("", argument)] if argument is not None else []
    for _ in range(_MAX_NAMES):
        if not waiting:
            return
        prefix, part = waiting.pop()
        if part.type in {"scoped_use_list", "use_list"}:
            path, inside = _path(prefix, _field(part, "path")), part.child_by_field_name("list") or part
            waiting += [(path, child) for child in inside.named_children]
        elif "comment" not in part.type:
            yield _rust_use(prefix, part)


def _rust_use(prefix: str, part: Node) -> Imported:
    """One name, or all of a module."""
    if part.type == "use_wildcard":
        return Imported(_path(prefix, text_of(part).removesuffix("*").rstrip(":")), "*", "")
    if part.type == "use_as_clause":
        return _rust_name(_path(prefix, _field(part, "path")), _field(part, "alias"))
    whole = prefix if part.type == "self" else _path(prefix, text_of(part))
    return _rust_name(whole, whole.rpartition("::")[2])


def _path(prefix: str, rest: str) -> str:
    return "::".join(filter(None, [prefix, "".join(rest.split())]))[:1000]


def _rust_name(path: str, alias: str) -> Imported:
    module, _, name = path.rpartition("::")
    return Imported(module, name, alias) if module else Imported(path, None, alias)


def java_imports(node: Node) -> Iterator[Imported]:
    """`import a.B`, `import a.*`, `import static a.B.c`, and the package."""
    path = next(
        (text_of(child) for child in node.named_children if child.type in {"scoped_identifier", "identifier"}), ""
    )
    if node.type == "package_declaration":
        yield Imported(path, None, "")
    elif any(child.type == "asterisk" for child in node.children):
        yield Imported(path, "*", "")
    else:
        module, _, name = path.rpartition(".")
        yield Imported(module, name, name)


def jvm_imports(node: Node) -> Iterator[Imported]:
    """Kotlin's `import a.B as C` and `import a.*`, Scala's `import a.{B, C => D}` and `import a._`, and the package."""
    keyword, _, rest = (node.text or b"")[:2000].decode("utf-8", "replace").partition(" ")
    if keyword == "package":
        yield Imported(re.split(r"[\s;{]", rest.strip())[0], None, "")
        return
    module, _, names = rest.strip(" ;\n").rpartition(".") if "{" not in rest else rest.partition(".{")
    for written in names.strip("{} \n").split(","):
        name, alias, *_ = [*(word.strip() for word in re.split(r"=>|\bas\b", written)), ""]
        if name in {"*", "_"}:
            yield Imported(module, "*", "")
        elif name and alias != "_":
            yield Imported(module, name, alias or name)


def c_imports(node: Node) -> Iterable[Imported]:
    """`#include "a.h"`; `using namespace a` and `using a::b` of C++."""
    if node.type == "preproc_include":
        path = _field(node, "path")
        return [Imported(path, "*", "")] if path[:1] in {'"', "<"} else []
    words = [child for child in node.named_children if child.type in {"identifier", "qualified_identifier"}]
    if not words:
        return []
    name = text_of(words[0]).replace("::", ".")
    if any(child.type == "namespace" for child in node.children):
        return [Imported("", name, "*")]
    return [Imported("", name, name.rpartition(".")[2])] if "." in name else []
