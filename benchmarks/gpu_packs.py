"""Write the packs of random weights that gpu_night.sh measures, all at once: one by one they take twice as long.

Run as a script: `python -m benchmarks.gpu_packs SHAPE:EXPERTS:DENSE...`.
"""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor

from rotary_batch.commands.bench import pack_for
from rotary_batch.config import Settings


def write(wanted: str) -> str:
    """Write one pack, unless it is there; answer its folder."""
    shape_name, experts, dense = wanted.split(":")
    settings = Settings(device="cuda", experts=experts)
    return str(pack_for(settings, shape_name, dense, lambda _done, _total: None))


if __name__ == "__main__":
    with ProcessPoolExecutor(len(sys.argv)) as pool:
        print(*pool.map(write, sys.argv[1:]), sep="\n")
