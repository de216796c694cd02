"""Ask models about held-out symbols, draw a sample for a person, write the report.

    python -m training.quality.symbols ask NAME MODEL    answers into training/out/quality/NAME.answers.json
    python -m training.quality.symbols sample NAME       a sample of what is shown, for a person to judge
    python -m training.quality.symbols report            the first part of benchmarks/quality.md

Half an hour for a model of 135 M parameters on two idle cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rotary_batch.config import Settings
from training.quality.symbols.asking import PER_PACKAGE, ask, load, write_sample
from training.quality.symbols.report import write
from training.quality.symbols.scores import threshold_of

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("name")
    asking.add_argument("model", type=Path)
    asking.add_argument("--job")
    asking.add_argument("--device", default="cpu")
    asking.add_argument("--numerics")
    asking.add_argument("--symbols", type=int, default=PER_PACKAGE, help="of each package")
    sampling = commands.add_parser("sample")
    sampling.add_argument("name")
    sampling.add_argument("--count", type=int, default=200)
    commands.add_parser("report")
    given = parser.parse_args()
    if given.command == "ask":
        settings = Settings(model=given.model, job=given.job, device=given.device, numerics=given.numerics)
        ask(given.name, settings, given.symbols)
    elif given.command == "sample":
        answers = load()[given.name]
        write_sample(answers, given.count, threshold_of(answers))
    else:
        write(load(), BENCHMARKS / "quality.md")


if __name__ == "__main__":
    main()
