"""The graphics cards of this machine, asked in a child process: a driver that hangs or crashes ends only that."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rotary_batch.sizes import size_text

TIMEOUT_S = 60  # importing torch from a cold disk takes half a minute
# Of NVIDIA's driver, of AMD's, and of a Windows host below WSL.
DEVICE_FILES = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg")
_ASK = """
import json, torch
cards = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
print(json.dumps([[torch.cuda.get_device_name(n), *torch.cuda.mem_get_info(n)] for n in cards]))
"""


class Card(NamedTuple):
    """One card that torch can use."""

    name: str
    free_nbytes: int
    total_nbytes: int


class Cards(NamedTuple):
    """What is known of the cards."""

    found: tuple[Card, ...]
    fact: str
    advice: str = ""  # what to do about a card that cannot be used


def find_cards(devices: Path = Path("/dev"), command: Sequence[str] = (sys.executable, "-P", "-c", _ASK)) -> Cards:
    """Ask torch, if the system has a card at all.  Takes at most TIMEOUT_S."""
    if not any(path for pattern in DEVICE_FILES for path in devices.glob(pattern)):
        return Cards((), "none is visible to the system")
    version = _torch_version()
    if version is None or version.endswith("+cpu"):
        fact = "there is one, but this torch is for CPUs only" if version else "there is one, but no torch"
        return Cards((), fact, "install a torch for it: https://pytorch.org/get-started/locally")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, start_new_session=True)
        found = tuple(Card(*card) for card in json.loads(done.stdout)) if done.returncode == 0 else None
    except subprocess.TimeoutExpired:
        return Cards(
            (), f"it gave no answer within {TIMEOUT_S} s", "see whether `nvidia-smi` answers; restart the driver"
        )
    except (OSError, ValueError, TypeError):
        found = None
    if found is None:
        return Cards((), "torch fails when asked for it", "update its driver, or install torch again")
    if not found:
        return Cards((), "torch finds none that it can use", "install its driver; `nvidia-smi` shows whether it works")
    return Cards(found, "; ".join(_described(number, card) for number, card in enumerate(found)))


def _described(number: int, card: Card) -> str:
    return f"cuda:{number} {card.name}, {size_text(card.free_nbytes)} of {size_text(card.total_nbytes)} free"


def _torch_version() -> str | None:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
