"""What a model is told about the code around a chunk."""

from __future__ import annotations

from rotary_batch.core import Chunk

_IMPORTS = "imports: "


def chunk_context(chunk: Chunk) -> str:
    """Where a chunk is in its file, and the imported names that it uses."""
    lines = chunk.breadcrumb.splitlines()
    imports = [line.removeprefix(_IMPORTS) for line in lines if line.startswith(_IMPORTS)]
    around = [line for line in lines if not line.startswith(_IMPORTS)]
    within = [f"Within: {' > '.join(around)}"] if around else []
    return "\n".join([*within, *(f"Imports: {names}" for names in imports)])
