"""Validation of what a model wrote, without another model: its confidence, then each sentence versus the code.

A reason is a kind, a colon, and what was found; reports count the kinds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from rotary_batch.core import Reason, ValidationResult, Verdict
from rotary_batch.pages.faithful.claims import false_claims
from rotary_batch.pages.faithful.described import Described
from rotary_batch.pages.faithful.literals import (
    unknown_addresses,
    unknown_commands,
    unknown_numbers,
    unknown_quotations,
)
from rotary_batch.pages.faithful.names import unknown_names
from rotary_batch.pages.faithful.obedient import not_a_description
from rotary_batch.pages.faithful.openings import cut_opening
from rotary_batch.pages.faithful.restated import only_says_the_name
from rotary_batch.pages.faithful.topical import names_nothing
from rotary_batch.sentences import is_whole, split_sentences

# Bump when another answer may be shown: verdicts of stored answers are then given anew at the next index.
CHECK_VERSION = 3
_WORD = re.compile(r"[A-Za-z_]\w*")
# What no sentence ends with: "The total of the items is", "Takes one of:".
_GOES_ON = re.compile(
    r"(?:\b(?:is|are|was|were|the|an?|of|and|or|to|for|with|that|which|from|as|if|when|its?|be)|[:,;(=-])$"
)
_LITTLE_WORDS = {"from", "given", "into", "that", "this", "when", "with"}
_CODE_SPAN = re.compile(r"`[^`]*`?")
_OTHER_SUBJECT = re.compile(r"The `([^`]+)`\s+(?:\w+\s+){0,2}(?:is|are|was|can|will|has)\b")
MIN_DETAIL_WORDS = 4  # in a sentence on a parameter, with the one or two that begin it, without names in backticks
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
    about: Described | None = None,
) -> ValidationResult:
    """Keep the sentences that the code bears out; drop the last sentence of an answer that was cut before its end.

    `is_known` is asked for single identifiers and for paths; `source` is the prompt, whose names exist too.  `about` is
    what the answer is about, if that has a name.
    `min_mean_logprob` is set for a model that is too small to be trusted without it.  It also rejects an answer
    that ended in a loop, which raises the mean, and one with a sentence that says a word twice ("Update the screen of
    the console screen").
    """
    own = () if about is None else (about.name, about.qualified_name)
    clean = cut_opening(" ".join(text.split()), frozenset(own))
    if not re.search(r"[A-Za-z]{3}", clean):
        return _rejected(Verdict.EMPTY, "no words")
    if reason := _reason_for_doubt(clean, mean_logprob, min_mean_logprob, ended):
        return _rejected(Verdict.LOW_CONFIDENCE, reason)
    if what := not_a_description(text):
        return _rejected(Verdict.UNFAITHFUL, f"no description: {what}")
    sentences = _ended_sentences(clean, ended)
    if not sentences:
        return _rejected(Verdict.LOW_CONFIDENCE, "no sentence has an end")
    return _kept(sentences, [list(_faults(one, is_known, source, about)) for one in sentences])


def _kept(sentences: Sequence[str], faults: Sequence[Sequence[str]]) -> ValidationResult:
    """What is left of the sentences of an answer without those that have faults."""
    kept = [sentence for sentence, found in zip(sentences, faults, strict=True) if not found]
    reasons = tuple(dict.fromkeys(fault for found in faults for fault in found))
    says_nothing = all(fault.startswith(SAYS_THE_NAME) for fault in reasons)
    return ValidationResult(
        verdict=Verdict.SHOWN if kept else Verdict.EMPTY if says_nothing else Verdict.UNFAITHFUL,
        shown_text=" ".join(kept) or None,
        reasons=reasons,
        num_sentences=len(sentences),
        num_kept=len(kept),
    )


SAYS_THE_NAME = "only says the name"


def _faults(sentence: str, is_known: Callable[[str], bool], source: str, about: Described | None) -> Iterator[str]:
    """Why a sentence is not shown."""
    yield from (f"unknown name: {name}" for name in unknown_names(sentence, is_known, source))
    yield from (f"unknown address: {one}" for one in unknown_addresses(sentence, source))
    yield from (f"unknown number: {number}" for number in unknown_numbers(sentence, source))
    yield from (f"unknown quotation: {text}" for text in unknown_quotations(sentence, source))
    if about is not None and about.topic:
        yield from (f"unknown command: {command}" for command in unknown_commands(sentence, source))
        if names_nothing(sentence, about.topic, source):
            yield f"not on its topic: {about.topic}"
    if about is not None:
        yield from false_claims(sentence, about)
        name = about.detail or about.qualified_name
        if about.detail and (other := _OTHER_SUBJECT.match(sentence)) and other[1] != about.detail:
            yield f"about another thing: {other[1]}"
        if about.detail and len(_WORD.findall(_CODE_SPAN.sub("", sentence))) < MIN_DETAIL_WORDS:
            yield f"no sentence: {sentence}"
        if only_says_the_name(sentence, name):
            yield f"{SAYS_THE_NAME}: {name}"


def _rejected(verdict: Verdict, *reasons: str) -> ValidationResult:
    return ValidationResult(verdict=verdict, shown_text=None, reasons=reasons)


def _reason_for_doubt(text: str, mean_logprob: float, min_mean_logprob: float | None, ended: Reason) -> str | None:
    if min_mean_logprob is not None and mean_logprob < min_mean_logprob:
        return f"mean log-probability: {mean_logprob:.2f}"
    if _loops(text) or (min_mean_logprob is not None and ended == "loop"):
        return "repeats itself"
    if min_mean_logprob is not None and (word := _repeated_word(text)):
        return f"says a word twice: {word}"
    return None


def _ended_sentences(text: str, ended: Reason) -> list[str]:
    """All sentences, without the last one when it was cut, or breaks off in the middle."""
    sentences = split_sentences(text)
    is_cut = ended in {"length", "loop"} or text.count("(") > text.count(")") or _GOES_ON.search(text) is not None
    return sentences[:-1] if is_cut and not is_whole(text) else sentences


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
