"""Peak memory of packing and draining a checkpoint whose experts do not fit: `python -m benchmarks.memory`.

The bound: VmHWM of the whole process, interpreter and torch included, is at most 512 MB + 450 MB while 2.1 GB of
experts stream from disk under `--device-memory 512MB`.  Writes benchmarks/memory.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.shapes import SMALL, machine, write_checkpoint

BOUND_NBYTES = (512 + 450) * 10**6
MEASURED = """
import sys
from rotary_batch import cli
sys.argv = ["rotary-batch", *sys.argv[1:]]
try:
    cli.main()
except SystemExit as end:
    code = end.code or 0
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) * 1024, code)
"""


def peak_nbytes(*arguments: str) -> int:
    """VmHWM of one command."""
    done = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True)
    print(done.stderr)
    peak, code = done.stdout.splitlines()[-1].split()
    assert code in {"0", "75"}, done.stderr
    return int(peak)


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_DIR")) as name:
        folder = Path(name)
        source = write_checkpoint(folder / "hf", **SMALL | {"num_hidden_layers": 12})
        requests = [
            {"custom_id": str(n), "body": {"prompt": f"def f{n}(x):\n" + "    x = x + 1\n" * 12, "max_tokens": 8}}
            for n in range(64)
        ]
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in requests))
        pack = str(folder / "pack")
        packing = peak_nbytes("model", "pack", str(source), pack)
        command = ["generate", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"), "--model", pack]
        draining = peak_nbytes(*command, "--device-memory", "512MB")
        experts = sum(path.stat().st_size for path in Path(pack).glob("experts*"))
    rows = [
        f"| packing | {packing / 1e6:.0f} MB |",
        f"| draining 64 requests, `--device-memory 512MB` | {draining / 1e6:.0f} MB |",
    ]
    text = "\n".join(
        [
            "# Peak memory",
            "",
            f"Machine: {machine()}.",
            "Command: `python -m benchmarks.memory`.",
            f"Experts: {experts / 1e9:.2f} GB in bf16. Roofline: {BOUND_NBYTES / 1e6:.0f} MB (VmHWM, everything included).",
            "",
            "| What | VmHWM |",
            "| --- | --- |",
            *rows,
            "",
        ]
    )
    (Path(__file__).parent / "memory.md").write_text(text)
    print(text)
    assert max(packing, draining) <= BOUND_NBYTES


if __name__ == "__main__":
    main()
