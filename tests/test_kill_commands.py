"""`render`, `model pack` and `generate`, killed at drawn calls of the operating system: the next run leaves the same bytes."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rotary_batch.testing import write_tiny_checkpoint

KILLER = Path(__file__).parent / "faults" / "killer.py"
NUM_KILLS = 50


def killed_at(count: int, *arguments: object, may_end: bool = False) -> int:
    """Run a command that dies at its `count`th call; with 0 it ends by itself.  Returns the number of calls."""
    command = [sys.executable, str(KILLER), str(count), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    expected = {-signal.SIGKILL} if count else {0}
    assert done.returncode in expected | ({0} if may_end else set()), done.stderr
    return 0 if count else int(re.findall(r"^calls (\d+)$", done.stderr, re.MULTILINE)[-1])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def storm(num_kills: int, arguments: list[object], reset: Callable[[], None], result: Callable[[], object]) -> None:
    """Kill once or twice at drawn calls, then let it end: the result is that of an undisturbed run."""
    for _ in range(2):  # the first may compile kernels, and so make more calls
        reset()
        calls = killed_at(0, *arguments)
    calm = result()
    assert calls > 10
    chance, left = random.Random(11), num_kills
    while left:
        reset()
        killed_at(chance.randint(1, calls - 1), *arguments)
        left -= 1
        if left and chance.random() < 0.3:
            killed_at(chance.randint(1, 20), *arguments, may_end=True)  # early, while it finds its place
            left -= 1
        killed_at(0, *arguments)
        assert result() == calm


def check_pack(tmp_path: Path, num_kills: int, experts: str) -> None:
    source, target = write_tiny_checkpoint(tmp_path / "hf", num_shards=2), tmp_path / "pack"
    storm(
        num_kills,
        ["model", "pack", source, target, "--experts", experts],
        reset=lambda: shutil.rmtree(target, ignore_errors=True),
        result=lambda: tree(target),
    )


def check_render(make_repository: Callable[[dict[str, str]], Path], num_kills: int) -> None:
    root = make_repository({f"src/m{n}.py": f'"""M {n}."""\n\n\ndef f{n}(a):\n    return a + {n}\n' for n in range(6)})
    assert (
        subprocess.run([sys.executable, "-m", "rotary_batch", "index", str(root)], capture_output=True).returncode == 0
    )
    docs = root / "rotary-docs"
    storm(num_kills, ["render", root], reset=lambda: shutil.rmtree(docs), result=lambda: tree(docs))


def check_generate(tmp_path: Path, num_kills: int) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts = [f"def add_{n}(a, b):\n    return a + b" for n in range(12)]
    rows = [{"custom_id": str(n), "body": {"prompt": text, "max_tokens": 3 + n}} for n, text in enumerate(prompts)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answers() -> dict[str, str]:
        lines = target.read_text().splitlines()
        results = {json.loads(line)["custom_id"]: line for line in lines}
        assert len(results) == len(lines) == len(rows)
        return results

    storm(
        num_kills,
        ["generate", source, "-o", target, "--max-batch", "3"],
        reset=lambda: target.unlink(missing_ok=True),
        result=answers,
    )


def test_a_few_kills_of_render_change_nothing(make_repository):
    check_render(make_repository, 4)


@pytest.mark.faults
def test_fifty_kills_of_render_change_nothing(make_repository):
    check_render(make_repository, NUM_KILLS)


def test_a_few_kills_of_model_pack_change_nothing(tmp_path):
    check_pack(tmp_path, 3, "bf16")


@pytest.mark.faults
@pytest.mark.parametrize("experts", ["bf16", "int8"])
def test_fifty_kills_of_model_pack_change_nothing(tmp_path, experts):
    check_pack(tmp_path, NUM_KILLS, experts)


@pytest.mark.faults
def test_fifty_kills_of_generate_change_nothing(tmp_path):
    check_generate(tmp_path, NUM_KILLS)
