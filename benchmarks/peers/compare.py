"""Side by side, in turns: this engine, llama.cpp, transformers + accelerate.  `python -m benchmarks.peers.compare`.

The same random weights, the same cap on the whole process (a memory cgroup, page cache included), cold page cache,
64 prompt tokens; medians of ROUNDS.  LLAMA_CPP names a folder with llama-batched-bench and llama-quantize.
Writes peers.md and peers.png.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.cgroup import run
from benchmarks.checkpoints import as_checkpoint
from benchmarks.peers.gguf_file import write_gguf
from benchmarks.shapes import machine
from rotary_batch.config import cache_dir
from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.packs.synthetic import synthetic_pack
from rotary_batch.model.shapes import shape

HERE = Path(__file__).parent
LLAMA = Path(os.environ.get("LLAMA_CPP", "."))
WORK = cache_dir(os.environ) / "peers"
ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "5"))
PROMPT, STEPS = 64, 8
MIB = 2**20
OURS = "rotary-batch"


class Setting(NamedTuple):
    """One model under one cap."""

    name: str
    shape: str
    ours: str  # format of our pack
    theirs: str  # format of the GGUF file
    cap_mib: int | None
    device_memory: str | None  # ours, for many sequences: their activations need the rest
    sequences: tuple[int, ...]
    accelerate: tuple[int, ...]
    for_one: str | None = None  # device memory for one sequence: 50 MB more are killed under the cap


Found = dict[tuple[Setting, int, str], list[tuple[float, float]]]
SETTINGS = [
    Setting("small bf16, 1300 MiB", "small", "bf16", "bf16", 1300, "1000MB", (1, 8, 32, 128, 192), (32,), "1100MB"),
    Setting("small bf16, all in RAM", "small", "bf16", "bf16", None, None, (1, 8, 32, 128), (32,)),
    Setting("medium int4, 1884 MiB (60 %)", "medium", "int4", "q4_0", 1884, "1500MB", (32, 96), (32,)),
]


def checkpoint(name: str) -> Path:
    """A Hugging Face checkpoint of random weights, written once."""
    folder = WORK / f"{name}-hf"
    if not (folder / "config.json").is_file():
        as_checkpoint(synthetic_pack(WORK / f"{name}-bf16", name, shape(name), "bf16", "bf16"), folder)
    return folder


def our_pack(name: str, experts: str) -> Path:
    folder = WORK / f"{name}-{experts}"
    if experts != "bf16":
        pack(checkpoint(name), folder, experts=experts, dense="int8")
    else:
        checkpoint(name)
    return folder


def gguf(name: str, kind: str) -> Path:
    checkpoint(name)
    plain = write_gguf(WORK / f"{name}-bf16", WORK / f"{name}-bf16.gguf")
    target = WORK / f"{name}-{kind}.gguf"
    if kind != "bf16" and not target.is_file():
        subprocess.run([LLAMA / "llama-quantize", plain, target, kind, "2"], check=True, capture_output=True)
    return target


def ours(setting: Setting, sequences: int) -> tuple[float, float]:
    command = [str(Path(sys.executable).parent / "rotary-batch"), "bench", "--json", "--numerics", "fast"]
    command += ["--model", str(our_pack(setting.shape, setting.ours)), "--sequences", str(sequences)]
    command += ["--lengths", f"{PROMPT}+{STEPS * 2}", "--no-drafts"]
    memory = setting.for_one if sequences == 1 and setting.for_one else setting.device_memory
    command += ["--device-memory", memory] if memory else []
    done = run(command, setting.cap_mib and setting.cap_mib * MIB, 900)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["prefill_tokens_per_s"], found["decode_tokens_per_s"]


def llama_cpp(setting: Setting, sequences: int) -> tuple[float, float]:
    # every sequence has the context of the longest: 80 tokens, rounded up by llama.cpp to 256
    command = [
        str(LLAMA / "llama-batched-bench"),
        "-m",
        str(gguf(setting.shape, setting.theirs)),
        "-c",
        str(256 * sequences),
    ]
    command += ["-b", "2048", "-ub", "512", "-npp", str(PROMPT), "-ntg", str(STEPS), "-npl", str(sequences), "-t", "2"]
    if setting.cap_mib:  # repacked weights would be a second, anonymous copy of all of them: killed under the cap
        command.append("--no-repack")
    done = run(command, setting.cap_mib and setting.cap_mib * MIB, 1800)
    rows = [line.split("|") for line in done.stdout.splitlines() if re.match(r"\|\s*\d+ \|", line)]
    assert rows, f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-500:]}"
    return float(rows[0][6]), float(rows[0][8])


def accelerate(setting: Setting, sequences: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.peers.accelerate_offload", str(checkpoint(setting.shape))]
    command += [str(sequences), str(PROMPT), "5", *([] if setting.cap_mib else ["ram"])]
    done = run(command, setting.cap_mib and setting.cap_mib * MIB, 1800)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return found["prefill"], found["decode"]


def main() -> None:
    found, wanted = kept(), sys.argv[1:]
    settings = [setting for setting in SETTINGS if not wanted or setting.name.split(",")[0] in wanted]
    for setting in settings:
        engines: list[tuple[str, Callable[[Setting, int], tuple[float, float]], tuple[int, ...]]] = [
            (OURS, ours, setting.sequences),
            ("llama.cpp", llama_cpp, setting.sequences),
            ("accelerate", accelerate, setting.accelerate),
        ]
        for _ in range(ROUNDS):
            for sequences in setting.sequences:
                for name, measure, sizes in engines:
                    if sequences in sizes:
                        found[setting, sequences, name].append(measure(setting, sequences))
                        last = found[setting, sequences, name][-1]
                        print(setting.name, sequences, name, last, file=sys.stderr, flush=True)
                        keep(found)
    draw(found)


def kept() -> Found:
    """What earlier calls measured, on this machine; further runs are added."""
    found: Found = defaultdict(list)
    by_name = {setting.name: setting for setting in SETTINGS}
    if (WORK / "found.json").is_file():
        for name, sequences, engine, runs in json.loads((WORK / "found.json").read_text()):
            found[by_name[name], sequences, engine] = [tuple(one) for one in runs]
    return found


def keep(found: Found) -> None:
    rows = [[setting.name, sequences, engine, runs] for (setting, sequences, engine), runs in found.items()]
    (WORK / "found.json").write_text(json.dumps(rows))
    (HERE / "peers.md").write_text(report(found))


def report(found: Found) -> str:
    lines = [
        "# Beside llama.cpp and accelerate",
        "",
        f"Machine: {machine()}.",
        "Command: `make peers` (builds llama.cpp from the",
        "llama-cpp-python 0.3.36 source package; GGUF written from the same weights).  The same cap on the whole process (memory",
        f"cgroup, page cache included), cold page cache, {PROMPT} prompt tokens, medians of so many runs, in turns (slowest to fastest).",
        "int4 is ours with an int8 resident part beside q4_0 (all matrices); accelerate has bf16.",
        "",
        "| Model and cap | Sequences | Engine | Runs | Prefill tok/s | Decode tok/s | Ours / theirs: prefill | decode |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for (setting, sequences, name), runs in sorted(found.items(), key=_place):
        mine = found.get((setting, sequences, OURS))
        cells = []
        for which in (0, 1):
            values = [one[which] for one in runs]
            cells.append(f"{statistics.median(values):,.1f} ({min(values):,.1f} to {max(values):,.1f})")
        for which in (0, 1):
            ratio = statistics.median(m[which] for m in mine) / statistics.median(o[which] for o in runs) if mine else 0
            cells.append("" if name == OURS else f"{ratio:.1f}x")
        lines.append(f"| {setting.name} | {sequences} | {name} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![decode](peers.png)", ""])


def _place(row: tuple[tuple[Setting, int, str], object]) -> tuple[int, int, int]:
    setting, sequences, name = row[0]
    return SETTINGS.index(setting), sequences, (OURS, "llama.cpp", "accelerate").index(name)


def draw(found: Found) -> None:
    settings = sorted({setting for setting, _, _ in found}, key=SETTINGS.index)
    figure, axes = plt.subplots(1, len(settings), figsize=(4 * len(settings), 3.4), squeeze=False)
    for axis, setting in zip(axes[0], settings, strict=True):
        for name, marker in ((OURS, "o"), ("llama.cpp", "s"), ("accelerate", "^")):
            points = [
                (n, statistics.median(d for _, d in runs))
                for (s, n, e), runs in found.items()
                if (s, e) == (setting, name)
            ]
            if points:
                axis.plot(*zip(*sorted(points), strict=True), marker=marker, label=name)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_formatter("{x:g}")
        axis.set_title(setting.name, fontsize=9)
        axis.set_xlabel("sequences")
    axes[0][0].set_ylabel("decode tok/s")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(HERE / "peers.png", dpi=110)


if __name__ == "__main__":
    main()
