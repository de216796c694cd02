"""What a sentence says of parameters, results and exceptions, versus what the code has.

Each rule fires only where the code leaves no doubt: a parameter that neither the signature nor the code has, a number
of parameters that no call could have, an exception that is raised nowhere, a result of what returns nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rotary_batch.pages.faithful.described import FUNCTIONS, Described

_PARAMETER = re.compile(
    r"`([A-Za-z_]\w*)`\s+(?:parameter|argument|param|arg)s?\b|\b(?:parameter|argument)\s+`([A-Za-z_]\w*)`"
)
_GIVEN = re.compile(
    r"\b(?:given|specified|provided|supplied)\s+(?:\w+,\s+)*`([a-z_]\w*)`(?:(?:,|,?\s+and)\s+`([a-z_]\w*)`)?"
)
_TAKES = re.compile(
    r"^(?:takes|take|accepts|accept|receives)\s+(?:only\s+|exactly\s+)?(no|one|two|three|four|five|six|a\s+single)\s+"
    r"(?:\w+\s+)?(?:parameter|argument)s?\b",
    re.IGNORECASE,
)
_COUNTS = {"no": 0, "one": 1, "a single": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_ARTICLE = r"(?:an?\s+|the\s+)?(?:instance\s+of\s+)?"
_EXCEPTION = (
    r"`?((?:[A-Za-z_]\w*\.)*[A-Z][a-z0-9]+[A-Z]\w*)(?![\w.]*\()`?"  # two words in one: `ValueError`, not `Exception`
)
_RAISES = re.compile(
    rf"\b[Rr]ais(?:es?|ing)\s+{_ARTICLE}{_EXCEPTION}(?:\s*(?:,|or|and|,\s*or)\s*{_ARTICLE}{_EXCEPTION})?"
    rf"|\b[Tt]hrow(?:s|ing)?\s+{_ARTICLE}{_EXCEPTION}(?:\s*(?:,|or|and|,\s*or)\s*{_ARTICLE}{_EXCEPTION})?"
)
_RAISED = re.compile(
    r"\b(?:raises?|throws?|reraise|rethrow|except\w*|error|errors|Err|fail|reject|abort|panic)\b", re.IGNORECASE
)
_RAISED_AGAIN = re.compile(r"(?:^|[\s;{])(?:raise|throw)\s*;?\s*(?:\}|#.*|//.*)?$", re.MULTILINE)
_NOT_A_VALUE = (
    r"early|immediately|nothing|none\b|null\b|nil\b|void\b|undefined\b|if\b|when\b|once|after|before|until|unless|to\b|from\b|control|"
    r"without|silently|only\b|on\b|in\b|at\b|back|normally|as\s+soon|`None`|`null`|`nil`|`void`|`undefined`|no\b|and\b|or\b|for\b|"
    r"by\b|via\b|through|asynchronously"
)
_RETURNS = re.compile(
    rf"^(?:asynchronously\s+|lazily\s+)?(?:returns?|yields?)\s+(?!{_NOT_A_VALUE})"
    # What another thing returns is behind a word such as `that`.
    r"|^(?:(?!\b(?:that|which|who|if|when|where|while|until)\b)[^.])*?[\s,](?:and|then)\s+(?:then\s+)?returns?\s+"
    rf"(?!{_NOT_A_VALUE})",
    re.IGNORECASE,
)
_RETURNS_BOOLEAN = re.compile(r"^returns?\s+`?(true|false)`?\b", re.IGNORECASE)
_BOOLEANS = re.compile(r"\breturn\b[ \t(]*(true|false)\b\)?[ \t;]*(?:$|\}|#|//)", re.IGNORECASE | re.MULTILINE)
_RETURN = re.compile(r"\breturn\b|=>|\byield\b")
_RETURNS_NONE = re.compile(r"^returns?\s+`?(?:none|null|nil)`?\b", re.IGNORECASE)
_PYTHON_RESULT = re.compile(
    r"\b(?:return[ \t(]+[^\s#)]|yield\b|lambda\b|pass\b|NotImplemented\w*|abstractmethod|overload)|\.\.\."
)
_JAVASCRIPT_RESULT = re.compile(r"\breturn\b[ \t]*[^\s;}]|\byield\b|=>|\bthrow\b")
_NO_BOOLEAN = re.compile(r"(?:str|bytes|float|dict|list|tuple|set|None|string|double|void|String)\b(?!\s*[|\[\]<&?*.])")
_NO_NONE = re.compile(r"(?:str|bytes|float|int|bool|dict|list|tuple|set)\b(?!\s*\|)")
_VOID_BEFORE = {"java", "c", "cpp", "c_sharp"}


def false_claims(sentence: str, about: Described) -> Iterator[str]:
    """What a sentence says of parameters, results and exceptions that the code does not have, in words."""
    yield from (f"parameter: {name}" for name in _unknown_parameters(sentence, about))
    if (number := _wrong_number(sentence, about)) is not None:
        yield f"parameter: {number} of them"
    yield from (f"exception: {name}" for name in _unknown_exceptions(sentence, about))
    if (result := _wrong_result(sentence, about)) is not None:
        yield f"result: {result}"


def _unknown_parameters(sentence: str, about: Described) -> list[str]:
    if about.parameters is None or about.code is None:
        return []
    in_signature = set(re.findall(r"\w+", about.signature))
    known = in_signature | set(re.findall(r"\w+", about.code))
    said = [name for pair in _PARAMETER.findall(sentence) for name in pair if name and name not in known]
    given = [name for pair in _GIVEN.findall(sentence) for name in pair if name and name not in in_signature]
    return list(dict.fromkeys([*said, *given]))


def _wrong_number(sentence: str, about: Described) -> str | None:
    found, parameters = _TAKES.search(sentence), about.parameters
    if found is None or parameters is None:
        return None
    said = " ".join(found[1].lower().split())
    if any(re.match(r"[*&]|\.\.\.|params\b|vararg\b", part) or "..." in part for part in parameters):
        return None
    most, least = len(parameters), sum("=" not in part and "?" not in part for part in parameters)
    return None if least <= _COUNTS[said] <= most else said


def _unknown_exceptions(sentence: str, about: Described) -> list[str]:
    """Exceptions that no line of the code that raises anything names."""
    said = [name.rpartition(".")[2] for found in _RAISES.findall(sentence) for name in found if name]
    if about.code is None or not said or about.kind not in FUNCTIONS:
        return []
    if _RAISED_AGAIN.search(about.code):
        return [name for name in said if not _has_word(about.code, name)]
    return [name for name in said if not _is_raised(about.code, name)]


def _is_raised(code: str, name: str) -> bool:
    """Whether a name is on a line that raises, on the line below one, or in the signature."""
    lines = code.splitlines()
    return any(
        _has_word(line, name) and any(_RAISED.search(near) for near in lines[max(0, place - 1) : place + 1])
        for place, line in enumerate(lines)
    )


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _wrong_result(sentence: str, about: Described) -> str | None:
    if about.kind not in {"function", "method"}:
        return None
    if _RETURNS.search(sentence) and returns_nothing(about):
        return "of what returns nothing"
    if (said := _RETURNS_BOOLEAN.search(sentence)) and not _may_return(about.code or "", said[1]):
        return f"never {said[1]}"
    result = (about.result or "").removeprefix("->").removeprefix(":").strip()
    if about.language in {"python", "typescript", "tsx"} and result and not (about.code and "bool" in about.code):
        if _RETURNS_BOOLEAN.search(sentence) and _NO_BOOLEAN.match(result):
            return f"no truth value but {result}"
        if about.language == "python" and _RETURNS_NONE.search(sentence) and _NO_NONE.match(result):
            return f"never None but {result}"
    return None


def _may_return(code: str, truth: str) -> bool:
    """Whether a function may return a truth value: not if all that it returns is the other one, literally."""
    booleans = {found.lower() for found in _BOOLEANS.findall(code)}
    return truth.lower() in booleans or not booleans or len(_BOOLEANS.findall(code)) < len(_RETURN.findall(code))


def returns_nothing(about: Described) -> bool:
    """Whether a function surely returns nothing: by its declared result, else by its code."""
    result = about.result
    if result is None:
        return False
    if about.language in _VOID_BEFORE:
        return (
            re.search(rf"(?<!\w)void\s+(?:[\w:~<>]+\s*[.:]+\s*)?{re.escape(about.name)}\s*\(", about.signature)
            is not None
        )
    declared = _DECLARED_NOTHING.get(about.language)
    if declared is not None and re.match(declared, result):
        return True
    if result or about.code is None:
        return False
    if about.language == "python":
        return not _PYTHON_RESULT.search(_without_signature(about))
    return about.language == "javascript" and not _JAVASCRIPT_RESULT.search(about.code)


def _without_signature(about: Described) -> str:
    """The code behind the line that ends the signature."""
    _, _, body = (about.code or "").partition("):")
    return body


_DECLARED_NOTHING = {  # the result of a signature, as `Described` cuts it out
    "python": r"->\s*None$",
    "typescript": r":?\s*(?:void|Promise<void>)$",
    "tsx": r":?\s*(?:void|Promise<void>)$",
    "go": r"$",
    "rust": r"$|->\s*\(\)$|where\b",
    "kotlin": r":?\s*Unit$",
    "scala": r":?\s*Unit$",
    "php": r":?\s*void$",
    "swift": r"$|(?:async|throws|async\s+throws)$|->\s*Void$",
}
