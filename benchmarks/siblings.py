"""Several questions about one text: seconds for each text with and without computing it once, and what a step costs.

    python benchmarks/siblings.py [--numerics fast|exact] [--chunks N] [--siblings 8] [--no-sharing] [--profile]

Chunks are cut from this repository's own source.  Wall time and CPU time of the process, so that a busy machine shows.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import time
from pathlib import Path
from typing import Any

from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.model.footprint import Workload
from rotary_batch.model.tokens import Tokenizer

OWN_TOKENS = 6  # of a sibling's prompt: the name that it is asked about
SOURCE = Path(__file__).parents[1] / "rotary_batch"


def requests(tokenizer: Tokenizer, options: argparse.Namespace) -> list[Request]:
    """Siblings next to each other, as the queue claims them; all begin with the same 60 tokens."""
    ids = tokenizer.encode("\n".join(path.read_text() for path in sorted(SOURCE.rglob("*.py"))[:60]))
    job, body = tuple(ids[:60]), options.prompt - 60
    chunks = [job + tuple(ids[1000 + n * body : 1000 + (n + 1) * body]) for n in range(options.chunks)]
    names = [tuple(ids[60 + OWN_TOKENS * n : 60 + OWN_TOKENS * (n + 1)]) for n in range(options.siblings)]
    return [
        Request(
            request_id=n,
            prompt_ids=chunk + name,
            max_new_tokens=options.new,
            shared_tokens=options.prompt if options.sharing else 0,
        )
        for n, (chunk, name) in enumerate((chunk, name) for chunk in chunks for name in names)
    ]


def drained(engine: RotaryEngine, todo: list[Request]) -> dict[str, Any]:
    """Run everything; seconds and tokens, of steps with prompt tokens and of those without."""
    engine.stop_ids = frozenset()
    waiting, most_live = list(todo), 0
    totals = {kind: {"steps": 0, "wall_s": 0.0, "cpu_s": 0.0, "tokens": 0} for kind in ("prefill", "decode")}
    while waiting or engine.num_live:
        while waiting and engine.has_room(waiting[0]):
            engine.admit(waiting.pop(0))
        most_live = max(most_live, engine.num_live)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        report = engine.step()
        total = totals["prefill" if report.prefill_tokens else "decode"]
        total["steps"] += 1
        total["wall_s"] += time.perf_counter() - wall_s
        total["cpu_s"] += time.process_time() - cpu_s
        total["tokens"] += report.prefill_tokens or report.decode_tokens
    return totals | {"most_live": most_live}


def main() -> None:
    """Measure once and print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--numerics", default="fast")
    parser.add_argument("--chunks", type=int, default=2)
    parser.add_argument("--siblings", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=1300)
    parser.add_argument("--new", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--no-sharing", dest="sharing", action="store_false")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    length = options.prompt + OWN_TOKENS + options.new
    engine = open_engine(
        options.model,
        numerics=options.numerics,
        workload=Workload(options.chunks * options.siblings, options.prompt, options.new, length),
        max_batch=options.batch,
        draft_tokens=0,
        share_prefixes=options.sharing,
    )
    engine.generate([list(range(20))], 3)
    todo = requests(Tokenizer.load(options.model), options)
    profile = cProfile.Profile()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    if options.profile:
        profile.enable()
    figures = drained(engine, todo)
    profile.disable()
    figures |= {
        "wall_s_per_chunk": (time.perf_counter() - wall_s) / options.chunks,
        "cpu_s_per_chunk": (time.process_time() - cpu_s) / options.chunks,
    }
    print(json.dumps(figures))
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    engine.close()


if __name__ == "__main__":
    main()
