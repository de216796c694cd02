"""Whether a file says of itself that a program wrote it."""

from __future__ import annotations

import re

HEAD_NBYTES = 4000  # generators write their mark there
_NEAR_LINES = 2  # "generated" and "do not edit" are at most this far apart
_NAME = re.compile(
    r"(_pb2(_grpc)?\.pyi?|\.pb\.(go|cc|h)|\.g\.dart|_generated\.\w+|\.designer\.cs)$|(^|/)(dist|build)/.*\.min\."
    r"|(^|/)((package-lock|npm-shrinkwrap)\.json|pnpm-lock\.yaml)$"
)
_COMMENT = re.compile(r"//+!?|#+!?|/\*+!?|\*+(?!/)|--+|;+|%+|<!--")
# Before the first line of code these may be; the lines of a preprocessor look like comments of other languages.
_NOT_YET_CODE = re.compile(r"""<\?php|<\?xml.*|package\s[\w.]+;?|["']use \w+["'];?|""")
# Each begins the line: a comment that speaks of such marks is none.
_MARK = re.compile(
    r"\W*(?:this (?:file|code|module) (?:is|was) )?@(?:partially-)?generated\b"
    r"|\W*code generated\b.{0,200}\bdo not edit|\W*do not (?:edit|modify)\b.{0,200}\bgenerated\b",
    re.IGNORECASE,
)
_GENERATED = re.compile(
    r"\W*(?:(?:this|the|note|warning|attention|file|code|source|header|module|is|was|has|been|machine|automatically|auto)\W+)"
    r"{0,7}(?:auto-?)?generated\b",
    re.IGNORECASE,
)
_DO_NOT_EDIT = re.compile(
    r"(?:^|[.!:;,(-]|\band|please)\W*do not (?:hand[- ]?)?(?:edit|modify|change)\b", re.IGNORECASE
)
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=", re.MULTILINE)


def generated_name(path: str) -> str | None:
    """Why the name of a file says that it is generated, or None."""
    return "its name is one that generators use" if _NAME.search(path) else None


def generated_mark(text: bytes) -> str | None:
    """The line of a comment before the first line of code that says that the file is generated, or None."""
    head = text[:HEAD_NBYTES].decode("utf-8", "replace")
    lines = _head_comments(head)
    for place, line in enumerate(lines):
        near = lines[max(0, place - _NEAR_LINES) : place + _NEAR_LINES + 1]
        if _MARK.match(line) or (_GENERATED.match(line) and any(map(_DO_NOT_EDIT.search, near))):
            return line
    return "//# sourceMappingURL=" if _SOURCE_MAP.search(head) else None


def _head_comments(head: str) -> list[str]:
    """The lines of comments before the first line of code, without their marks."""
    lines, is_open = [], False
    for line in map(str.strip, head.split("\n")):
        mark = _COMMENT.match(line)
        if not (mark or is_open or _NOT_YET_CODE.fullmatch(line)):
            break
        lines.append(line[mark.end() if mark else 0 :].removesuffix("*/").removesuffix("-->").strip())
        is_open = (is_open or line.startswith(("/*", "<!--"))) and not line.endswith(("*/", "-->"))
    return lines
