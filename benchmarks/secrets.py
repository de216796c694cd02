"""How fast sources are searched for secrets, and what is found in code that is public.

python -m benchmarks.secrets FOLDER...
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from pathlib import Path

from rotary_batch.repo.languages import language_of
from rotary_batch.repo.secrets import without_secrets

MAX_NBYTES = 1_000_000


def main() -> None:
    for folder in map(Path, sys.argv[1:]):
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and language_of(path.name)]
        sources = [(path, path.read_bytes()) for path in paths if path.stat().st_size <= MAX_NBYTES]
        begun, found = time.process_time(), list[tuple[Path, str]]()
        for path, source in sources:
            masked, findings = without_secrets(source)
            assert len(masked) == len(source)
            found += [(path, f"{one.line} {one.kind}") for one in findings]
        seconds, nbytes = time.process_time() - begun, sum(len(source) for _, source in sources)
        kinds = Counter(one.partition(" ")[2] for _, one in found)
        print(
            f"{folder}: {len(sources):,} files, {nbytes / 1e6:.1f} MB, {seconds:.2f} s, {nbytes / 1e6 / seconds:.0f} MB/s, {dict(kinds)}"
        )
        for path, where in random.Random(1).sample(found, min(25, len(found))):
            line = path.read_bytes().split(b"\n")[int(where.split()[0]) - 1]
            print("   ", path.name, where, line.strip()[:150])


if __name__ == "__main__":
    main()
