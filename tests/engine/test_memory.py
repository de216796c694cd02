"""What the process keeps of the memory that it has freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

FRAGMENTS = """
import re, sys
import torch
from rotary_batch.core import Request
from rotary_batch.engine import open_engine

def resident_nbytes():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1])

engine = open_engine(sys.argv[1])
pieces = [torch.ones(2**18) for _ in range(200)]  # of 1 MB
kept = pieces[1::2]
del pieces
before = resident_nbytes()
engine.admit(Request(request_id=1, prompt_ids=(5, 6, 7), max_new_tokens=4))
engine.step()
print(before - resident_nbytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks glibc and /proc")
def test_free_pieces_between_pieces_in_use_are_given_back_after_a_revolution_with_prompts(tiny_pack):
    done = subprocess.run([sys.executable, "-c", FRAGMENTS, str(tiny_pack)], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 90 * 2**20
