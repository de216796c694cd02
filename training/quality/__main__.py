"""`python -m training.quality`: measure the shipped pack and write benchmarks/quality.md with its pictures.

Knows the command line; about ten minutes on two cores.  Without the exported checkpoint only the shipped pack is
judged.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from rotary_batch.commands.default_model import EMBEDDED
from training.quality.figures import Sizes, measure, note
from training.quality.packs import EXPORTED
from training.quality.plots import draw
from training.quality.report import render

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pack", type=Path, default=EMBEDDED)
    parser.add_argument("--hf", type=Path, default=EXPORTED, help="the exported checkpoint, for the other formats")
    parser.add_argument("--out", type=Path, default=BENCHMARKS)
    for name, default in Sizes()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default, help="examples looked at")
    arguments = parser.parse_args()
    sizes = Sizes(*(getattr(arguments, name) for name in Sizes._fields))
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments.pack, arguments.hf if arguments.hf.is_dir() else None, sizes, Path(folder))
    arguments.out.mkdir(parents=True, exist_ok=True)
    draw(figures, arguments.out)
    (arguments.out / "quality.md").write_text(render(figures), encoding="utf-8")
    note(f"{arguments.out / 'quality.md'} after {time.monotonic() - started_s:.0f} s")


if __name__ == "__main__":
    main()
