"""Secrets in sources: passwords, keys, tokens.  They are removed before anything else reads the file.

What counts as one is what detect-secrets (Apache-2.0) knows: the formats of tokens, and values next to words such as
`password`, here only those that look random.  Nothing is verified over a network.  Most files have none of the words
that a secret is next to; for those nothing is imported and one pass over the bytes is all.

A secret is replaced by as many bytes, so that every symbol and every line stays at its place.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import NamedTuple

PLACEHOLDER = b"SECRET_REMOVED"  # a plain word in every language
MAX_LINE_NBYTES = 600  # looked at around a word; longer lines are minified code or data
_LEAST_ENTROPY = 3.0  # bits a character, of a value next to a word: "correcthorse" has 3.0, "hunter2hunter" 2.6
_FORMATS = (  # words, in lower case, that a token of a known format has in it or next to it
    b"akia asia abia acca a3t aws accountkey= ghp_ gho_ ghu_ ghs_ ghr_ glpat- gldt- glft- glsoat- glrt- glptt- glcbt- "
    b"glimt- glagent- gloas- _authtoken t3blbkfj pypi-age sg. xox hooks.slack.com sq0csp k_live_ eyj -us"
).split()
_WORDS = (
    b"password passwd pwd secret api_key apikey api-key auth_key private_key client_key access_key service_key "
    b"account_key encryption_key token credential"
).split()
_USER = re.compile(rb"://[^\s/:@\"'`<>]{1,60}:[^\s/:@\"'`<>]{1,200}@")
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----(.{1,20000}?)-----END ", re.DOTALL)
_KEY_LINE = re.compile(rb"[A-Za-z0-9+/=]{12,}")
_NO_SECRET = re.compile(
    r"(?i)example|sample|dummy|fake|placeholder|changeme|redacted|removed|your|<[^>]*>|\$[({\w]|\{\{|%\(|%[sd]|\{[\w.]*\}|x{4}|\*{3}|"
    r"\.{3}|1234|abcd|foo|bar\b|test|localhost|pass(?:word|wd)?$|secret$|token$|[\[\](){}]|\s"
)
_PUBLIC = re.compile(r"(?i)example|x{6}|\*{4}|\.{4}|0{10}|1234567890")


class Finding(NamedTuple):
    """A secret: where it is and of what kind, never its value."""

    line: int  # 1-based
    kind: str


class _Span(NamedTuple):
    start: int
    end: int
    kind: str


def without_secrets(source: bytes) -> tuple[bytes, tuple[Finding, ...]]:
    """The source with its secrets replaced by as many bytes, and what was found, by line."""
    spans = sorted({*_private_keys(source), *_in_lines(source)})
    if not spans:
        return source, ()
    parts, place, found = list[bytes](), 0, set[tuple[int, str]]()
    for span in spans:
        start = max(span.start, place)
        if start < span.end:
            parts += [source[place:start], _mask(span.end - start)]
            place = span.end
            found.add((source.count(b"\n", 0, start) + 1, span.kind))
    return b"".join([*parts, source[place:]]), tuple(Finding(*one) for one in sorted(_merged(found)))


def _merged(found: set[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Without the further lines of a private key."""
    keys = {line for line, kind in found if kind == PRIVATE_KEY}
    return ((line, kind) for line, kind in found if kind != PRIVATE_KEY or line - 1 not in keys)


PRIVATE_KEY = "Private Key"


def _mask(nbytes: int) -> bytes:
    return PLACEHOLDER[:nbytes].ljust(nbytes, b"_")


def _is_mask(value: str) -> bool:
    return PLACEHOLDER.decode().startswith(value.rstrip("_"))


def _private_keys(source: bytes) -> Iterator[_Span]:
    """The lines between the marks of a private key."""
    if b"PRIVATE KEY" in source:
        for found in _PRIVATE_KEY.finditer(source):
            for line in _KEY_LINE.finditer(source, *found.span(1)):
                if not _is_mask(line.group().decode()):
                    yield _Span(*line.span(), PRIVATE_KEY)


def _in_lines(source: bytes) -> Iterator[_Span]:
    """Secrets on the lines that have a word of theirs."""
    lower = source.lower()
    known = {place for word in _FORMATS if word in lower for place in _places(lower, word)}
    named = {place for word in _WORDS if word in lower for place in _places(lower, word)}
    users = {found.start() for found in _USER.finditer(source)} if b"://" in source else set[int]()
    for start, end in sorted({_line_around(source, place) for place in known | named | users}):
        line = source[start:end].decode("latin-1")  # one character a byte
        for detect in _detectors():
            for span in detect(line):
                yield _Span(start + span.start, start + span.end, span.kind)


def _places(text: bytes, word: bytes) -> Iterator[int]:
    """One place of a word for each line that has it, or for each stretch of a long line."""
    place = text.find(word)
    while place >= 0:
        yield place
        end = text.find(b"\n", place)
        following = min(end if end >= 0 else len(text), place + MAX_LINE_NBYTES // 2)
        place = text.find(word, following)


def _line_around(source: bytes, place: int) -> tuple[int, int]:
    start = max(source.rfind(b"\n", 0, place) + 1, place - MAX_LINE_NBYTES // 2)
    end = source.find(b"\n", place, place + MAX_LINE_NBYTES)
    return start, end if end >= 0 else min(len(source), place + MAX_LINE_NBYTES)


Detect = Callable[[str], Iterator[_Span]]


@contextmanager
def _without_network() -> Iterator[None]:
    """In this block `requests` is an empty module.

    The library imports it to verify tokens, which is never done here, and importing it binds a socket.
    """
    is_there = "requests" in sys.modules
    if not is_there:
        sys.modules["requests"] = ModuleType("requests")
    try:
        yield
    finally:
        if not is_there:
            del sys.modules["requests"]


@cache
def _detectors() -> tuple[Detect, ...]:
    """The formats that the library knows, and values next to words.  Imported late: few files need it."""
    with _without_network():
        return _imported()


def _imported() -> tuple[Detect, ...]:
    from detect_secrets.filters.heuristic import is_potential_uuid, is_sequential_string
    from detect_secrets.plugins import (
        aws,
        azure_storage_key,
        basic_auth,
        discord,
        github_token,
        gitlab_token,
        jwt,
        mailchimp,
        npm,
        openai,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
    )

    classes = (
        aws.AWSKeyDetector,
        azure_storage_key.AzureStorageKeyDetector,
        basic_auth.BasicAuthDetector,
        discord.DiscordBotTokenDetector,
        github_token.GitHubTokenDetector,
        gitlab_token.GitLabTokenDetector,
        jwt.JwtTokenDetector,
        mailchimp.MailchimpDetector,
        npm.NpmDetector,
        openai.OpenAIDetector,
        pypi_token.PypiTokenDetector,
        sendgrid.SendGridDetector,
        slack.SlackDetector,
        square_oauth.SquareOAuthDetector,
        stripe.StripeDetector,
    )

    def is_an_id(text: str) -> bool:
        return is_potential_uuid(text) or is_sequential_string(text)

    return (*(_detector(one) for one in classes), partial(_beside_words, is_an_id))


_GROUP = {"AWS Access Key": 1, "Basic Auth Credentials": 1, "NPM tokens": 1}  # of the pattern, which has the value


def _detector(plugin: type) -> Detect:
    """Use the patterns of a plugin: its own method loses the places, and of some tokens all but a prefix."""
    one = plugin()
    kind: str = one.secret_type
    is_valid: Callable[[str], bool] = getattr(one, "is_formally_valid", lambda _: True)

    def detect(line: str) -> Iterator[_Span]:
        for pattern in one.denylist:
            for found in pattern.finditer(line):
                start, end = found.span(_GROUP.get(kind, 0) if pattern.groups else 0)
                value = line[start:end]
                is_public = _NO_SECRET if kind == "Basic Auth Credentials" else _PUBLIC
                if not (is_public.search(value) or _is_mask(value)) and is_valid(value):
                    yield _Span(start, end, kind)

    return detect


def _beside_words(is_an_id: Callable[[str], bool], line: str) -> Iterator[_Span]:
    """Quoted values next to a word such as `password`, if they look random."""
    for found in _NAMED_VALUE.finditer(line):
        text = found[2]
        if _looks_random(text) and not is_an_id(text):
            yield _Span(*found.span(2), "Secret Keyword")


# A name that has the word in it, what may follow a name, an assignment, a quoted value.
_NAMED_VALUE = re.compile(
    r"(?i)(?:passw|pwd|secret|api_?-?key|(?:auth|private|client|access|service|account|encryption)_?key|token(?!iz)|credential)"
    r"[\w-]{0,40}[\"'\])?]{0,3}(?:\s*:\s*[\w<>|&\[\] .?]{1,40})?\s*(?:=>|:=|={1,3}|!=|:|\()\s*[@rbuf&$]{0,2}([\"'`])"
    r"([^\"'`\n]{8,200})\1"
)


def _looks_random(text: str) -> bool:
    """Letters and digits mixed, of many kinds, in no template."""
    has_both = re.search(r"\d", text) is not None and re.search(r"[A-Za-z]", text) is not None
    return (
        has_both and _NO_SECRET.search(text) is None and not _WORDY.fullmatch(text) and _entropy(text) >= _LEAST_ENTROPY
    )


# Words with a number, paths, names of versions and algorithms: `user_token_2`, `v1/token`, `text/x-key`, `AES-256`.
_WORDY = re.compile(r"[A-Za-z]+(?:[-_./:+ ]?[A-Za-z]+)*(?:[-_./:+ ]?\d{1,4}[A-Za-z]?)?(?:[-_./:+ ][A-Za-z]*\d{0,3})*")


def _entropy(text: str) -> float:
    """Bits a character (Shannon)."""
    shares = [number / len(text) for number in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)
