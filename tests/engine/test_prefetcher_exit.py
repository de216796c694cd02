"""A process that ends while a prefetcher is at work ends with its own exit code."""

from __future__ import annotations

import subprocess
import sys

# A thread that comes out of torch when the interpreter is gone is ended in C++ code, which answers that with SIGABRT.
PROGRAM = """
import sys, time, torch
from rotary_batch.engine.offload.prefetch import Prefetcher

class EndlessRing:
    closed = False
    def claim_loads(self, most, *, wait): return [] if self.closed else ["a slab"]
    def finish_loads(self, loads): pass
    def close(self): self.closed = True

class Transfer:
    slab = torch.zeros(300, 300)
    def fill(self, loads): self.slab @ self.slab

torch.set_num_threads(1)
Prefetcher(EndlessRing(), Transfer(), 1).start()
time.sleep(0.2)
sys.exit(75)
"""


def test_a_process_that_does_not_close_its_engine_ends_with_its_own_exit_code():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (75, "")
