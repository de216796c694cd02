"""Night after night on one database, with SIGKILLs at chance moments: what leaks, what grows, what is lost.

    python -m benchmarks.soak run HOURS FOLDER     writes FOLDER/trace.jsonl; FOLDER must not exist
    python -m benchmarks.soak report FOLDER        writes benchmarks/soak.md and soak.svg

Each round edits a small repository, then runs `rotary-batch run` with the embedded model until it ends by itself; before
that some runs are killed after a time by chance.  The journal mode alternates from round to round.  After each round
`verify` looks for anything that is wrong, and at the end the docs are held against those of a fresh database.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.shapes import machine

HERE = Path(__file__).parent
SAMPLE_S = 0.5
TARGET_HOURS = 2
MOST_KILLS_A_ROUND = 6
NUM_FILES = 12
MODES = ("delete", "wal")
DRIVER = """
import sys
from rotary_batch.work import connection
connection.journal_mode_for = lambda _: {mode!r}
from rotary_batch import cli
if __name__ == "__main__":
    sys.argv = ["rotary-batch", *sys.argv[1:]]
    cli.main()
"""


class Place(NamedTuple):
    """Where a soak happens."""

    folder: Path

    @property
    def repo(self) -> Path:
        return self.folder / "project"

    @property
    def database(self) -> Path:
        return self.folder / "work.db"

    def prepare(self) -> None:
        self.repo.mkdir(parents=True)
        for mode in MODES:
            (self.folder / f"{mode}.py").write_text(DRIVER.format(mode=mode), encoding="utf-8")
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "gc.auto=0"]
        subprocess.run(["git", "-C", self.repo, *who, *arguments], check=True)

    def command(self, mode: str, *arguments: str) -> list[str]:
        return [sys.executable, str(self.folder / f"{mode}.py"), *arguments, "--db", str(self.database)]


def edit(place: Place, version: int) -> None:
    """Each version has a changed, a new and a gone file."""
    for number in range(NUM_FILES if version == 0 else 0):
        write_module(place.repo / f"part{number % 3}" / f"m{number}.py", number, 0)
    write_module(place.repo / f"part{version % 3}" / f"m{version % NUM_FILES}.py", version % NUM_FILES, version)
    write_module(place.repo / f"new{version}.py", version, version)
    (place.repo / f"new{version - 1}.py").unlink(missing_ok=True)
    place.git("add", "-A", ":!rotary-docs")
    place.git("commit", "-q", "-m", f"version {version}")


def write_module(path: Path, number: int, version: int) -> None:
    path.parent.mkdir(exist_ok=True)
    functions = [
        f'def work_{number}_{n}(value):\n    """Add {n}."""\n    return helper(value + {n + version})\n'
        for n in range(3)
    ]
    path.write_text("\n\n".join(functions), encoding="utf-8")


class Run(NamedTuple):
    """One process: how it ended, and what was seen of it."""

    code: int
    seconds: float
    samples: list[dict[str, float]]
    output: str


def watched(place: Place, command: Sequence[str], kill_after_s: float | None) -> Run:
    """Run a command, look at it twice a second, and kill it after some time."""
    began, samples = time.monotonic(), []
    with (place.folder / "output").open("w+", encoding="utf-8") as output:
        # A session of its own: its engine and parsers are killed with it, as by the machine that goes down.
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        while process.poll() is None:
            elapsed_s = time.monotonic() - began
            if kill_after_s is not None and elapsed_s >= kill_after_s:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
            samples.append(sample(place, process.pid, elapsed_s))
            time.sleep(min(SAMPLE_S, max(0.0, (kill_after_s or elapsed_s + 1) - elapsed_s)))
        output.seek(0)
        return Run(process.returncode, time.monotonic() - began, samples, output.read())


def sample(place: Place, pid: int, elapsed_s: float) -> dict[str, float]:
    return {
        "at_s": round(elapsed_s, 2),
        "memory": resident_nbytes(pid),
        "database": nbytes_of(place.database),
        "log": nbytes_of(Path(f"{place.database}-wal")),
    }


def resident_nbytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # it ended
        return 0


def nbytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def live_round(place: Place, number: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Edit, run and kill, run to the end, verify; yields a row for each process."""
    edit(place, number)
    mode, usual_s = MODES[number % 2], 15.0
    for _ in range(chance.randint(0, MOST_KILLS_A_ROUND) if number else 0):
        run = watched(place, place.command(mode, "run", str(place.repo)), chance.uniform(0.5, usual_s))
        yield row(number, mode, "killed" if run.code == -signal.SIGKILL else "ended", run)
        if run.code not in {0, 5, -signal.SIGKILL}:
            raise SystemExit(f"exit code {run.code}: {run.output}")
        if run.code != -signal.SIGKILL:
            break
    done = watched(place, place.command(mode, "run", str(place.repo), "--json"), None)
    text = done.output[done.output.find("\n[{") + 1 :] if "\n[{" in done.output else done.output
    if done.code not in {0, 5}:
        raise SystemExit(f"exit code {done.code}: {done.output}")
    report = json.loads(text.splitlines()[-1])[0]
    yield row(number, mode, "done", done) | {
        name: report[name] for name in ("done", "parked", "prefill_tokens", "decode_tokens", "drain_s", "open")
    }
    check = watched(place, place.command(mode, "verify", str(place.repo)), None)
    yield row(number, mode, "verified" if check.code == 0 else "broken", check) | {
        "output": "" if check.code == 0 else check.output
    }


def row(number: int, mode: str, outcome: str, run: Run) -> dict[str, Any]:
    return {"round": number, "mode": mode, "outcome": outcome, "seconds": round(run.seconds, 2), "samples": run.samples}


def soak(hours: float, folder: Path) -> None:
    place, chance, began = Place(folder), random.Random(23), time.time()
    place.prepare()
    number = 0
    while time.time() - began < hours * 3600:
        for one in live_round(place, number, chance):
            note(place, one | {"at_s": round(time.time() - began, 1)})
        number += 1
    note(place, {"outcome": "compared", "differ": differing(place), "at_s": round(time.time() - began, 1)})


def note(place: Place, one: dict[str, Any]) -> None:
    with (place.folder / "trace.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(one) + "\n")


def differing(place: Place) -> list[str]:
    """The pages that an undisturbed run into a new database writes otherwise."""
    calm = Place(place.folder / "calm")
    calm.folder.mkdir()
    shutil.copytree(place.repo, calm.repo, ignore=shutil.ignore_patterns("rotary-docs"))
    shutil.copy(place.folder / "delete.py", calm.folder)
    subprocess.run(calm.command("delete", "run", str(calm.repo)), check=True, capture_output=True)
    storm, undisturbed = pages(place.repo / "rotary-docs"), pages(calm.repo / "rotary-docs")
    return sorted(path for path in storm.keys() | undisturbed.keys() if storm.get(path) != undisturbed.get(path))


def pages(docs: Path) -> dict[str, bytes]:
    return {str(path.relative_to(docs)): path.read_bytes() for path in docs.rglob("*") if path.is_file()}


def peaks(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    """Hours since the start, and the most of each run that ended by itself."""
    whole = [one for one in rows if one["outcome"] == "done" and one["samples"]]
    return [(one["at_s"] / 3600, max(each[name] for each in one["samples"])) for one in whole]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line with the least squares; a unit an hour."""
    if len(points) < 2:
        return 0.0
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def throughput(rows: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    done = [one for one in rows if one["outcome"] == "done" and one["done"]]
    return [(one["at_s"] / 3600, (one["prefill_tokens"] + one["decode_tokens"]) / one["drain_s"]) for one in done]


def within(rows: Sequence[dict[str, Any]]) -> float:
    """How much memory grew from the middle of the longest run to its end, in bytes."""
    longest = max((one["samples"] for one in rows if one["outcome"] == "done"), key=len)
    half = [each["memory"] for each in longest if each["memory"]][len(longest) // 2 :]
    return half[-1] - half[0]


def draw(rows: Sequence[dict[str, Any]], target: Path) -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("svg")
    figure, axes = plt.subplots(2, 2, figsize=(10, 6), layout="constrained")
    series: list[tuple[str, list[tuple[float, float]], float]] = [
        ("memory of the driver, peak of each run (MB)", peaks(rows, "memory"), 1e6),
        ("database (MB)", peaks(rows, "database"), 1e6),
        ("write-ahead log, peak of each run (MB)", peaks(rows, "log"), 1e6),
        ("prompt and generated tokens a second", throughput(rows), 1.0),
    ]
    for axis, (title, points, unit) in zip(axes.flat, series, strict=True):
        axis.plot([x * 60 for x, _ in points], [y / unit for _, y in points], marker=".")
        axis.set(title=title, xlabel="minutes")
        axis.set_ylim(0, 1.1 * max(y for _, y in points) / unit or 1)
    figure.savefig(target, metadata={"Date": None})


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown file."""
    hours, end = rows[-1]["at_s"] / 3600, rows[-1]
    killed = Counter(one["mode"] for one in rows if one["outcome"] == "killed")
    rounds = sum(one["outcome"] == "done" for one in rows)
    broken = [one for one in rows if one["outcome"] == "broken"]
    answered = sum(one["done"] for one in rows if one["outcome"] == "done")
    short = "" if hours >= TARGET_HOURS else f" It is shorter than the {TARGET_HOURS} hours that are the target."
    memory, log, database = peaks(rows, "memory"), peaks(rows, "log"), peaks(rows, "database")
    return f"""# Soak: nights without end

Machine: {machine()}. Length: **{hours * 60:.0f} minutes** ({hours:.2f} hours).{short} Command: `make soak HOURS={hours:.2g}`.

`rotary-batch run` with the embedded model on one repository of {NUM_FILES + 1} files and one database, again and again. Every
round edits the repository (a changed, a new and a gone file), kills some runs with SIGKILL after 0.5 to 15 s, lets one end by
itself, and then runs `verify`. Rounds alternate between the rollback journal and the write-ahead log.

| | |
| --- | ---: |
| rounds | {rounds} |
| SIGKILLs, rollback journal | {killed["delete"]} |
| SIGKILLs, write-ahead log | {killed["wal"]} |
| items answered in runs that ended by themselves | {answered:,} |
| rounds after which `verify` found something | {len(broken)} |
| pages that differ from those of an undisturbed run into a new database | {len(end.get("differ", []))} |
| peak memory of the driver: first run, last run | {memory[0][1] / 1e6:.0f} MB, {memory[-1][1] / 1e6:.0f} MB |
| slope of that peak from run to run | {slope(memory[1:]) / 1e6:+.1f} MB an hour |
| growth within the second half of the longest run | {within(rows) / 1e6:+.1f} MB |
| largest write-ahead log | {max(y for _, y in log) / 1e6:.1f} MB |
| database at the end | {database[-1][1] / 1e6:.1f} MB |
| tokens a second, mean | {sum(y for _, y in throughput(rows)) / max(1, len(throughput(rows))):,.0f} |

Each run is a process of its own, so memory that one leaks is gone with it; the growth within a run is what matters. The driver
is measured, not the process of its engine. Other programs used the machine too; they make some runs slow. The database grows with each round, because answers stay for 30 days (`gc`).

![memory, database, log and throughput over the soak](soak.svg)
"""


def main() -> None:
    match sys.argv[1:]:
        case ["run", hours, folder]:
            soak(float(hours), Path(folder).resolve())
        case ["report", folder]:
            rows = [
                json.loads(line) for line in (Path(folder) / "trace.jsonl").read_text(encoding="utf-8").splitlines()
            ]
            draw(rows, HERE / "soak.svg")
            (HERE / "soak.md").write_text(report(rows), encoding="utf-8")
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
