"""Which `.h` files are C++: those that hold C++, and those that stand among sources of C++."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from rotary_batch.repo.languages import language_of

_LIBRARY = (
    rb"string|string_view|vector|map|unordered_map|set|array|memory|utility|functional|algorithm|iostream|type_traits"
    rb"|atomic|mutex|optional|cassert|cstdint|cstddef|cstdlib|cstring|cstdio"
)
_CPP = re.compile(
    rb"""^[ \t]*+(?:
        (?:enum[ \t]++)?class\b[ \t]*+(?:[A-Za-z_]\w*+(?:\([^()\n]*+\))?[ \t\r\n]++)*?  # with macros
            [A-Za-z_][\w:]*+(?:[ \t]*+<[^;{\n]*+>)?[ \t\r\n]*+(?:final[ \t\r\n]*+)?[:{;]
        | (?:inline[ \t]++)?namespace\b[^;=()\n]*+[\n{]
        | namespace[ \t]++\w++[ \t]*+=
        | using[ \t]++(?:namespace[ \t]|\w++(?:::|[ \t]*+=))
        | template[ \t]*+<
        | (?:public|private|protected)[ \t]*+:(?!:)
        | virtual[ \t]++\w
        | \#[ \t]*+include[ \t]*+<(?:"""
    + _LIBRARY
    + rb""")>
    )
    | \boperator[ \t]*+(?:[=!<>+\-*/&|^~\[]|\(\))
    | \b[A-Za-z_]\w*+::[A-Za-z_~]""",
    re.MULTILINE | re.VERBOSE,
)
_NO_CODE = re.compile(rb'/\*[^*]*+(?:\*(?!/)[^*]*+)*+(?:\*/)?|//[^\n]*+|"(?:\\.|[^"\\\n])*+"?', re.DOTALL)


def is_cpp(source: bytes) -> bool:
    """Whether a header has what C has not; `extern "C"` is in headers of C too."""
    return _CPP.search(_NO_CODE.sub(b" ", source)) is not None


def language_beside(sources: Iterable[str]) -> Callable[[str], str]:
    """A function that returns the language of the sources nearest to a header; the sources are given by path.

    The source of the same name decides, else those of its folder, else all of them; C wins where both are.
    """
    by_place: dict[str, set[str]] = defaultdict(set)
    for path in sources:
        if (language := language_of(path)) in {"c", "cpp"} and not path.endswith(".h"):
            place = PurePosixPath(path)
            for key in (str(place.with_suffix("")), f"{place.parent}/", ""):
                by_place[key].add(str(language))

    def beside(path: str) -> str:
        place = PurePosixPath(path)
        for key in (str(place.with_suffix("")), f"{place.parent}/", ""):
            if languages := by_place.get(key):
                return "c" if "c" in languages else "cpp"
        return "c"

    return beside
