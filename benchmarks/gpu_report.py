"""The figures of a GPU night as tables for `benchmarks/gpu.md`: `python -m benchmarks.gpu_report FOLDER`.

FOLDER is what gpu_night.sh wrote: one JSON file for each run of `rotary-batch bench`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SWEEPS = ("8x7b-int4-job", "8x7b-int4-disk-job", "8x22b-int4-int8-job", "8x22b-int4-bf16-job")
ONES = ("8x7b-int4-one-12", "8x7b-int4-one-24", "8x7b-int4-one-resident")
GB = 1e9


def main(folder: Path) -> None:
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json") if path.stat().st_size}
    machine = found["machine"]
    print("# On a GPU\n")
    print(
        f"Machine: {machine['machine']}; link {machine['move_nbytes_per_s'] / GB:.1f} GB/s (page-locked, as measured)."
    )
    print("Command: `sh benchmarks/gpu_night.sh`, one run of each.  Random weights, fast numerics.  The cap is")
    print(
        "on device memory: `torch.cuda.set_per_process_memory_fraction`, and the engine's own plan.  `Roofline` comes from rates"
    )
    print(
        "that were measured before, the link's just before and after the run.  Sweeps read prompts for 6 or 12 revolutions (the"
    )
    print("rest is skipped: keys take the same time to read, whatever they hold), then decode for 6 to 20.\n")
    print("## Sweeps at *job* lengths (600 + 100 tokens), keys in int8\n")
    print(
        "| Model | Dense part | Cap | Sequences | Experts resident / in RAM | Prefill tok/s (bound) | Decode tok/s (bound) | Share | Link GB/s: used of measured | Peak device / host GB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for one in (found[name] for name in SWEEPS if name in found):
        print(sweep(one))
    print("\n## One sequence of 8x7B int4 (64 + 64 tokens), keys in bf16\n")
    print(
        "| Cap | Slots or residents | Decode tok/s, prefetch on | off | Slabs late + missing, on, off | Peak device GB |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for name in (name for name in ONES if name in found):
        print(single(found[name], found.get(f"{name}-no-prefetch")))
    if "accelerate" in found:
        peer = found["accelerate"]
        print(
            f"\naccelerate's offload to RAM (bf16, 24 GB cap): {peer['decode']:.2f} tok/s, prefill {peer['prefill']:.1f}."
        )


def sweep(one: dict[str, Any]) -> str:
    return (
        f"| {one['shape']} {one['experts']} | {one['dense']} | {one['device_memory'] / GB:.0f} GB | {one['sequences']} | "
        f"{one['residents']} / {one.get('in_host_memory', '')} | {one['prefill_tokens_per_s']:,.0f} ({one['bound_prefill_tokens_per_s']:,.0f}) | "
        f"{one['decode_tokens_per_s']:,.0f} ({one['bound_decode_tokens_per_s']:,.0f}) | {one['share_of_bound']:.0%} | "
        f"{one['moved_bytes_per_s'] / GB:.1f} of {one['link_bytes_per_s'] / GB:.1f} | "
        f"{one['peak_device_bytes'] / GB:.1f} / {one['peak_host_bytes'] / GB:.1f} |"
    )


def single(on: dict[str, Any], off: dict[str, Any] | None) -> str:
    without = f"{off['decode_tokens_per_s']:.1f}" if off else "(nothing to fetch)"
    missing = "".join(
        f"{one['late_prefetches']:,} + {one['fetches']:,}{comma}" for one, comma in ((on, ", "), (off, "")) if one
    )
    return (
        f"| {on['device_memory'] / GB:.0f} GB | {on['ring_slots'] or on['residents']} | {on['decode_tokens_per_s']:.1f} | "
        f"{without} | {missing} | {on['peak_device_bytes'] / GB:.1f} |"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
