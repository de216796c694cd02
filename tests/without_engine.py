"""An interpreter in which the libraries of the extra `[engine]` cannot be found, as if they were not installed."""

from pathlib import Path

from rotary_batch.errors import ENGINE_LIBRARIES

_HIDE = f"""
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
def find_others(name, path=None, target=None):
    return None if name.partition(".")[0] in {ENGINE_LIBRARIES!r} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = find_others
"""


def hide_engine(folder: Path) -> dict[str, str]:
    """Environment variables under which no Python process finds these libraries; `folder` gets what hides them."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_HIDE)
    return {"PYTHONPATH": str(folder)}
