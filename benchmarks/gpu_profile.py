"""Where a step spends its time: `python -m benchmarks.gpu_profile SHAPE EXPERTS SEQUENCES DEVICE_MEMORY [DEVICE]`.

Random weights.  Prints how long three steps take that read prompts, and four that decode, then for one of each two tables
of torch's profiler, by time of the host and of the device.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing

import torch
from torch.profiler import ProfilerActivity, profile

from rotary_batch.commands.bench import pack_for
from rotary_batch.config import Settings, parse_nbytes
from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.model.footprint import Workload

PROMPT_TOKENS, NEW_TOKENS = 600, 100
PREFILL_STEPS, DECODE_STEPS = 3, 4  # timed, before one that is profiled
ROWS = 16  # of each table


def main(shape_name: str, experts: str, sequences: int, device_memory: str, device: str = "cuda") -> None:
    """Profile a step of each kind and print what was found."""
    settings = Settings(device=device, experts=experts)
    pack = pack_for(settings, shape_name, "bf16", lambda _done, _total: None)
    workload = Workload(sequences, PROMPT_TOKENS, NEW_TOKENS, PROMPT_TOKENS + NEW_TOKENS)
    options = {"numerics": "fast", "kv": "int8", "max_batch": sequences, "draft_tokens": 0, "workload": workload}
    with closing(open_engine(pack, device=device, device_memory=parse_nbytes(device_memory), **options)) as engine:
        print(f"{shape_name} {experts}, {sequences} sequences, {engine.memory_plan}", torch.__version__)
        admit(engine, sequences)
        show("prompts", engine, PREFILL_STEPS)
        engine.skip_prompts()
        engine.step()
        show("decode", engine, DECODE_STEPS)


def admit(engine: RotaryEngine, sequences: int) -> None:
    """As many sequences as fit."""
    engine.stop_ids = frozenset()
    vocabulary = engine.manifest.geometry.vocab_size
    for number in range(sequences):
        prompt = tuple((7 * number + 13 * place) % vocabulary for place in range(PROMPT_TOKENS))
        request = Request(request_id=number, prompt_ids=prompt, max_new_tokens=NEW_TOKENS)
        if engine.has_room(request):
            engine.admit(request)


def show(kind: str, engine: RotaryEngine, count: int) -> None:
    """Time some steps and profile one."""
    print(f"{kind}: steps of", *(f"{step_s(engine) * 1e3:.1f}" for _ in range(count)), "ms")
    on_cuda = engine.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as profiler:
        engine.step()
    averages = profiler.key_averages()
    for order in ("self_cpu_time_total", "self_device_time_total")[: 1 + on_cuda]:
        print(averages.table(sort_by=order, row_limit=ROWS, max_name_column_width=60))


def step_s(engine: RotaryEngine) -> float:
    """Seconds of one step; a step ends with its tokens on the host."""
    start_s = time.perf_counter()
    engine.step()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    name, experts, sequences, *rest = sys.argv[1:]
    main(name, experts, int(sequences), *rest)
