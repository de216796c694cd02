"""Write the packs of random weights that gpu_night.sh measures, all at once: one by one they take twice as long.

Run as a script: `python -m benchmarks.gpu_packs`.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

from rotary_batch.commands.bench import pack_for
from rotary_batch.config import Settings

PACKS = (  # shape, experts, dense part
    ("mixtral-8x22b", "int4", "bf16"),
    ("mixtral-8x22b", "int4", "int8"),
    ("mixtral-8x7b", "bf16", "bf16"),
    ("mixtral-8x7b", "int8", "bf16"),
    ("mixtral-8x7b", "int4", "bf16"),
    ("qwen3-30b-a3b", "int4", "bf16"),
    ("qwen3-30b-a3b", "bf16", "bf16"),
)


def write(shape_name: str, experts: str, dense: str) -> str:
    """Write one pack, unless it is there; answer its folder."""
    settings = Settings(device="cuda", experts=experts)
    return str(pack_for(settings, shape_name, dense, lambda _done, _total: None))


if __name__ == "__main__":
    with ProcessPoolExecutor(len(PACKS)) as pool:
        print(*pool.map(write, *zip(*PACKS, strict=True)), sep="\n")
