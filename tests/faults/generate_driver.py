"""Run `generate` with an engine without a model, and send this process a real SIGKILL at an aimed write.

    python generate_driver.py COUNT NBYTES rotary-batch-arguments...

COUNT is which write into the results, from 1; 0 = none.  Of that write NBYTES are done; beyond its length, all.
"""

from __future__ import annotations

import os
import signal
import sys

from rotary_batch import cli
from rotary_batch.commands import engines, results
from rotary_batch.testing import FakeEngine


class AimedOs:
    """The module `os`, with one write that is the last."""

    def __init__(self, count: int, nbytes: int) -> None:
        self.left, self.nbytes = count, nbytes

    def __getattr__(self, name):
        return getattr(os, name)

    def pwrite(self, descriptor, data, offset):
        self.left -= 1
        if self.left == 0:
            os.pwrite(descriptor, data[: self.nbytes], offset)
            os.kill(os.getpid(), signal.SIGKILL)
        return os.pwrite(descriptor, data, offset)


if __name__ == "__main__":
    results.os = AimedOs(int(sys.argv[1]), int(sys.argv[2]))
    engines.open_engine = lambda *_: FakeEngine(answer_tokens=3)
    sys.argv = ["rotary-batch", *sys.argv[3:]]
    cli.main()
