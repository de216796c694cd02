"""Whether what a model wrote may stand on a page: confidence, then names that must exist.  No judge needed.

Knows text and names; knows nothing of models or of pages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from rotary_batch.core import Reason, Verdict
from rotary_batch.sentences import is_whole, split_sentences

_CODE = re.compile(r"`([^`\n]+)`")
_IDENTIFIER = re.compile(
    r"\b(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*\b|\b\w*[a-z0-9]_\w+\b|\b_\w+\b|\b[a-z]+[A-Z]\w*\b|\b[A-Z][a-z0-9]+[A-Z]\w*\b"
    r"|\b[A-Za-z_]\w*(?=\(\))"
)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+|\bwww\.\S+", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_]\w*")
_ABBREVIATIONS = {"e.g", "i.e", "etc"}
_LITTLE_WORDS = {"from", "given", "into", "that", "this", "when", "with"}
LITTLE_LETTERS = 3  # words of so many letters may stand twice
LOOP_WORDS = 4  # a run of this many words that stands three times is a loop


class Judgement(NamedTuple):
    """What may be shown, and why the rest may not."""

    verdict: Verdict
    text: str | None
    reasons: tuple[str, ...]


def judge(
    text: str,
    *,
    mean_logprob: float,
    min_mean_logprob: float | None,
    ended: Reason,
    is_known: Callable[[str], bool],
    source: str,
) -> Judgement:
    """Keep the sentences whose names exist, and of an answer that was cut those that have an end.

    `is_known` answers for single identifiers and for paths.  `min_mean_logprob` is of a model that is too small to be
    trusted without one.  A loop raises its mean, so what looped has no confidence; neither has a sentence that says a
    word twice ("Update the screen of the console screen").
    """
    clean = " ".join(text.split())
    if not re.search(r"[A-Za-z]{3}", clean):
        return Judgement(Verdict.EMPTY, None, ("no words",))
    if min_mean_logprob is not None and mean_logprob < min_mean_logprob:
        return Judgement(Verdict.LOW_CONFIDENCE, None, (f"mean log-probability {mean_logprob:.2f}",))
    if _loops(clean) or (min_mean_logprob is not None and ended == "loop"):
        return Judgement(Verdict.LOW_CONFIDENCE, None, ("repeats itself",))
    if min_mean_logprob is not None and (word := _word_said_twice(clean)):
        return Judgement(Verdict.LOW_CONFIDENCE, None, (f"says {word} twice",))
    sentences = split_sentences(clean)
    is_cut = ended in {"length", "loop"} or clean.count("(") > clean.count(")")
    if is_cut and not is_whole(clean):
        sentences.pop()
    if not sentences:
        return Judgement(Verdict.LOW_CONFIDENCE, None, ("no sentence has an end",))
    kept, reasons = [], []
    for sentence in sentences:
        lies = unknown_names(sentence, is_known, source)
        reasons += lies
        kept += [] if lies else [sentence]
    if not kept:
        return Judgement(Verdict.UNFAITHFUL, None, tuple(reasons))
    return Judgement(Verdict.SHOWN, " ".join(kept), tuple(reasons))


def unknown_names(sentence: str, is_known: Callable[[str], bool], source: str) -> list[str]:
    """Names, paths and addresses in a sentence that neither the index nor the source has."""
    lies = [url for url in _URL.findall(sentence) if url.rstrip(".,;)") not in source]
    spans = _CODE.findall(sentence)
    rest = _CODE.sub(" ", _URL.sub(" ", sentence))
    names = [*spans, *(name for name in _IDENTIFIER.findall(rest) if name not in _ABBREVIATIONS)]
    return lies + [name for name in names if not _exists(name, is_known, source)]


def _exists(name: str, is_known: Callable[[str], bool], source: str) -> bool:
    if name in source or is_known(name.strip("/")):
        return True
    words = _WORD.findall(name)
    return bool(words) and all(is_known(word) or re.search(rf"\b{re.escape(word)}\b", source) for word in words)


def _loops(text: str) -> bool:
    words = text.lower().split()
    runs = [tuple(words[place : place + LOOP_WORDS]) for place in range(len(words) - LOOP_WORDS + 1)]
    return any(runs.count(run) >= 3 for run in set(runs))


def _word_said_twice(text: str) -> str | None:
    """The first word that a sentence says again; a plural is the same word."""
    for sentence in split_sentences(text):
        seen: set[str] = set()
        words: list[str] = _WORD.findall(sentence.lower())
        for word in (found.rstrip("s") for found in words):
            if word in seen:
                return word
            seen |= {word} if len(word) > LITTLE_LETTERS and word not in _LITTLE_WORDS else set()
    return None
