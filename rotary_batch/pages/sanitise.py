"""One function for each place in the docs that shows text of a repository or a model, which has no effect there.

    inline, code           Markdown: text, a code span
    fenced, indented       Markdown: a block of code, at the margin and within a list
    link                   the target of a Markdown link
    quoted                 a value in front matter or in the navigation, both YAML
    title                  a title in the navigation, which themes put into HTML as it is

Terminals have a function of their own in `terminal.py`, the log writes JSON.
"""

from __future__ import annotations

import json
import re
import unicodedata
from urllib.parse import quote, urlsplit

_ESCAPE_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?", re.DOTALL)
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~$])")
_CODE_SPAN = re.compile(r"(?<!`)(`{1,2})([^`\n]+)\1(?!`)")  # of Markdown, and of reStructuredText with two
_LINK = re.compile(r"\b([a-z][a-z0-9+.-]{1,9})://|\bwww\.", re.IGNORECASE)
_MAIL = re.compile(r"(?<=\w)@(?=\w)|\b(mailto|xmpp):", re.IGNORECASE)
_OPENING = re.compile(r"^(?:([-+=:])|(\d+)([.)](?:\s|$)))")  # lists, rulers, definitions, `:::` of mkdocstrings
_SNIPPET = re.compile(r"^([ \t]*)(;*-+8<-+)", re.MULTILINE)  # pymdownx.snippets puts files of the builder there
_NOT_PRINTABLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_LOOKALIKES = str.maketrans({"<": "‹", ">": "›", '"': "”", "'": "’", "`": "ˋ"})


def plain(text: str) -> str:
    """Without terminal escapes, control, bidirectional and zero-width characters; line ends are \\n."""
    text = _ESCAPE_SEQUENCE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    if text.isascii() and text.isprintable():
        return text
    text = text.encode("utf-8", "replace").decode()
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in _NOT_PRINTABLE)


def one_line(text: str, max_characters: int | None = None) -> str:
    """Plain text with its white space folded, cut between words."""
    # White space takes no more than it shows, so a small part of a huge text is enough.
    clean = " ".join(plain(text if max_characters is None else text[: 10 * max_characters]).split())
    if max_characters is None or len(clean) <= max_characters:
        return clean
    return clean[:max_characters].rsplit(" ", 1)[0].rstrip(" ,") + " …"


def inline(text: str) -> str:
    """One line of Markdown that shows the text: `code spans` are kept, everything else is literal."""
    folded = one_line(text)
    parts, start = [], 0
    for span in _CODE_SPAN.finditer(folded):
        parts += [_literal(folded[start : span.start()]), code(span[2])]
        start = span.end()
    parts.append(_literal(folded[start:]))
    return _OPENING.sub(_escaped_opening, "".join(parts))


def _literal(text: str) -> str:
    escaped = _SPECIAL.sub(r"\\\1", text.replace("&", "&amp;")).replace("\\<", "&lt;").replace("\\>", "&gt;")
    escaped = _LINK.sub(lambda match: match.group().replace(":", "&#58;").replace("www.", "www&#46;"), escaped)
    return _MAIL.sub(lambda match: match.group().replace("@", "&#64;").replace(":", "&#58;"), escaped)


def _escaped_opening(match: re.Match[str]) -> str:
    if match[1] == ":":
        return "&#58;"
    return f"\\{match[1]}" if match[1] else f"{match[2]}\\{match[3]}"


def code(text: str) -> str:
    """An inline code span; safe in a table cell, where a pipe ends it unless one backslash is before it."""
    folded = one_line(text).replace("\\|", "\\ |").replace("|", "\\|")
    if "`" not in folded:
        return f"`{folded}`" if folded else ""
    marks = "`" * (max(map(len, re.findall(r"`+", folded))) + 1)
    pad = " " if folded.startswith("`") or folded.endswith("`") else ""
    return f"{marks}{pad}{folded}{pad}{marks}"


def fenced(text: str, language: str = "text") -> str:
    """A fenced block that the text cannot end."""
    clean = _SNIPPET.sub(r"\1;\2", plain(text).strip("\n"))
    marks = "`" * max(3, max((len(run) for run in re.findall(r"`+", clean)), default=0) + 1)
    return f"{marks}{language}\n{clean}\n{marks}"


def indented(text: str) -> str:
    """A block of code within a list, where Python-Markdown knows no fences."""
    clean = _SNIPPET.sub(r"\1;\2", plain(text).strip("\n"))
    return "\n".join(f"    {line}" if line else "" for line in clean.split("\n"))


def link(target: str) -> str:
    """The target of a link: https, http or a path; anything else becomes `#`, the page itself.

    Percent escapes are kept.
    """
    safe = quote(plain(target), safe="/?#=&%:@+,;~-._", errors="replace")
    scheme, host = urlsplit(safe)[:2]
    is_path = not scheme and not host and ":" not in safe.split("/", 1)[0]
    if not is_path and not (scheme in {"https", "http"} and host):
        return "#"
    return safe.replace("&", "&amp;")  # Markdown reads entities here: `&#58;` would be a colon


def path_link(path: str) -> str:
    """The same for a path; its characters mean nothing but themselves."""
    return quote(path, safe="/-_.~", errors="replace")


def quoted(value: object) -> str:
    """JSON that is YAML too, on one line of printable characters; it round-trips."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(letter: str) -> str:
    """A JSON escape; YAML has no surrogate pairs, so an invisible letter beyond U+FFFF is replaced."""
    return f"\\u{ord(letter):04x}" if letter <= "\uffff" else "\\ufffd"


def title(text: str) -> str:
    """One line without the characters of HTML, which stay readable."""
    return one_line(text).translate(_LOOKALIKES)
