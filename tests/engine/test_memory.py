"""Which pages the process's memory is in, and what it returns to the OS."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rotary_batch.engine.runtime.buffers import page_buffer

STATUS = Path("/proc/self/status")

FRAGMENTS = """
import re, sys
import torch
from rotary_batch.core import Request
from rotary_batch.engine import open_engine

def resident_nbytes():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])

engine = open_engine(sys.argv[1])
blocks = [torch.ones(2**18) for _ in range(200)]  # of 1 MB
every_other_block = blocks[1::2]
del blocks
before = resident_nbytes()
engine.admit(Request(request_id=1, prompt_ids=(5, 6, 7), max_new_tokens=4))
engine.step()
print(before - resident_nbytes())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_freed_blocks_between_blocks_in_use_are_returned_after_a_step_with_prompts(tiny_pack):
    done = subprocess.run([sys.executable, "-c", FRAGMENTS, str(tiny_pack)], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 90 * 2**20


@pytest.mark.skipif("RssShmem" not in STATUS.read_text(), reason="the OS does not count shared memory separately")
def test_pages_of_slabs_are_private_because_shared_ones_are_not_huge():
    def shared_nbytes() -> int:
        return 1024 * int(re.search(r"RssShmem:\s+(\d+)", STATUS.read_text())[1])

    before = shared_nbytes()
    buffer = page_buffer(64 * 2**20).fill_(1)
    assert (buffer.sum().item(), shared_nbytes() - before) == (64 * 2**20, 0)
