"""An engine that takes one batch through at every line on stdin: run by busy.py, with this version or an older one.

Answers prompt tokens and new tokens a second as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from rotary_batch.engine import open_engine  # before torch: it says how OpenMP's threads wait

# isort: split
import torch

from rotary_batch.model.shapes import SHAPES

SEQUENCES, PROMPT_TOKENS, NEW_TOKENS, LAYERS, THREADS = 32, 64, 33, 4, 2


def either(name: str, name_before: str) -> ModuleType:
    """A module of the engine that had another name before commit 711a107 was left behind."""
    try:
        return importlib.import_module(f"rotary_batch.engine.{name}")
    except ImportError:
        return importlib.import_module(f"rotary_batch.engine.{name_before}")


bench, linear = either("measuring.bench", "bench"), either("kernels.linear", "matmul")
synthetic = either("packs.synthetic", "synthetic")


def take_float32_rows() -> None:
    """What versions without ROTARY_BATCH_MAX_ISA need on processors where their bf16 rows crash."""
    linear.fast_dtype = lambda *_: torch.float32
    with suppress(ImportError):
        importlib.import_module("rotary_batch.engine.native")._bf16_products_are_right = lambda *_: True


def main() -> None:
    if os.environ.get("ROTARY_BATCH_MAX_ISA") == "avx2":
        take_float32_rows()
    torch.set_num_threads(THREADS)
    pack = synthetic.synthetic_pack(
        Path(sys.argv[1]), "small, half", replace(SHAPES["small"], num_layers=LAYERS), "bf16", "bf16", repeated=True
    )
    engine = open_engine(
        pack, max_batch=SEQUENCES, numerics="fast", draft_tokens=0, device_memory=3 * 10**9, share_prefixes=False
    )
    assert engine.tier_name == "all resident"
    bench.warm_up(engine)
    print("ready", flush=True)
    for _ in sys.stdin:
        reports = bench.run(engine, sequences=SEQUENCES, prompt_tokens=PROMPT_TOKENS, new_tokens=NEW_TOKENS)
        filling = [one for one in reports if one.prefill_tokens]
        decoding = [one for one in reports if not one.prefill_tokens]
        rates = [
            sum(one.prefill_tokens for one in filling) / sum(one.step_s for one in filling),
            sum(one.decode_tokens for one in decoding) / sum(one.step_s for one in decoding),
        ]
        print(json.dumps(rates), flush=True)


if __name__ == "__main__":
    main()
