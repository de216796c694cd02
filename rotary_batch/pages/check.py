"""Validation of what a model wrote, without another model: its confidence, then names that must exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain

from rotary_batch.core import Reason, ValidationResult, Verdict
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
LITTLE_LETTERS = 3  # words of up to 3 letters may appear twice
LOOP_WORDS = 4  # a run of 4 words that appears three times is a loop


def validate(
    text: str,
    *,
    mean_logprob: float,
    min_mean_logprob: float | None,
    ended: Reason,
    is_known: Callable[[str], bool],
    source: str,
) -> ValidationResult:
    """Keep the sentences whose names exist; drop the last sentence of an answer that was cut before its end.

    `is_known` is asked for single identifiers and for paths; `source` is the prompt, whose names exist too.
    `min_mean_logprob` is set for a model that is too small to be trusted without it.  It also rejects an answer
    that ended in a loop, which raises the mean, and one with a sentence that says a word twice ("Update the screen of
    the console screen").
    """
    clean = " ".join(text.split())
    if not re.search(r"[A-Za-z]{3}", clean):
        return _rejected(Verdict.EMPTY, "no words")
    if reason := _reason_for_doubt(clean, mean_logprob, min_mean_logprob, ended):
        return _rejected(Verdict.LOW_CONFIDENCE, reason)
    sentences = _ended_sentences(clean, ended)
    if not sentences:
        return _rejected(Verdict.LOW_CONFIDENCE, "no sentence has an end")
    unknown = [unknown_names(sentence, is_known, source) for sentence in sentences]
    kept = [sentence for sentence, names in zip(sentences, unknown, strict=True) if not names]
    reasons = tuple(chain.from_iterable(unknown))
    if not kept:
        return _rejected(Verdict.UNFAITHFUL, *reasons)
    return ValidationResult(verdict=Verdict.SHOWN, shown_text=" ".join(kept), reasons=reasons)


def _rejected(verdict: Verdict, *reasons: str) -> ValidationResult:
    return ValidationResult(verdict=verdict, shown_text=None, reasons=reasons)


def _reason_for_doubt(text: str, mean_logprob: float, min_mean_logprob: float | None, ended: Reason) -> str | None:
    if min_mean_logprob is not None and mean_logprob < min_mean_logprob:
        return f"mean log-probability {mean_logprob:.2f}"
    if _loops(text) or (min_mean_logprob is not None and ended == "loop"):
        return "repeats itself"
    if min_mean_logprob is not None and (word := _repeated_word(text)):
        return f"says {word} twice"
    return None


def _ended_sentences(text: str, ended: Reason) -> list[str]:
    """All sentences, without the last one when it was cut."""
    sentences = split_sentences(text)
    is_cut = ended in {"length", "loop"} or text.count("(") > text.count(")")
    return sentences[:-1] if is_cut and not is_whole(text) else sentences


def unknown_names(sentence: str, is_known: Callable[[str], bool], source: str) -> list[str]:
    """Names, paths and URLs in a sentence that neither the index nor the source has."""
    unknown_urls = [url for url in _URL.findall(sentence) if url.rstrip(".,;)") not in source]
    spans = _CODE.findall(sentence)
    rest = _CODE.sub(" ", _URL.sub(" ", sentence))
    names = [*spans, *(name for name in _IDENTIFIER.findall(rest) if name not in _ABBREVIATIONS)]
    return unknown_urls + [name for name in names if not _exists(name, is_known, source)]


def _exists(name: str, is_known: Callable[[str], bool], source: str) -> bool:
    if name in source or is_known(name.strip("/")):
        return True
    words = _WORD.findall(name)
    return bool(words) and all(is_known(word) or re.search(rf"\b{re.escape(word)}\b", source) for word in words)


def _loops(text: str) -> bool:
    words = text.lower().split()
    runs = [tuple(words[place : place + LOOP_WORDS]) for place in range(len(words) - LOOP_WORDS + 1)]
    return any(runs.count(run) >= 3 for run in set(runs))


def _repeated_word(text: str) -> str | None:
    """The first word that appears twice in one sentence; a plural counts as the same word."""
    for sentence in split_sentences(text):
        seen: set[str] = set()
        words: list[str] = _WORD.findall(sentence.lower())
        for word in (written.rstrip("s") for written in words):
            if word in seen:
                return word
            seen |= {word} if len(word) > LITTLE_LETTERS and word not in _LITTLE_WORDS else set()
    return None
