"""The author's first sentence of a symbol, put into the form that answers have.

One plain sentence in the third person ("Returns ..."), 4 to 40 words, without the markup of any language's docs, with
names of the code in backticks; None when the author's text is no good as an answer.  Knows text alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from rotary_batch.sentences import split_sentences

MIN_WORDS, MAX_WORDS, MAX_CHARACTERS = 4, 40, 240
LEAST_SUPPORT = 0.4


def _words(name: str) -> frozenset[str]:
    return frozenset((Path(__file__).parent / "words" / f"{name}.txt").read_text().split())


_IMPERATIVES = _words("verbs")
_NOUN_AFTER = {
    "of",
    "value",
    "values",
    "type",
    "types",
    "is",
    "are",
    "that",
    "which",
    "for",
    "name",
    "case",
    "-",
    "used",
}
_BAD = re.compile(
    r"(?:See|TODO|FIXME|XXX|HACK|Deprecated|Copied|Alias|Same as|Note|Copyright|Usage|Args|Arguments|Parameters"
    r"|Returns?:|Examples?|Internal|Private|Overrid(?:es?|den)|Inherit|Helper\b|Default constructor|Constructor\.?$"
    r"|Getter|Setter|Licensed|License|Author|Warning|WARNING|NOTE|IMPORTANT|Backwards?|Legacy|Stub|Dummy|Placeholder"
    r"|Auto-?generated|This (?:is|file|test)|Test (?:that|for|if|case)|Tests\b|Not\b|No\b|If\b|When\b|For\b|In\b"
    r"|On\b|To\b|M(?:UST|ust)|S(?:HOULD|hould)|May|It |You |By default|Since|There)\b|[^`]{0,18}:\s"
)
_PERSONAL = re.compile(
    r"\b(?:I|we|We|our|you should|we'll|I'm|let's|FIXME|TODO|issue|http|www|see)\b|#\d+|\?$|\.\.\.|>>>|[{}|\\^]|@\w+\{"
)
_TAG_LINE = re.compile(
    r"^\s*(?:[@\\](?!(?:brief|short|description|desc|summary|details|classdesc|class\b|li|c\b|p\b|a\b|e\b|ref|code|link))\w+"
    r"|:\w+[^:]*:|(?:Args?|Arguments|Parameters?|Params|Returns?|Raises|Yields|Examples?|Notes?|See Also|Attributes"
    r"|Usage|Throws|Keyword Args|Options|Safety|Panics|Errors|Warning)\s*:?\s*$|#{1,6}\s|[-=~*]{3,}\s*$|```"
    r"|\.\. \w+|>>>|\*\s|- |\d+[.)]\s)"
)
_FILLER = re.compile(
    r"^(?:(?:This|The|A|An)\s+)?(?:(?:utility|helper|convenience|simple|static|public|private|abstract|virtual|inline|internal|"
    r"small|generic|overloaded|async|factory|callback|Python|Java|JavaScript)\s+)*"
    r"(?:function|method|class|interface|struct|structure|routine|procedure|macro|type|trait|module|property|enum|object|"
    r"constructor|decorator|hook|component|wrapper function|module|package|file|library|crate|script|header"
    r"|Package \w+)\s+"
    r"(?:(?:that|which)\s+)?(?:(?:is|are|can be|may be|should be)\s+(?:used|responsible|called)\s+(?:to|for)\s+"
    r"|(?:(?:used|called|invoked|meant|intended)\s+)?to\s+|for\s+|will\s+)?(?=\w)",
    re.IGNORECASE,
)


def first_sentence(docs: str | None, name: str, *, is_callable: bool) -> str | None:
    """The sentence of an author's docs as an answer has it, or None."""
    paragraph = _plain(_first_paragraph(docs or ""))
    if not paragraph:
        return None
    sentence = split_sentences(paragraph)[0].strip()
    if len(sentence) < len(paragraph) and sentence.endswith(":"):
        return None
    sentence = _without_name(_without_filler(sentence), name)
    sentence = re.sub(r"\s+", " ", sentence).strip(" -:;,")
    if not sentence:
        return None
    if _BAD.match(sentence):
        return None
    if not re.match(r"\w*(?:[_(.]|[a-z][A-Z])", sentence):  # a name stays as it is
        sentence = sentence[0].upper() + sentence[1:]
    if is_callable and name and re.match(rf"`?{re.escape(name)}\b", sentence):
        return None
    sentence = third_person(sentence, is_callable=is_callable)
    sentence = sentence if sentence[-1] in ".!" else sentence + "."
    return sentence if _is_good(sentence) else None


def _first_paragraph(docs: str) -> str:
    lines: list[str] = []
    for whole in docs.strip().splitlines():
        line = re.sub(r"^\s*[@\\](?:brief|short|description|desc|summary|classdesc)\b:?\s*", "", whole)
        if not line.strip():
            if lines:
                break
            continue
        if _TAG_LINE.match(line) and not (not lines and line.lstrip().startswith(("*", "-"))):
            break
        lines.append(line.strip())
    text = " ".join(lines)
    return re.split(
        r"\s[@\\](?:param|returns?|throws|see|since|type|deprecated)\b|<p\s*/?>|<br\s*/?>|<ul>|<pre>", text, maxsplit=1
    )[0]


def _plain(text: str) -> str:
    """Without markup: reST roles, JSDoc and Javadoc inline tags, HTML, Markdown links, RDoc, Doxygen words."""
    text = re.sub(
        r":[\w:+-]+:`[~!]?([^`<]*?)(?: ?<[^`]*>)?`",
        lambda m: f"`{m[1].rsplit('.', 1)[-1] if m[0].count('~') else m[1]}`",
        text,
    )
    text = re.sub(
        r"\{@(?:link|linkplain|code|literal|value|inheritDoc|type)\s*([^}|]*?)\s*(?:\|[^}]*)?\}", _inline_tag, text
    )
    text = re.sub(r"<see\s+\w+=\"(?:\w:)?([^\"]+)\"\s*/?>(?:</see>)?", r"`\1`", text)
    text = re.sub(r"<(?:code|tt|i|em|c)>([^<]*)</(?:code|tt|i|em|c)>", r"`\1`", text)
    text = re.sub(r"</?[A-Za-z][^<>]{0,80}>", "", text)
    text = (
        text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
        .replace("&nbsp;", " ")
        .replace("&quot;", '"')
    )
    text = re.sub(r"\[([^\[\]]{1,120})\]\([^()]{0,300}\)", r"\1", text)
    text = re.sub(r"\[([^\[\]]{1,120})\]\[[^\[\]]{0,120}\]", r"\1", text)
    text = re.sub(r"\[(`[^`\]]+`)\]", r"\1", text)
    text = re.sub(r"(?<![\w\])])\[([A-Z][\w.:#]+|[\w.:]+\(\))\]", r"`\1`", text)
    text = re.sub(r"[\\@][capae]\s+([\w.:()]+)", r"`\1`", text)
    text = re.sub(r"[\\@](?:ref|link)\s+(\w+)", r"`\1`", text)
    text = re.sub(r"(?<![\w+])\+(\w[\w.:]*)\+(?![\w+])", r"`\1`", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"\1", text)
    text = re.sub(r"(?<![\w*])\*(\w[\w ]*)\*(?![\w*])", r"\1", text)
    text = text.replace("``", "`").replace("`_", "`").replace("``", "`")
    text = re.sub(r"\(\s*\)(?!`)", "()", text).replace("\u2019", "'").replace("\u2013", "-").replace("\u2014", "-")
    text = (
        text.replace("\u201c", '"').replace("\u201d", '"').replace("#", ".")
        if "`" in text
        else text.replace("\u201c", '"').replace("\u201d", '"')
    )
    return " ".join(text.split())


def _inline_tag(match: re.Match[str]) -> str:
    words = match[1].split()
    if not words:
        return ""
    if match[0].startswith(("{@code", "{@literal")):
        return f"`{match[1]}`"
    return f"`{words[0].lstrip('#').replace('#', '.')}`" if len(words) == 1 else " ".join(words[1:])


def _without_filler(sentence: str) -> str:
    """ "This function returns" says no more than "Returns"."""
    found = _FILLER.match(sentence)
    if found and found.end() < len(sentence):
        rest = sentence[found.end() :]
        first = rest.split(" ", 1)[0].lower().rstrip(",")
        if first in _IMPERATIVES or _is_third(first):
            return inflected(rest) if first in _IMPERATIVES and " " not in rest else _begun(rest, first)
        if verb := _of_gerund(first):
            return inflected(verb).capitalize() + rest[len(first) :]
    return sentence


def _begun(rest: str, first: str) -> str:
    return (inflected(first) if first in _IMPERATIVES else first).capitalize() + rest[len(first) :]


def _of_gerund(word: str) -> str | None:
    """ "converting" -> "convert"."""
    stem = word[:-3] if word.endswith("ing") and len(word) > 5 else ""
    doubled = stem[:-1] if stem[-2:-1] == stem[-1:] else ""
    return next((one for one in (stem, f"{stem}e", doubled) if one in _IMPERATIVES), None)


def _is_third(word: str) -> bool:
    return any(stem in _IMPERATIVES for stem in _stems(word))


def _stems(word: str) -> list[str]:
    if word.endswith("ies"):
        return [word[:-3] + "y"]
    return [word[:-1], word[:-2]] if word.endswith("es") else [word[:-1]] if word.endswith("s") else []


def _without_name(sentence: str, name: str) -> str:
    """Go's docs begin with the name: "Foo returns" and "Foo is a"."""
    found = re.match(
        rf"(?:The\s+)?[`'\"*]?(?:[\w.]*[.:])?{re.escape(name)}(?:\(\))?[`'\"]?\s+(?:(?:function|method|class|type|struct)\s+)?",
        sentence,
    )
    if not found or not name:
        return sentence
    rest = sentence[found.end() :]
    if article := re.match(r"(?:is|are|represents?|describes?)\s+(?=(?:an?|the|used|one)\s)", rest):
        after = rest[article.end() :]
        return after if rest.startswith(("is", "are")) and not after.startswith(("used", "one")) else rest
    first = rest.split(" ", 1)[0].lower()
    return rest if _is_third(first) or re.fullmatch(r"[a-z]{3,}[a-rt-z]s", first) else sentence


_DETERMINERS = {"the", "a", "an", "this", "all", "each", "any", "its", "every", "whether"}
_NO_VERBS = _words("no_verbs")  # that a sentence may begin with


def third_person(sentence: str, *, is_callable: bool = True) -> str:
    """ "Return the name" -> "Returns the name"; the second verb of "Parse and return" too."""
    words = sentence.split(" ")
    if words[0].endswith("ly") and len(words) > 2 and words[1] in _IMPERATIVES:  # "Recursively merge"
        return " ".join([words[0], inflected(words[1]), *words[2:]])
    first = words[0].lower().rstrip(",")
    if len(words) < 2 or words[1].lower() in _NOUN_AFTER:
        return sentence
    is_verb = re.fullmatch(r"[A-Z][a-z]+", words[0]) and words[1] in _DETERMINERS and first not in _NO_VERBS
    is_verb = is_verb and not (first.endswith(("s", "ed", "ing", "ly")) and not first.endswith("ss"))
    if not is_verb and not (is_callable and first in _IMPERATIVES):
        return sentence
    words[0] = inflected(words[0])
    for place in range(1, min(13, len(words) - 1)):
        is_joined = words[place] in {"and", "or"} and words[place + 1].rstrip(",") in _IMPERATIVES
        if is_joined and words[place + 2 : place + 3] and _is_verb_here(words, place + 1):
            words[place + 1] = inflected(words[place + 1])
    return " ".join(words)


def _is_verb_here(words: list[str], place: int) -> bool:
    """Whether a word behind "and" is a verb: an article or a pronoun follows it, or it is `return`."""
    return words[place] == "return" or words[place + 1] in {
        "the",
        "a",
        "an",
        "it",
        "its",
        "them",
        "this",
        "that",
        "all",
        "any",
        "each",
    }


def inflected(verb: str) -> str:
    """The third person of a verb, a comma behind it kept."""
    comma = "," if verb.endswith(",") else ""
    stem = verb.rstrip(",")
    if stem.lower() in {"go", "do"} or stem.endswith(("s", "sh", "ch", "x", "z", "ss")):
        return f"{stem}es{comma}"
    if stem.endswith("y") and stem[-2:-1] not in "aeiou":
        return f"{stem[:-1]}ies{comma}"
    return f"{stem}s{comma}"


def _is_good(sentence: str) -> bool:
    if not sentence.isascii() or len(sentence) > MAX_CHARACTERS or sentence.count("`") % 2:
        return False
    words = sentence.split()
    if not MIN_WORDS <= len(words) <= MAX_WORDS or not (sentence[0].isupper() or sentence[0] == "`"):
        return False
    if sentence.endswith(("e.g.", "i.e.", "etc..", "vs.", ":.", ",.", "(.", " a.", " the.", " of.", " to.")):
        return False
    if sentence.count("(") != sentence.count(")") or _BAD.match(sentence) or _PERSONAL.search(sentence):
        return False
    letters = sum(character.isalpha() or character == " " for character in sentence)
    return letters > 0.8 * len(sentence)


_CODE_WORD = re.compile(
    r"(?<![`\w.'\"/<-])(?:[a-z]\w*_\w+|_\w+|[a-z]+[A-Z]\w*|[A-Z]\w*[a-z][A-Z]\w*|[A-Z][A-Z0-9]*_\w+|\w+(?:\.\w+)*\(\)|[A-Za-z_]\w*(?:::\w+)+)(?![`\w'\"/>-])"
)
_QUOTED = re.compile(r"(?<![\w`])(?:'([A-Za-z_]\w*)'|\"([A-Za-z_]\w*)\")(?![\w`])")


def with_ticks(sentence: str, known: frozenset[str]) -> str:
    """Names of the code between backticks."""

    def tick(found: re.Match[str]) -> str:
        word = found[0]
        return (
            f"`{word.removesuffix('()')}`"
            if word.removesuffix("()").rsplit(".", 1)[-1].rsplit("::", 1)[-1] in known
            else word
        )

    parts = sentence.split("`")
    for place in range(0, len(parts), 2):
        quoted = _QUOTED.sub(lambda m: f"`{m[1] or m[2]}`" if (m[1] or m[2]) in known else m[0], parts[place])
        inner = quoted.split("`")
        inner[::2] = [_CODE_WORD.sub(tick, piece) for piece in inner[::2]]
        parts[place] = "`".join(inner)
    text = "`".join(parts)
    return re.sub(r"`([\w.:]+)\(\)`", r"`\1`", text)


def names_in(sentence: str) -> list[str]:
    """What stands between backticks, each name's parts apart."""
    return [part for quoted in sentence.split("`")[1::2] for part in re.findall(r"[A-Za-z_]\w*", quoted)]


_STOP_WORDS = _words("stop_words")


def support(sentence: str, text: str) -> float:
    """The share of a sentence's content words whose first letters stand in a text of small letters."""
    words = [word for word in re.findall(r"[a-z]{3,}", sentence.lower()) if word not in _STOP_WORDS]
    return sum(word[: max(4, len(word) - 3)] in text for word in words) / len(words) if words else 0.0


def is_borne_out(sentence: str, prompt: str) -> bool:
    """Whether a prompt has all names and numbers of a sentence, and enough of its words."""
    words, small = frozenset(re.findall(r"[A-Za-z_]\w*", prompt)), prompt.lower()
    if any(name not in words for name in names_in(sentence)):
        return False
    has_numbers = all(number in small for number in re.findall(r"\d{2,}", sentence))
    return has_numbers and support(sentence, small) >= LEAST_SUPPORT


def is_in(sentence: str, prompt: str) -> bool:
    """Whether a prompt still says what is asked."""
    return _bare(sentence)[:50] in _bare(prompt)


def _bare(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", text.lower())
