"""What stands around a chunk: callees with their docs, callers, the file's outline.

A name means the one symbol of the package that has it; a name that several have means none.  Each part is left out of a
share of the examples, so that a model does well with and without it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from rotary_batch.core import Chunk, ParsedFile
from training.adapter.files import UNASKED, File, Names, signature
from training.adapter.prompts import CONTEXT_TOKENS, Context

MAX_CALLEES, MAX_CALLERS, MAX_OUTLINE = 6, 2, 20
LEAST_NAME = 4  # characters; a shorter name is most often a word of its own


def context_of(one: File, parsed: ParsedFile, chunk: Chunk, text: str, names: Names, draw: random.Random) -> Context:
    """The context of a chunk, parts of it left out by chance."""
    *around, last = chunk.breadcrumb.split("\n")
    imports = last.removeprefix("imports: ").split(", ") if last.startswith("imports: ") else ()
    around = around if imports else [*around, last]
    rest = draw.random() < 0.55
    return Context(
        within=" / ".join(filter(None, around)) if draw.random() < 0.9 else "",
        imports=imports if draw.random() < 0.9 else (),
        uses=_callees(parsed, chunk, text, names) if rest and draw.random() < 0.8 else (),
        used_in=_callers(one, parsed, chunk, names) if rest and draw.random() < 0.7 else (),
        outline=_outline(parsed, chunk) if rest and draw.random() < 0.7 else (),
    )


def within_budget(lines: Sequence[str], count: Callable[[str], int]) -> str:
    """The lines that fit, the first of them first."""
    kept, used = [], 0
    for line in lines:
        tokens = count(line) + 1
        if used + tokens <= CONTEXT_TOKENS:
            kept.append(line)
            used += tokens
    return "\n".join(kept)


def _callees(parsed: ParsedFile, chunk: Chunk, text: str, names: Names) -> list[tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for reference in parsed.references:
        meant = names.symbols.get(reference.name, ())
        is_here = chunk.start_byte <= reference.start_byte < chunk.end_byte and reference.name not in found
        if not is_here or len(meant) != 1 or len(reference.name) < LEAST_NAME:
            continue
        file, symbol = meant[0]
        if symbol.kind not in UNASKED and symbol.signature and symbol.signature[:60] not in text:
            found[reference.name] = (signature(symbol), file.sentences.get(symbol.start_byte, ""))
    return sorted(found.values(), key=lambda pair: not pair[1])[:MAX_CALLEES]


def _callers(one: File, parsed: ParsedFile, chunk: Chunk, names: Names) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for symbol in parsed.symbols:
        if chunk.start_byte <= symbol.start_byte < chunk.end_byte and len(names.symbols[symbol.name]) == 1:
            for other, use in names.uses.get(symbol.name, ()):
                if other is one or use.caller is None:
                    continue
                if caller := other.signature_at(use.caller.start_byte):
                    found[other.file.path, caller] = None
    return list(found)[:MAX_CALLERS]


def _outline(parsed: ParsedFile, chunk: Chunk) -> list[str]:
    names = (
        symbol.qualified_name
        for symbol in parsed.symbols
        if not chunk.start_byte <= symbol.start_byte < chunk.end_byte and symbol.kind not in UNASKED
    )
    return list(dict.fromkeys(names))[:MAX_OUTLINE]
