"""The rendering of a chat template for one message of the user, kept in a pack because most commands need it.

The process that renders a template takes 0.15 s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE_NAME = "chat_rendering.json"
_VERSION = 1  # of what `rendering.py` gives templates
_MAX_NBYTES = 8 * 10**6  # a million letters, which a rendering may have, and their escapes


def kept_renderings(folder: Path) -> Mapping[str, str]:
    """Those of a pack by their key; none where the file is none of ours."""
    path = folder / FILE_NAME
    try:
        kept = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_NBYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: text for key, text in kept.items() if isinstance(text, str)} if isinstance(kept, dict) else {}


def keep_rendering(folder: Path, key: str, text: str) -> None:
    """Keep a rendering in a pack.  Raises OSError."""
    (folder / FILE_NAME).write_text(json.dumps({key: text}) + "\n")


def rendering_key(template: str, values: Mapping[str, Any]) -> str:
    """Under which the rendering of a template with these values is kept."""
    return hashlib.sha256(json.dumps([_VERSION, template, values], sort_keys=True).encode()).hexdigest()
