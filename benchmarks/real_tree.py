"""A tree of 100,000 real source files: `rotary-batch index` versus `ctags -R` and a plain tree-sitter parse.

    python -m benchmarks.real_tree make TREE 100000 16000 FOLDER ...     copies files of at most 16,000 bytes of these folders
    python -m benchmarks.real_tree measure TREE CTAGS              prints the tables of benchmarks/reading.md

A tree takes whole folders, in an order of a fixed seed and in turn from each language, and no content twice.  Other work
on a machine changes the time on the clock; processor seconds much less, so both are printed.  Memory is that of all
processes of a command together, each page that they share counted once (PSS), looked at every 0.2 s.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tree_sitter import Parser

from rotary_batch.repo.languages import LANGUAGES, grammar, language_of

POLL_S = 0.2
_FAMILIES = {"tsx": "typescript", "cpp": "c"}  # headers of both end in .h


class Measured(NamedTuple):
    """What one command took, with all processes that it started."""

    wall_s: float
    cpu_s: float
    own_cpu_s: float  # of its first process
    peak_nbytes: int
    output: str


def make(tree: Path, num_files: int, max_nbytes: int, folders: Sequence[Path]) -> None:
    """A new git repository of that many files, none larger than `max_nbytes`, committed and packed as a clone is."""
    tree.mkdir(parents=True)
    seen: set[bytes] = set()
    for source, name in _chosen(folders, max_nbytes):
        data = source.read_bytes()
        digest = hashlib.blake2b(data, digest_size=16).digest()
        target = tree / name
        if digest in seen or not data or target.exists():
            continue
        seen.add(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        if len(seen) == num_files:
            break
    git = ["git", "-C", str(tree), "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "gc.auto=0"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "-A", "-f", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "first"], check=True)
    subprocess.run([*git, "repack", "-q", "-a", "-d"], check=True)
    print(f"{len(seen):,} files")


def _chosen(folders: Sequence[Path], max_nbytes: int) -> Iterator[tuple[Path, str]]:
    """Files, each with its path in the tree: of one whole folder after another, in turn from each language."""
    by_family: dict[str, dict[Path, list[tuple[Path, str]]]] = {}
    for place, top in enumerate(folders):
        for folder, inner, names in os.walk(top):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                path, language = Path(folder, name), language_of(name)
                if language is None or LANGUAGES[language].is_data or not _is_readable(path, max_nbytes):
                    continue
                family = _FAMILIES.get(language, language)
                shown = f"{place:02}-{top.name}/{path.relative_to(top)}"
                by_family.setdefault(family, {}).setdefault(Path(folder), []).append((path, shown))
    shuffled = random.Random(19)
    waiting = []
    for family in sorted(by_family):
        groups = [by_family[family][folder] for folder in sorted(by_family[family])]
        shuffled.shuffle(groups)
        waiting.append(one for group in groups for one in group)
    while waiting:
        for files in list(waiting):
            if (one := next(files, None)) is not None:
                yield one
            else:
                waiting.remove(files)


def _is_readable(path: Path, max_nbytes: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= max_nbytes


def run(command: Sequence[str], environment: Mapping[str, str]) -> Measured:
    """Run a command to its end.  Raises CalledProcessError when it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(environment)) as process:
        watch = _Watch(process.pid)
        watch.start()
        output = process.communicate()[0]
        wall_s = time.monotonic() - began
        watch.is_done.set()
        watch.join()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(command))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(wall_s, cpu_s, watch.own_cpu_s, watch.peak_nbytes, output)


class _Watch(threading.Thread):
    """Looks at a process and those below it until it is told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self.is_done = threading.Event()
        self.peak_nbytes = 0
        self.own_cpu_s = 0.0

    def run(self) -> None:
        """Until the process ends."""
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        while not self.is_done.wait(POLL_S):
            self.peak_nbytes = max(self.peak_nbytes, sum(map(_pss_nbytes, _family(self._pid))))
            fields = _text(f"/proc/{self._pid}/stat").rpartition(")")[2].split()
            if len(fields) > 12 and fields[0] != "Z":
                self.own_cpu_s = (int(fields[11]) + int(fields[12])) * tick_s


def _family(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for child in _text(f"/proc/{pid}/task/{pid}/children").split():
        yield from _family(int(child))


def _pss_nbytes(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+) kB", _text(f"/proc/{pid}/smaps_rollup"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii")
    except (OSError, UnicodeError):  # the process ended
        return ""


def parse_plainly(tree: Path, languages: Mapping[str, str]) -> dict[str, tuple[int, int, float]]:
    """Of each language: files, bytes, and processor seconds to read and parse them, with no query."""
    found: dict[str, tuple[int, int, float]] = {}
    parsers = {name: Parser(grammar(name)) for name in set(languages.values())}
    for path, language in languages.items():
        began = time.process_time()
        data = (tree / path).read_bytes()
        parsers[language].parse(data)
        files, nbytes, cpu_s = found.get(language, (0, 0, 0.0))
        found[language] = files + 1, nbytes + len(data), cpu_s + time.process_time() - began
    return found


def measure(tree: Path, ctags: str) -> None:
    """Print what each tool takes on the same tree."""
    with tempfile.TemporaryDirectory() as folder:
        state = {f"XDG_{name}_HOME": str(Path(folder) / name.lower()) for name in ("STATE", "CACHE", "CONFIG")}
        environment = {**os.environ, **state}
        program = [sys.executable, "-m", "rotary_batch"]
        first = run([*program, "index", str(tree), "--json"], environment)
        again = run([*program, "index", str(tree), "--json"], environment)
        listed = run([*program, "inspect", "files", str(tree), "--jsonl"], environment)
        files = [json.loads(line) for line in listed.output.splitlines()]
        read = {one["path"]: one for one in files if one["class"] == "source"}
        tags = run([ctags, "-R", "-f", str(Path(folder) / "tags"), "--exclude=rotary-docs", str(tree)], environment)
        shutil.rmtree(tree / "rotary-docs", ignore_errors=True)
    languages = {path: one["language"] for path, one in read.items() if one["language"] in LANGUAGES}
    plain = parse_plainly(tree, languages)
    nbytes, num_files = sum(one["bytes"] for one in read.values()), len(read)
    print(json.dumps(json.loads(first.output), indent=1))
    print(f"\n{len(files):,} files, of which {num_files:,} are read as sources: {nbytes / 1e6:,.0f} MB", end="; ")
    print(", ".join(f"{name} {count:,}" for name, count in Counter(one["class"] for one in files).most_common()))
    print("\n| Command | Wall s | CPU s | MB/s on the clock | MB per CPU second | Files/s | Peak MB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, one in (("index", first), ("index again", again), ("ctags -R", tags)):
        print(
            f"| {name} | {one.wall_s:,.0f} | {one.cpu_s:,.0f} | {nbytes / 1e6 / one.wall_s:.1f} |"
            f" {nbytes / 1e6 / one.cpu_s:.2f} | {num_files / one.wall_s:,.0f} | {one.peak_nbytes / 1e6:,.0f} |"
        )
    plain_s = sum(cpu_s for _, _, cpu_s in plain.values())
    print(f"| tree-sitter alone, 1 process | | {plain_s:,.0f} | | {nbytes / 1e6 / plain_s:.2f} | | |")
    print(
        f"\nindex: {first.own_cpu_s:,.0f} CPU s in the main process, {first.cpu_s - first.own_cpu_s:,.0f} in parsers\n"
    )
    print("| Language | Files | MB | tree-sitter alone, MB per CPU second |\n| --- | ---: | ---: | ---: |")
    for name, (count, size, cpu_s) in sorted(plain.items(), key=lambda one: -one[1][1]):
        print(f"| {name} | {count:,} | {size / 1e6:.1f} | {size / 1e6 / cpu_s:.1f} |")


def main() -> None:
    match sys.argv[1:]:
        case ["make", tree, num_files, max_nbytes, *folders]:
            make(Path(tree), int(num_files), int(max_nbytes), [Path(folder) for folder in folders])
        case ["measure", tree, ctags]:
            measure(Path(tree), ctags)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
