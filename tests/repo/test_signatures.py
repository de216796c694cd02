"""What signatures leave out in every language: long defaults, long values and long strings."""

import pytest

from rotary_batch.repo.symbols import extract, parse

MANY = ", ".join(map(str, range(40)))
SUM = " + ".join(map(str, range(40)))
TEXT = "tin " * 20

ELIDED = {
    "cpp": {
        f"int f(V v = {{{MANY}}}, V w = V{{{MANY}}}, V x = g({MANY}));": "int f(V v = {…}, V w = V{…}, V x = g(…))",
        f'void f(const char *s = "{TEXT}" "{TEXT}", wchar_t *w = L"{TEXT}") {{}}': (
            'void f(const char *s = "…", wchar_t *w = L"…")'
        ),
        f"template <class T, class A = std::tuple<{MANY}>, int N = {SUM}> class C {{ }};": (
            "template <class T, class A = std::tuple<…>, int N = …> class C"
        ),
        f"template <class A = T<{MANY}>> int f(A a);": "template <class A = T<…>> int f(A a)",
        "int f(V v = {1, 2}, int w = 3 + 4);": "int f(V v = {1, 2}, int w = 3 + 4)",
    },
    "python": {
        f"def f(a=[{MANY}], b=g({MANY}), c=x[{MANY}], d={SUM}, s='{TEXT}'): pass": (
            "def f(a=[…], b=g(…), c=…, d=…, s='…')"
        ),
        f"def f(a: L[{MANY}] = 1, b=lambda c=[{MANY}]: c): pass": f"def f(a: L[{MANY}] = 1, b=lambda c=[…]: c)",
    },
    "javascript": {
        f"function f(a = [{MANY}], b = {SUM}, r = /{TEXT}/g, t = `{TEXT}`) {{}}": (
            "function f(a = […], b = …, r = /…/, t = `…`)"
        ),
        f"export default [{MANY}];": "export default […]",
    },
    "typescript": {
        f"function f(a: number[] = [{MANY}], b: {{ c: number }} = {{ c: {SUM} }}): void {{}}": (
            "function f(a: number[] = […], b: { c: number } = {…}): void"
        ),
        f"function f<T = [{MANY}]>(a: [{MANY}]): void {{}}": f"function f<T = …>(a: [{MANY}]): void",
    },
    "go": {f"package p\nvar X = []int{{{MANY}}}\n": "var X = []int{…}"},
    "rust": {f"const T: X = ({MANY});": "const T: X = (…)", f"static S: &str = r#\"{TEXT}\"#;": 'static S: &str = r#"…"#'},
    "java": {f"@interface A {{ int[] w() default {{{MANY}}}; }}": "int[] w() default {…}"},
    "c_sharp": {
        f"class A {{ int[] x = {{{MANY}}}; }}": "int[] x = {…}",
        f"class A {{ L x = new int[] {{{MANY}}}; }}": "L x = new int[] {…}",
        f"class A {{ L x = [{MANY}]; }}": "L x = […]",
        f'class A {{ const string S = $@"{TEXT}"; }}': 'const string S = $@"…"',
        f'class A {{ [Obsolete("{TEXT}")] void F(string s = "{TEXT}") {{}} }}': 'void F(string s = "…")',
    },
    "ruby": {
        f"def f(a = [{MANY}], b: g({MANY}), c: %w[{TEXT}], d: {SUM})\nend\n": "def f(a = […], b: g(…), c: %w[…], d: …)",
        f"X = {{a: [{MANY}]}}\n": "X = {…}",
        f"X = '{TEXT}'\n": "X = '…'",
    },
    "php": {
        f"<?php function f($a = [{MANY}], $b = array({MANY}), $s = '{TEXT}') {{}}": (
            "function f($a = […], $b = array(…), $s = '…')"
        ),
        f"<?php class A {{ public $x = [{MANY}]; }}": "public $x = […]",
        f"<?php class A {{ const X = 'a' . '{TEXT}'; }}": "const X = 'a' . '…'",
    },
    "kotlin": {
        f'fun f(a: L = listOf({MANY}), s: String = "{TEXT}", g: F = {{ h({MANY}) }}) {{}}': (
            'fun f(a: L = listOf(…), s: String = "…", g: F = {…})'
        ),
        f"class A(val x: L = listOf({MANY}))": "class A(val x: L = listOf(…))",
        f'val x = """{TEXT}"""': 'val x = """…"""',
    },
    "swift": {
        f'func f(a: [Int] = [{MANY}], b: Int = g({MANY}), s: String = "{TEXT}") {{}}': (
            'func f(a: [Int] = […], b: Int = g(…), s: String = "…")'
        ),
        f"class A {{ var x: Int {{ return g({MANY}) }} }}": "var x: Int {…}",
    },
    "scala": {f"object A {{ def f(a: L = List({MANY}), b: Int = {SUM}): Int = 1 }}": "def f(a: L = List(…), b: Int = …): Int"},
    "lua": {f"M.x = {{{MANY}}}": "M.x = {…}", f"M.x = '{TEXT}'": "M.x = '…'"},
    "bash": {f"X=({TEXT * 2})": "X=(…)", f"export X='{TEXT}'": "export X='…'"},
    "sql": {
        f"create function f(a text default '{TEXT}') returns int as $$ select {MANY} $$ language sql;": (
            "create function f(a text default '…') returns int … language sql"
        ),
        f"create table t (x text default '{TEXT}');": "x text default '…'",
    },
}  # fmt: skip


@pytest.mark.parametrize(("language", "text"), [(language, text) for language in ELIDED for text in ELIDED[language]])
def test_long_defaults_values_and_strings_are_elided(language, text):
    """And types are not: a caller has to know them."""
    symbols = extract(language, text.encode(), "a", parse(language, text.encode())).symbols
    assert ELIDED[language][text] in {symbol.signature for symbol in symbols}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("c_sharp", "class A { int %s; }"),
        ("php", "<?php class A { public %s; }"),
        ("java", "class A { int %s; }"),
    ],
)
def test_of_a_statement_with_very_many_names_none_repeats_it(language, text):
    names = [f"{'$' * (language == 'php')}n{place}" for place in range(60)]
    source = (text % ", ".join(names)).encode()
    fields = [one for one in extract(language, source, "a", parse(language, source)).symbols if one.kind == "field"]
    assert [one.signature for one in fields] == names
