"""Make text safe to stand in Markdown: nothing that a repository or a model wrote can act on a page.

Knows characters; knows nothing of where the text came from.
"""

from __future__ import annotations

import re
import unicodedata

_ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?", re.DOTALL)
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~$])")
_CODE_SPAN = re.compile(r"(?<!`)(`{1,2})([^`\n]+)\1(?!`)")  # of Markdown, and of reStructuredText with two
_LINK = re.compile(r"\b([a-z][a-z0-9+.-]{1,9})://|\bwww\.", re.IGNORECASE)


def plain(text: str) -> str:
    """Without terminal escapes, control, bidirectional and zero-width characters; line ends are \\n."""
    text = _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = text.encode("utf-8", "replace").decode()
    kept = (c for c in text if c in "\n\t" or unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
    return "".join(kept)


def inline(text: str) -> str:
    """One line of Markdown that shows the text; `code spans` are kept, everything else is literal."""
    folded = " ".join(plain(text).split())
    parts, start = [], 0
    for span in _CODE_SPAN.finditer(folded):
        parts += [_literal(folded[start : span.start()]), code(span[2])]
        start = span.end()
    return "".join([*parts, _literal(folded[start:])])


def _literal(text: str) -> str:
    escaped = _SPECIAL.sub(r"\\\1", text.replace("&", "&amp;")).replace("\\<", "&lt;").replace("\\>", "&gt;")
    escaped = _LINK.sub(lambda match: match.group().replace(":", "&#58;").replace("www.", "www&#46;"), escaped)
    return re.sub(r"^(\d+)([.)]\s)", r"\1\\\2", re.sub(r"^([-+=]\s?)", r"\\\1", escaped))


def code(text: str) -> str:
    """An inline code span; safe in a table cell."""
    folded = " ".join(plain(text).split()).replace("|", "\\|")
    marks = "`" * (max((len(run) for run in re.findall(r"`+", folded)), default=0) + 1)
    pad = " " if folded.startswith("`") or folded.endswith("`") else ""
    return f"{marks}{pad}{folded}{pad}{marks}" if folded else ""


def fenced(text: str, language: str = "text") -> str:
    """A fenced block that the text cannot end."""
    clean = plain(text).strip("\n")
    marks = "`" * max(3, max((len(run) for run in re.findall(r"`+", clean)), default=0) + 1)
    return f"{marks}{language}\n{clean}\n{marks}"
