"""The card of an NVIDIA driver, by its management library (NVML): memory, other processes, energy.  Read-only.

The library comes with the driver; where it is missing or refuses, `open_card` gives None.  `cuda:N` is the card that
CUDA_VISIBLE_DEVICES names at that place, else number N of the driver.  Numbers are those of CUDA where all cards are
alike or CUDA_DEVICE_ORDER is PCI_BUS_ID.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import NamedTuple

_LIBRARY = "libnvidia-ml.so.1"
_MOST_PROCESSES = 128
_UNKNOWN = 2**64 - 1  # memory of a process that the driver does not tell
_LISTS = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetGraphicsRunningProcesses_v3")


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class CardMemory(NamedTuple):
    """Bytes."""

    total_nbytes: int
    free_nbytes: int


class Card:
    """One card."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle

    def memory(self) -> CardMemory | None:
        """How much there is, and how much nobody uses."""
        memory = _Memory()
        if self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(memory)):
            return None
        return CardMemory(memory.total, memory.free)

    def others_nbytes(self, pid: int | None = None) -> int | None:
        """Memory that other processes than `pid`, by default this one, use; None where the driver does not tell."""
        own, used = os.getpid() if pid is None else pid, dict[int, int]()
        for name in _LISTS:
            found, count = (_Process * _MOST_PROCESSES)(), ctypes.c_uint(_MOST_PROCESSES)
            if getattr(self._library, name)(self._handle, ctypes.byref(count), found):
                return None
            used |= {one.pid: one.used for one in found[: count.value]}  # a process may be in both lists
        others = [nbytes for one, nbytes in used.items() if one != own]
        return None if _UNKNOWN in others else sum(others)

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; None where the card does not count them."""
        millijoules = ctypes.c_ulonglong()
        if self._library.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules)):
            return None
        return millijoules.value / 1000


def open_card(device: str, environment: Mapping[str, str] = os.environ, library: str = _LIBRARY) -> Card | None:
    """The card of `cuda` or `cuda:N`; None for another device, or when the driver does not answer."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return None
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2():
            return None
        handle = ctypes.c_void_p()
        place, by_uuid = _place(int(number or 0), environment)
        find = nvml.nvmlDeviceGetHandleByUUID if by_uuid else nvml.nvmlDeviceGetHandleByIndex_v2
        if place is None or find(place, ctypes.byref(handle)):
            return None
    except (OSError, AttributeError):  # no driver, or one of before 2021
        return None
    return Card(nvml, handle)


def _place(number: int, environment: Mapping[str, str]) -> tuple[ctypes.c_char_p | ctypes.c_uint | None, bool]:
    """What the driver finds a card by, and whether that is its UUID; None when CUDA does not see so many cards."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return ctypes.c_uint(number), False
    names = [name.strip() for name in visible.split(",")]
    name = names[number] if number < len(names) else ""
    if name.isascii() and name.isdigit():
        return ctypes.c_uint(int(name)), False
    return (ctypes.c_char_p(name.encode()), True) if name else (None, False)
