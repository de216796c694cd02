"""Models that are named as on Hugging Face, `org/name`: how to get one onto disk.  Nothing is downloaded here."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

_NAME = r"[A-Za-z0-9][\w.-]{0,95}"
_ID = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)


def not_on_disk(model: Path, environment: Mapping[str, str]) -> str:
    """What to do about `--model` that is no folder: one line."""
    name = str(model)
    if not _ID.fullmatch(name):
        fact = "not a folder" if model.exists() else "no such folder"
        return f"{name}: {fact}; name the folder of a pack or of a checkpoint"
    if snapshot := _downloaded(name, environment):
        where = shlex.quote(str(snapshot))
        return f"{name}: models are named by their folder; this one is on disk already: {where}"
    folder = name.rpartition("/")[2]
    return (
        f"{name}: no such folder, and rotary-batch downloads nothing; get it with "
        f"`hf download {name} --local-dir {folder}` (from `pip install huggingface-hub`), then name the folder {folder}"
    )


def _downloaded(name: str, environment: Mapping[str, str]) -> Path | None:
    """The snapshot of a model in the cache of Hugging Face: the one of `main`, else the newest; None without weights.

    The layout is that of huggingface_hub: models--ORG--NAME/{refs/main, snapshots/REVISION}.
    """
    folder = _cache(environment) / f"models--{name.replace('/', '--')}"
    with suppress(OSError, ValueError):
        snapshots = sorted(folder.glob("snapshots/*"), key=lambda path: path.stat().st_mtime, reverse=True)
        main = folder / "refs" / "main"
        if main.is_file():
            snapshots.insert(0, folder / "snapshots" / main.read_text(encoding="ascii").strip())
        return next((path for path in snapshots if any(path.glob("*.safetensors")) or any(path.glob("*.gguf"))), None)
    return None


def _cache(environment: Mapping[str, str]) -> Path:
    """The folder of downloaded models, by the variables that huggingface_hub reads."""
    if hub := environment.get("HF_HUB_CACHE"):
        return Path(hub)
    if home := environment.get("HF_HOME"):
        return Path(home) / "hub"
    return Path(environment.get("XDG_CACHE_HOME") or f"{environment.get('HOME') or '/'}/.cache") / "huggingface" / "hub"
