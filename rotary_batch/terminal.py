"""Text for a terminal: what a repository or a model wrote cannot control it, nor be invisible."""

from __future__ import annotations


def shown(text: str) -> str:
    """The text with control and invisible characters escaped, as in `\\x1b`; line ends and tabs stay."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in "\n\t" else ascii(letter)[1:-1] for letter in text)
