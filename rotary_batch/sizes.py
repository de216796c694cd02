"""Sizes, durations and counts as people write them."""

from __future__ import annotations

_MB, _GB = 10**6, 10**9


def count(number: int, noun: str, nouns: str | None = None) -> str:
    """`1 page`, `2,000 pages`."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def size_text(nbytes: int) -> str:
    """`13.4 MB`, or `1.5 GB` from 10^9 bytes on."""
    return f"{nbytes / _GB:,.1f} GB" if nbytes >= _GB else f"{nbytes / _MB:.1f} MB"


def enough_size(nbytes: int) -> str:
    """At least as many bytes, as an option takes them: `14MB`, `1.6GB`, `23GB`."""
    if nbytes <= 999 * _MB:
        return f"{-(-nbytes // _MB)}MB"
    tenths = -(-nbytes * 10 // _GB)
    return f"{tenths / 10}GB" if tenths < 100 and tenths % 10 else f"{-(-tenths // 10)}GB"


def duration_text(seconds: float) -> str:
    """`21 h 20 min`, `20 min`, `1 min 30 s`, `45 s`."""
    whole = round(seconds)
    if whole < 600:
        parts = [(whole // 60, "min"), (whole % 60, "s")]
    else:
        minutes = round(seconds / 60)
        parts = [(minutes // 60, "h"), (minutes % 60, "min")]
    return " ".join(f"{count:,} {unit}" for count, unit in parts if count) or "0 s"
