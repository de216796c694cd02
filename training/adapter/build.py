"""Read every package into one file of examples each; what is there already is not read again.

`python -m training.adapter.build TOKENIZER_DIR` needs two workers for a quarter of an hour.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import zlib
from dataclasses import astuple
from pathlib import Path

from rotary_batch.model.tokens import Tokenizer
from rotary_batch.prompts import load_prompts
from training import sources as installed
from training.adapter.examples import examples
from training.adapter.sources import SOURCES, Package, packages

PROMPTS = Path(__file__).parents[2] / "prompts"


def all_packages() -> list[Package]:
    """Those that were fetched, and those installed here that the embedded model learns from."""
    found = [
        Package("pip", one.name, one.version, one.licence, one.root, "")
        for is_held_out in (True, False)
        for one in installed.packages(held_out=is_held_out)
    ]
    return sorted([*packages(), *found], key=lambda one: (not one.is_held_out, zlib.crc32(one.name.encode())))


def path_of(package: Package) -> Path:
    """Where the examples of a package are kept."""
    return SOURCES / "examples" / f"{package.registry}__{package.name.replace('/', '+')}.jsonl"


def _build(task: tuple[Package, str]) -> str:
    package, tokenizer_dir = task
    started, path = time.monotonic(), path_of(package)
    if path.exists():
        return f"{package.name}: kept"
    try:
        found = examples(
            package, load_prompts(PROMPTS), Tokenizer.load(Path(tokenizer_dir)), is_strict=not package.is_held_out
        )
    except Exception as error:  # noqa: BLE001 - one package that cannot be read is named and left out
        return f"{package.name}: {type(error).__name__} {error}"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(astuple(one)) + "\n" for one in found))
    temporary.replace(path)
    count = sum(len(one.answers) for one in found)
    return f"{package.name}: {len(found)} examples, {count} answers, {time.monotonic() - started:.0f} s"


def main() -> None:
    """Read all packages, the held-out ones first."""
    tasks = [(package, sys.argv[1]) for package in all_packages()]
    with multiprocessing.get_context("fork").Pool(int(sys.argv[2]) if sys.argv[2:] else 2) as pool:
        for line in pool.imap_unordered(_build, tasks):
            print(line, flush=True)


if __name__ == "__main__":
    main()
