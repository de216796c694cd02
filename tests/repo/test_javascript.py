"""What JavaScript and TypeScript files define and export, in the ways that their users write it."""

from __future__ import annotations

from time import process_time

import pytest

from rotary_batch.core import Symbol
from rotary_batch.repo.languages.components import scripts
from rotary_batch.repo.symbols import extract, parse


def symbols(text: str, language: str = "javascript", path: str = "a.js") -> tuple[Symbol, ...]:
    source = text.encode()
    return extract(language, source, path, parse(language, source)).symbols


def outline(text: str, language: str = "javascript", path: str = "a.js") -> list[str]:
    """Kind and name of each symbol; `-` before what is private."""
    return [f"{'' if one.is_public else '-'}{one.kind} {one.qualified_name}" for one in symbols(text, language, path)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("exports.open = function () {}", ["function open"]),
        ("module.exports.open = () => {}", ["function open"]),
        ("exports['open'] = async () => {}", ["function open"]),
        ("exports.open = exports.start = function () {}", ["function open", "function start"]),
        ("exports.VERSION = '1.0'; exports.none = void 0", ["variable VERSION"]),
        ("module.exports = function () {}", ["function module.exports"]),
        ("module.exports = function open() {}", ["function open"]),
        ("module.exports = class Door { open() {} }", ["class Door", "method Door.open"]),
        ("exports = module.exports = open; function open() {} function shut() {}", ["function open", "-function shut"]),
        (
            "module.exports = { open() {}, shut: () => {}, SIZE: 1 }",
            ["function open", "function shut", "variable SIZE"],
        ),
        ("function open() {} module.exports = { open, begin: open }", ["function open", "function begin"]),
        ("const door = require('door'); exports.door = door", ["variable door"]),
        ("var door = exports = module.exports = {}; door.open = function () {}", ["variable door", "method door.open"]),
        ("class Door {} module.exports = Door; Door.WIDTH = 1", ["class Door", "field Door.WIDTH"]),
        ("class Door {} module.exports.Door = Door", ["class Door"]),
        ("Object.defineProperty(exports, 'x', { get: function () {} })", ["property x"]),
        ("Object.defineProperty(exports, '__esModule', { value: true })", []),
        ("Object.assign(module.exports, { open() {} })", ["function open"]),
    ],
)
def test_what_a_commonjs_module_exports(text, expected):
    assert outline(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("export default function () {}", ["function default"]),
        ("export default async () => {}", ["function default"]),
        ("export default class { open() {} }", ["class default", "method default.open"]),
        (
            "export default { data() {}, methods: { open() {} } }",
            ["constant default", "method default.data", "method default.methods.open"],
        ),
        ("export default function open() {}", ["function open"]),
        ("function open() {} export default open", ["function open"]),
        ("function open() {} export { open as start }", ["function open", "function start"]),
        ("const SIZE = 1, other = 2; export { SIZE }", ["constant SIZE"]),
        ("export const { a, b: [c], ...rest } = d", ["constant a", "constant c", "constant rest"]),
        ("export let size = 1", ["variable size"]),
        (
            "export { x as y } from 'z'; export * as all from 'z'; export * from 'z'",
            ["declaration y", "declaration all"],
        ),
        ("import { x } from 'z'; export { x }", ["declaration x"]),
        ("export class _Door { open() {} }", ["-class _Door", "-method _Door.open"]),
        (
            "export function open() { function inner() {} var f = () => 1; const n = 1 }",
            ["function open", "-function open.inner", "-function open.f"],
        ),
        ("export {}; function open() {}", ["function open"]),
        ("function open() {} let size = 1; const fs = require('fs')", ["function open", "variable size"]),
    ],
)
def test_what_an_ecmascript_module_exports(text, expected):
    assert outline(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Door.prototype.open = function () {}", ["method Door.open"]),
        ("Door.prototype = { open: function () {}, get width() {} }", ["method Door.open", "property Door.width"]),
        ("function Door() {} Door.prototype['shut'] = function () {}", ["function Door", "method Door.shut"]),
        ("$.fn.door = function () {}", ["method $.fn.door"]),
        ("window.door = function () {}", ["function door"]),
        ("Object.assign(Door.prototype, { open() {} }, { shut: () => {} })", ["method Door.open", "method Door.shut"]),
        ("defineGetter(door, 'width', function width() {})", ["property door.width"]),
        ("app[name] = function () {}", []),
        ("var open; open = function () {}; shut = 1", ["variable open", "function open"]),
        ("function Door() { this.open = function () {} }", ["function Door", "-method Door.open"]),
        ("class Door { lock() { this.open = () => {} } }", ["class Door", "method Door.lock", "field Door.open"]),
        ("each(function visit() {})", ["function visit"]),
        (
            "function make() { return { open() {}, shut: () => {} } }",
            ["function make", "-method make.open", "-method make.shut"],
        ),
        ("const use = () => ({ open() {} })", ["function use", "-method use.open"]),
        (
            "function make() { return class Door { open() {} } }",
            ["function make", "-class make.Door", "-method make.Door.open"],
        ),
        ("get(door, 'width', function () {}); use({ open() {} })", []),
        (
            "const door = { open() {}, inner: { shut: function () {} }, size: 1 }; export default 1",
            ["-constant door", "-method door.open", "-method door.inner.shut", "constant default"],
        ),
        ("(function () { function open() {} exports.shut = function () {} })()", ["-function open", "function shut"]),
    ],
)
def test_what_is_added_to_objects(text, expected):
    assert outline(text) == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("memo(function Inner() {})", "function"),
        ("React.memo(React.forwardRef((props, ref) => 1))", "function"),
        ("connect(state)(class extends Component {})", "function"),
        ("debounce(() => {}, 10)", "function"),
        ("defineComponent({ setup() {} })", "constant"),
        ("styled.div`color: red`", "constant"),
        ("rows.map((row) => row.name)", "constant"),
        ("(function () {})", "function"),
    ],
)
@pytest.mark.parametrize("language", ["javascript", "typescript", "tsx"])
def test_a_wrapped_function_is_a_function(text, kind, language):
    (symbol, *_) = symbols(f"/** Shown. */\nexport const Door = {text}", language)
    assert (symbol.kind, symbol.name, symbol.docstring, symbol.is_public) == (kind, "Door", "Shown.", True)


@pytest.mark.parametrize(
    "text",
    [
        "/** Opens. */\nvar open = function () {}",
        "/** Opens. */\nexport let open = function () {}",
        "/** Opens. */\nexports.open = function () {}",
        "/** Opens. */\nexports.begin = exports.open = () => {}",
        "module.exports = {\n  /** Opens. */\n  open() {},\n}",
        "/** Opens. */ exports.open = function () {}",
        "function open() {}\n/** Opens. */\nexport { open }\n",
    ],
)
def test_a_comment_belongs_to_what_is_below_it_however_it_is_defined(text):
    assert {one.name: one.docstring for one in symbols(text)}["open"] == (None if "{ open }" in text else "Opens.")


@pytest.mark.parametrize("language", ["javascript", "typescript", "vue"])
def test_documentation_belongs_to_what_follows_it_also_behind_an_empty_line(language):
    text = (
        "/**\n * Module dependencies.\n * @private\n */\n\nvar a = require('a')\n\n/**\n * Opens.\n */\n\nexports.open = function () {}\n"
        "// of nothing\n\nexports.shut = function () {}\nwait() /** of this */\n\nexports.knock = function () {}\n"
    )
    source = (f"<script>{text}</script>" if language == "vue" else text).encode()
    read = extract(language, source, "a", parse(language, source))
    assert (read.docstring, [one.docstring for one in read.symbols]) == (None, ["Opens.", None, None])


def test_comments_of_fields_are_above_before_or_behind_them():
    text = (
        "export enum Size {\n  /** Above. */\n  a = 1, // not this\n  b = 2, // Behind,\n         // on two lines.\n"
        "  /* Before. */ c, /* Also. */ d, e // e\n  , f\n}\n"
    )
    assert {one.name: one.docstring for one in symbols(text, "typescript") if one.kind == "member"} == {
        "a": "Above.",
        "b": "Behind,\non two lines.",
        "c": "Before.",
        "d": "Also.",
        "e": "e",
        "f": None,
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "declare namespace A { const b: C; namespace D { function e(): void } }",
            ["namespace A", "constant A.b", "namespace A.D", "function A.D.e"],
        ),
        (
            "export namespace A { export const b = 1; const c = 2; function d() {} }",
            ["namespace A", "constant A.b", "-function A.d"],
        ),
        ("declare module 'm' { interface I { p: 1 } }\nexport {}", ["module m", "interface m.I", "field m.I.p"]),
        ("declare global { var a: 1 }\nexport {}", ["namespace global", "variable global.a"]),
        ("declare const a: 1, b: 2", ["constant a", "constant b"]),
        ("declare function f(): void\nexport { f }", ["function f"]),
        ("class A {} export = A", ["class A"]),
        (
            "export class A { constructor(private a: B, readonly c?: D, e = 1) {} }",
            ["class A", "constructor A.constructor", "-field A.a", "field A.c"],
        ),
        (
            "export class A { private b() {} protected c() {} #d() {} declare e: 1; static f?: 1 }",
            ["class A", "-method A.b", "method A.c", "-method A.#d", "field A.e", "field A.f"],
        ),
        (
            "/** @internal */ export class A { b() {} }\n/** @api private */\nexport function c() {}",
            ["-class A", "-method A.b", "-function c"],
        ),
        (
            "export interface A { [KEY]: 1; [a.b]: 2; 'c-d': 3; 4: 5; (): 6; new (): 7 }",
            [
                "interface A",
                "field A.[KEY]",
                "field A.[a.b]",
                "field A.c-d",
                "field A.4",
                "method A.()",
                "method A.new",
            ],
        ),
    ],
)
def test_what_typescript_declares(text, expected):
    assert outline(text, "typescript") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "export function f(a: 1): 2\n// and\nexport function f(a: 3): 4\nexport function f(a: any) {}",
            ["f(a: 1): 2", "f(a: 3): 4"],
        ),
        ("class A { f(a: 1): 2; f(a: any) {} g(a: any) {} }", ["f(a: 1): 2", "g(a: any)"]),
        ("class A { constructor(a: 1); constructor(a: any) {} }", ["constructor(a: 1)"]),
        ("declare function g(a: 1): 2\nfunction f(a: any) {}", ["g(a: 1): 2", "f(a: any)"]),
    ],
)
def test_the_body_of_overloads_shows_the_signature_that_callers_see(text, expected):
    shown = [one.signature.removeprefix("function ") for one in symbols(text, "typescript") if one.kind != "class"]
    assert list(dict.fromkeys(shown)) == expected


def test_a_computed_name_is_one_name():
    (_, method) = symbols("class A { [Symbol.iterator]() {} }")
    assert (method.name, method.qualified_name) == ("[Symbol.iterator]", "A.[Symbol.iterator]")


@pytest.mark.parametrize(
    ("language", "text", "signature"),
    [
        ("javascript", f"function f(a = '{'x' * 41}') {{}}", "function f(a = '…')"),
        ("javascript", f"function f(a = '{'x' * 30}') {{}}", f"function f(a = '{'x' * 30}')"),
        (
            "typescript",
            f"const f = (a = {{ b: [{'1, ' * 30}] }}, c: {{ d: string }}) => 1",
            "const f = (a = {…}, c: { d: string }) =>",
        ),
        (
            "python",
            f"def f(a='''{'x' * 41}''', b=[{'1, ' * 30}], c=dict({'1, ' * 30})): pass",
            "def f(a='''…''', b=[…], c=dict(…))",
        ),
        ("python", f"class C({', '.join(f'Base{n}' for n in range(20))}): pass", None),
        ("tsx", f"export const F = memo(({{ a, b }}) => (<p>{'x' * 80}</p>))", "const F = memo(({ a, b }) => (…))"),
        ("typescript", f"export type A = {{ {'b: string; ' * 10} }}", "type A = {…}"),
        ("typescript", f"export type A = (b: {{ {'b: string; ' * 10} }}) => {'A | ' * 20} B", None),
    ],
)
def test_long_values_are_elided_in_signatures_and_types_are_not(language, text, signature):
    shown = symbols(text, language)[0].signature
    if signature is None:
        assert "…" not in shown or "type" in shown
    else:
        assert shown == signature


def test_scripts_of_a_component_stay_in_place():
    text = (
        b'<p>\xc3\xa4 {x}</p>\r\n<script lang="ts" generic="T extends A<B>">\nlet a: T\n</script >\n<style>\n</style>\n'
    )
    language, code = scripts(text)
    assert (language, len(code), code.count(b"\n"), code.strip()) == (
        "typescript",
        len(text),
        text.count(b"\n"),
        b"let a: T",
    )
    assert code.index(b"let a") == text.index(b"let a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"<p>none</p>", ("javascript", b"")),
        (b"<script>a</script><script lang='tsx'>b</script>", ("tsx", b"a b")),
        (b"<SCRIPT>a</SCRIPT>", ("javascript", b"a")),
        (b"<script src='x' />a", ("javascript", b"")),
        (b"<script type='text/template'>a</script>", ("javascript", b"")),
        (b"<!-- <script>a</script> -->", ("javascript", b"")),
        (b"<script>a", ("javascript", b"a")),
        (b"<scripted>a</scripted>", ("javascript", b"")),
        (b"<script lang=coffee>a</script>", ("javascript", b"")),
    ],
)
def test_which_scripts_of_a_component_are_read(text, expected):
    language, code = scripts(text)
    assert (language, b" ".join(code.split())) == expected


@pytest.mark.parametrize(
    ("start", "repeated", "end"),
    [
        ("export interface A {", "/** x */ f{}: 1;\n", "}"),
        ("export const ", "f{} = 1, ", "z = 1"),
        ("export const { ", "f{}, ", "z } = 1"),
        ("module.exports = { ", "f{}() {{}}, ", "}"),
        ("export { ", "f{}, ", "z }"),
        ("export class A { constructor(", "private f{}: 1, ", "z: 1) {} }"),
    ],
)
def test_time_does_not_grow_with_the_square_of_the_number_of_names(start, repeated, end):
    text = start + "".join(repeated.format(n) for n in range(8000)) + end
    before = process_time()
    assert len(symbols(text, "typescript")) >= 8000
    assert process_time() - before < 8  # 0.6 s; one list of neighbours for each name took 15 s


def test_a_long_type_takes_no_time():
    before = process_time()
    (alias,) = symbols("export type A = " + "".join(f"'{n}' | " for n in range(8000)) + "'z'", "typescript")
    assert len(alias.signature) <= 600
    assert process_time() - before < 8  # 0.2 s; a look at what is around each part took 23 s
