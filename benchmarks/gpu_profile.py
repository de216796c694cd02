"""Where one decode step spends its time: `python -m benchmarks.gpu_profile SHAPE EXPERTS SEQUENCES DEVICE_MEMORY [DEVICE]`.

Random weights; prompts are skipped.  Two tables of torch's profiler, by time of the host and of the device, then what
one step costs without the profiler.
"""

from __future__ import annotations

import statistics
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

PROMPT_TOKENS, NEW_TOKENS = 100, 40
STEPS = 4  # timed, after as many that warm up


def main(shape_name: str, experts: str, sequences: int, device_memory: str, device: str = "cuda") -> None:
    """Profile one step and print what it found."""
    settings = Settings(device=device, experts=experts)
    pack = pack_for(settings, shape_name, "bf16", lambda _done, _total: None)
    with closing(
        open_engine(
            pack,
            device=device,
            device_memory=parse_nbytes(device_memory),
            numerics="fast",
            kv="int8",
            max_batch=sequences,
            draft_tokens=0,
        )
    ) as engine:
        begin(engine, sequences)
        print(f"{shape_name} {experts}, {sequences} sequences, {engine.memory_plan}", torch.__version__)
        for _ in range(STEPS):
            engine.step()
        times = [step_s(engine) for _ in range(STEPS)]
        with profile(activities=activities(device)) as profiler:
            engine.step()
        table = profiler.key_averages()
        by_device = "self_cuda_time_total" if device != "cpu" else "self_cpu_time_total"
        for order in ("self_cpu_time_total", by_device):
            print(table.table(sort_by=order, row_limit=30, max_name_column_width=70))
        launches = sum(event.count for event in table if "LaunchKernel" in event.key)
        print(f"kernel launches in the step: {launches}")
        print(f"a step without the profiler: {statistics.median(times) * 1e3:.1f} ms, {min(times) * 1e3:.1f} at best")


def begin(engine: RotaryEngine, sequences: int) -> None:
    """Admit the sequences and take them past their prompts."""
    engine.stop_ids = frozenset()
    vocabulary = engine.manifest.geometry.vocab_size
    for number in range(sequences):
        prompt = tuple((7 * number + 13 * place) % vocabulary for place in range(PROMPT_TOKENS))
        engine.admit(Request(request_id=number, prompt_ids=prompt, max_new_tokens=NEW_TOKENS))
    engine.skip_prompts()
    engine.step()


def activities(device: str) -> list[ProfilerActivity]:
    """What is recorded on this device."""
    return [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device != "cpu" else [])


def step_s(engine: RotaryEngine) -> float:
    """Seconds of one step; a step ends with its tokens on the host."""
    start_s = time.perf_counter()
    engine.step()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    name, experts, sequences, *rest = sys.argv[1:]
    main(name, experts, int(sequences), *rest)
