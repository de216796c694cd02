"""C and C++: what macros, conditionals, headers and declarators must not hide."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rotary_batch.core import Symbol
from rotary_batch.repo.files import classify
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.headers import is_cpp
from rotary_batch.repo.languages import LANGUAGES, language_of
from rotary_batch.repo.symbols import extract, parse


def symbols(language: str, source: str, path: str = "a.c") -> list[Symbol]:
    data = source.encode()
    return list(extract(language, data, path, parse(language, data)).symbols)


def names(language: str, source: str) -> list[str]:
    """Kind and qualified name of everything but macros."""
    found = symbols(language, source)
    return [f"{symbol.kind} {symbol.qualified_name}" for symbol in found if symbol.kind != "macro"]


def signatures(language: str, source: str) -> list[str]:
    return [symbol.signature for symbol in symbols(language, source)]


BOTH = pytest.mark.parametrize("language", ["c", "cpp"])


@BOTH
@pytest.mark.parametrize(
    ("source", "signature"),
    [
        ("LIB_API int f(void);", "int f(void)"),
        ("static LIB_INLINE int f(void) { return 0; }", "static int f(void)"),
        ("LIB_API EXTRA_WORD const char *f(int x) LIB_PURE;", "const char *f(int x)"),
        ("EXPORT(long) f(void);", "long f(void)"),
        ("Py_API(Thing *) f(int x);", "Thing * f(int x)"),
        ("JNIEXPORT jint JNICALL f(JNIEnv *env) {}", "jint f(JNIEnv *env)"),
        ("LIB_EXPORT DWORD WINAPI f(int x);", "DWORD f(int x)"),
        ("BOOL f(void);", "BOOL f(void)"),
        ("BOOL\nf(void)\n{ return 1; }", "BOOL f(void)"),
        ('__attribute__((weak, alias("g"))) int f(void) {}', "int f(void)"),
        ("int f(void) __attribute__((const));", "int f(void)"),
        ("int f __P((int a, char *b));", "int f (int a, char *b)"),
        ("lid_t f _((int a));", "lid_t f (int a)"),
        ("__declspec(dllexport) int f(void);", "int f(void)"),
        ("LIB_BEGIN_DECLS\nthing_t *f(void);", "thing_t *f(void)"),
        ("LIB_DEFINE(thing)\nint f(void) {}", "int f(void)"),
        ("int f(const char *format, ...) LIB_PRINTF(1, 2);", "int f(const char *format, ...)"),
        ("LIB_API int (*f)(void);", "int (*f)(void)"),
        ("LIB_API void *(*f)(int x) LIB_ATTR;", "void *(*f)(int x)"),
        ("thing_t (*f)(int x) = 0;", "thing_t (*f)(int x) = 0;".rstrip(";")),
        ("LIB_API Thing (f)(int x);", "Thing (f)(int x)"),
        ("typedef BOOL (WINAPI *f)(int x);", "typedef BOOL ( *f)(int x)"),
        ("int f LIB_ARGS((int x, int y));", "int f (int x, int y)"),
        ("struct f { int x; } LIB_PACKED;", "struct f"),
        ("typedef struct { int x; } LIB_PACKED f;", "typedef struct { … } f"),
        ("typedef struct { int x; } POINT;", "typedef struct { … } POINT"),
        ("struct LIB_ALIGN(8) f { int x; };", "struct f"),
        ("enum f { A };", "enum f"),
        ("static enum kind\nf(int x)\n{ return 0; }", "static enum kind f(int x)"),
    ],
)
def test_macros_and_attributes_around_a_declaration_are_no_part_of_it(language, source, signature):
    assert signatures(language, source)[0] == signature


@pytest.mark.parametrize(
    ("source", "signature"),
    [
        ("class LIB_API Shelf : public store::Shelf {};", "class Shelf : public store::Shelf"),
        ("class __declspec(dllexport) Shelf final {};", "class Shelf final"),
        ("class LIB_TEMPLATE(x) Shelf {};", "class Shelf"),
        ("LIB_BEGIN\ntemplate <class T> struct Shelf {};", "template <class T> struct Shelf"),
        ("enum class LIB_API Kind : int { A };", "enum class Kind : int"),
        ("template <class T> LIB_API T *f(T x);", "template <class T> T *f(T x)"),
        ("template <class T, LIB_IF(small<T>::value)> T f(T x);", "template <class T > T f(T x)"),
        ("__global__ void f(float *x) {}", "__global__ void f(float *x)"),
        ("__host__ __device__ float f(float x);", "__host__ __device__ float f(float x)"),
    ],
)
def test_macros_around_a_class_or_a_template_are_no_part_of_it(source, signature):
    assert signatures("cpp", source)[0] == signature


def test_a_class_template_with_defaults_is_a_class():
    source = "template <class T, int N = 5> class Shelf final : Base<T> { T x; LIB_CONSTEXPR ~Shelf() { stop(); } };"
    assert names("cpp", source) == ["class Shelf", "field Shelf.x", "method Shelf.~Shelf"]


def test_macros_in_a_class():
    source = """class Shelf { SHELF_OBJECT
public:
  LIB_CONSTEXPR Shelf(int n) LIB_NOEXCEPT : n_(n) {}
  LIB_INLINE operator bool() const;
  SHELF_PROPERTY(int n READ n)
  std::vector<URL> urls GUARDED_BY(lock_);
  LIB_INLINE URL parse(const URL &url);
  int n_;
};"""
    assert names("cpp", source) == [
        "class Shelf",
        "constructor Shelf.Shelf",
        "declaration Shelf.operator bool",
        "field Shelf.urls",
        "declaration Shelf.parse",
        "field Shelf.n_",
    ]


@BOTH
def test_a_test_macro_is_no_function(language):
    assert names(language, "CHECK(Suite, Name) { }\nint after(void) { return 0; }") == ["function after"]


@BOTH
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("int **f(void) {}", "function f"),
        ("struct x *f(void) {}", "function f"),
        ("int (*f(int k))(int) {}", "function f"),
        ("int (*(*f(int k))(int))(long) {}", "function f"),
        ("char *(*f[3])(int);", "variable f"),
        ("typedef int (*f)(int);", "type f"),
        ("typedef int f(int);", "type f"),
        ("typedef int f[4];", "type f"),
        ("int (f)(int x) {}", "function f"),
        ("unsigned long long f(void);", "declaration f"),
    ],
)
def test_the_name_is_within_its_declarators(language, source, expected):
    assert names(language, source) == [expected]


def test_references_are_returned_in_cpp():
    assert names("cpp", "T &f() {}\nT &&g() {}\nconst T *const &h() {}") == ["function f", "function g", "function h"]


def test_operators_and_specialisations_have_their_names():
    source = """Shelf &Shelf::operator=(const Shelf &other) {}
Shelf::operator long() const {}
void *Shelf::operator new(size_t n) {}
int Shelf::operator()(int x) {}
Shelf::Shelf() {}
Shelf::~Shelf() {}
template <> void Shelf<int>::put(int x) {}
std::ostream &operator<<(std::ostream &out, const Shelf &shelf) {}
"""
    assert names("cpp", source) == [
        "method Shelf.operator=",
        "method Shelf.operator long",
        "method Shelf.operator new",
        "method Shelf.operator()",
        "constructor Shelf.Shelf",
        "method Shelf.~Shelf",
        "method Shelf.put",
        "function operator<<",
    ]


def test_functions_of_before_1989():
    assert names("c", "static long\nsum(a, b)\n  int a;\n  COUNT b;\n{ return a; }\nint main() { }") == [
        "function sum",
        "function main",
    ]


@BOTH
def test_braces_that_conditionals_split_shift_nothing(language):
    source = """int one(int x) {
#if FAST
  for (;;) {
#else
  if (x) {
#endif
  }
  return 0;
}
/* After. */
int two(void) { return 0; }
"""
    one, two = symbols(language, source)
    assert (one.qualified_name, one.start_line, one.end_line) == ("one", 1, 9)
    assert (two.qualified_name, two.start_line, two.docstring) == ("two", 11, "After.")


@BOTH
def test_a_brace_that_is_never_closed_ends_with_its_function(language):
    source = "int one(int x) {\n  if (x) {\n    do { x--;\n  }\n}\nint two(void) {\n  if (1) {\n}\n/* C. */\nint three(void) {}\n"
    assert names(language, source) == ["function one", "function two", "function three"]


@BOTH
def test_whole_branches_of_conditionals_all_stay(language):
    source = """#ifdef WIN
int open_win(void) { return 0; }
#else
int open_unix(void) { return 0; }
#endif
#if 0
int never(void) { return 0; }
#endif
enum kind { A,
#ifdef B
  C,
#else
  D,
#endif
};
#ifdef WIN
int head(int x)
#else
int head(long x)
#endif
{ return 0; }
struct s {
#ifdef __linux__
  int fd;
#else
  void *handle;
#endif
};
"""
    assert names(language, source) == [
        *("function open_win", "function open_unix", "enum kind", "member kind.A", "member kind.C", "member kind.D"),
        *("function head", "struct s", "field s.fd", "field s.handle"),
    ]


def test_code_for_the_other_language_is_left_out():
    source = '#ifdef __cplusplus\nextern "C" {\n#endif\nint f(void);\n#ifdef __cplusplus\nclass Only {};\n}\n#endif\n'
    assert names("c", source) == ["declaration f"]
    assert names("cpp", source) == ["declaration f", "class Only"]


@BOTH
def test_a_cleaned_source_keeps_every_byte_in_its_place(language):
    source = b'#if A\r\nx\xc3\xa9\r\n#endif\nAPI int f(\n#ifdef B\n int b,\n#endif\n int c) ATTR; // \xff API\nchar *s = "#if ( {";\n'
    cleaned = LANGUAGES[language].clean(source)
    assert len(cleaned) == len(source)
    assert [i for i, byte in enumerate(source) if byte in b"\r\n"] == [
        i for i, byte in enumerate(cleaned) if byte in b"\r\n"
    ]
    assert all(new in (old, 32) for old, new in zip(source, cleaned, strict=True))


@BOTH
def test_include_guards_are_no_macros_but_others_are(language):
    source = "/* x */\n#ifndef SHELF_H\n#define SHELF_H\n#define SIZE 4\n#define LEAST(a, b) ((a) < (b) ? (a) : (b)) /* of two */\n#endif\n"
    assert signatures(language, source) == ["#define SIZE 4", "#define LEAST(a, b)"]
    default = "#ifndef SIZE\n#define SIZE\n#endif\nint f(void);\n"
    assert signatures(language, default) == ["#define SIZE", "int f(void)"]


@BOTH
def test_a_macro_of_many_lines_ends_where_it_ends(language):
    source = "#define RUN(x) do { \\\n  /* first \\\n   * step */ \\\n  go(x); /* then */ \\\n  int y = 1; \\\n} while (0)\nint f(void);\n"
    found = symbols(language, source)
    assert [(symbol.name, symbol.start_line, symbol.end_line) for symbol in found] == [("RUN", 1, 6), ("f", 7, 7)]


@BOTH
def test_comments_of_fields_stand_above_or_behind_them(language):
    source = """struct s {
  int a; /* the a */
  int b; ///< the b,
         ///< going on
  /** The c. */
  int c;
  int d;
  int e, *f; /**< both */
};
enum k { X, /* the x */
  /* The y. */
  Y, Z /* the z */ };
#define N 3 // how many
"""
    docs = {symbol.name: symbol.docstring for symbol in symbols(language, source)}
    assert docs == {
        "s": None,
        "a": "the a",
        "b": "the b,\ngoing on",
        "c": "The c.",
        "d": None,
        "e": "both",
        "f": "both",
        "k": None,
        "X": "the x",
        "Y": "The y.",
        "Z": "the z",
        "N": "how many",
    }


def test_what_is_static_in_a_source_is_public_in_a_header():
    source = "static inline int f(void) { return 0; }\nstatic int n;\nint g(void);\n"
    assert [symbol.is_public for symbol in symbols("c", source, "a.c")] == [False, False, True]
    assert [symbol.is_public for symbol in symbols("c", source, "a.h")] == [True, True, True]


def test_access_of_members():
    source = "class A { int a; public: int b; static int c; protected: int d; struct B { int e; }; };\nstruct C { int f; private: int g; };"
    private = [symbol.qualified_name for symbol in symbols("cpp", source) if not symbol.is_public]
    assert private == ["A.a", "A.d", "A.B", "C.g"]


def test_a_typedef_of_a_struct_is_one_type():
    source = "typedef struct shelf { int n; } shelf;\ntypedef struct { int n; } box, *box_ptr;\ntypedef struct cup_s { int n; } cup;\ntypedef struct lid lid;\n"
    assert names("c", source) == [
        *("struct shelf", "field shelf.n", "struct box", "field box.n", "type box_ptr"),
        *("struct cup_s", "field cup_s.n", "type cup", "type lid"),
    ]


@BOTH
def test_what_follows_a_function_that_returns_a_function_of_a_struct_is_read_as_ever(language):
    source = "static const struct ops *(*pick(void))(int) { return 0; }\nint shut PARAMS((int a));\n"
    assert names(language, source) == ["function pick", "declaration shut"]


@BOTH
def test_long_values_are_elided(language):
    source = f'const char *const s = "{"x" * 500}";\nint t[] = {{{"1, " * 500}}};\n#define M {"x" * 500}\nint n = 1;\n'
    assert signatures(language, source) == ["const char *const s = …", "int t[] = { … }", "#define M …", "int n = 1"]


@pytest.mark.parametrize(
    ("path", "language"),
    [("a.h", "c"), ("a.C", "cpp"), ("a.H", "cpp"), ("OLD.C", "c"), ("OLD.H", "c"), ("a.cu", "cpp"), ("a.cuh", "cpp")]
    + [(f"a.{ending}", "cpp") for ending in ("c++", "inl", "tpp", "ipp", "hh", "CPP")],
)
def test_endings(path, language):
    assert language_of(path) == language


@pytest.mark.parametrize(
    "source",
    [
        "class Shelf {\n};",
        "class LIB_API Shelf : public Base {",
        "class Shelf;",
        "namespace shop {\n}",
        "  namespace a::b\n{",
        "template <class T>\nT f(T x);",
        "struct S {\npublic:\n  int x;\n};",
        "enum class Kind { A };",
        "using Alias = int;",
        "#include <vector>",
        "bool operator==(const S &a, const S &b);",
        "std::string f(void);",
    ],
)
def test_a_header_that_holds_cpp_is_cpp(source):
    assert is_cpp(source.encode())


@pytest.mark.parametrize(
    "source",
    [
        '#ifdef __cplusplus\nextern "C" {\n#endif\nint f(void);\n',
        "struct class_info { int class; int template; };",
        "/* class Shelf { namespace x { template <class T> std::x */ int f(void);",
        "// class Shelf {\nint f(void);",
        '#define S "std::string"\n#include <stdint.h>',
        "int new(int operator, int this);",
        "@class Shelf;",
        "enum kind { public, private };",
    ],
)
def test_a_header_of_c_is_c(source):
    assert not is_cpp(source.encode())


def languages(tmp_path: Path, files: dict[str, str]) -> dict[str, str | None]:
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    for command in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    found = classify(open_repository(tmp_path, worktree=True), docs_dir="docs")
    return {file.path: file.language for file in found if file.path.endswith((".h", ".H"))}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"x.h": "int f();", "y.c": ""}, {"x.h": "c"}),
        ({"x.h": "int f();", "y.cpp": ""}, {"x.h": "cpp"}),
        ({"x.h": "int f();"}, {"x.h": "c"}),
        ({"x.h": "class A {};", "y.c": ""}, {"x.h": "cpp"}),
        ({"include/x.h": "int f();", "src/y.cc": ""}, {"include/x.h": "cpp"}),
        ({"include/x.h": "int f();", "src/y.cc": "", "src/z.c": ""}, {"include/x.h": "c"}),
        ({"x.h": "int f();", "x.cpp": "", "y.c": "", "z.h": ""}, {"x.h": "cpp", "z.h": "c"}),
        ({"a/x.h": "int f();", "a/y.cpp": "", "b/y.c": "", "b/z.h": ""}, {"a/x.h": "cpp", "b/z.h": "c"}),
    ],
)
def test_the_language_of_a_header(tmp_path, files, expected):
    assert languages(tmp_path, files) == expected


@pytest.mark.parametrize("before", ["", "extern "])
@pytest.mark.parametrize(
    "one", ["auto f<char>(Lid) -> Rim<char>", "class Shelf<int>", "LIB_API void Shelf<int>::put(int)"]
)
def test_an_explicit_instantiation_is_no_symbol_and_hides_nothing(before, one):
    source = f"int first(void);\n{before}template {one};\ninline namespace lids {{\nint last(void);\n}}\n"
    assert names("cpp", source) == ["declaration first", "namespace lids", "declaration lids.last"]


def test_a_long_string_in_a_signature_is_elided_and_a_short_one_is_exact():
    text = '"' + "long words " * 10 + '"'
    source = f"void open(const char *lid = {text}, const char *rim = \"a  b\", char c = 'x') {{}}\nvoid shut(const char *lid = {text});\n"
    assert signatures("cpp", source) == [
        'void open(const char *lid = "…", const char *rim = "a b", char c = \'x\')',
        'void shut(const char *lid = "…")',
    ]
