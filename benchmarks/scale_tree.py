"""Write a git repository of many small files, for tests and benchmarks of scale.

python -m benchmarks.scale_tree FOLDER 100000
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FILES_A_FOLDER = 100


def text_of(number: int) -> tuple[str, str]:
    """The ending and the text of a file: Python, JavaScript or Go, three symbols, calls within and across files.

    Python and JavaScript import from a file of their language, Go calls what another package has.
    """
    other = (number * 7919 + 13) % max(1, number) // 3 * 3 + number % 3
    there = f"area{other // FILES_A_FOLDER // 10}/part{other // FILES_A_FOLDER}/m{other}"
    if number % 3 == 0:
        return "py", (
            f'"""Module {number}: loads and checks records."""\n\nfrom {there.replace("/", ".")} import work_{other}\n\n\n'
            f"def check_{number}(value):\n    return value is not None and value > {number % 17}\n\n\n"
            f'class Record{number}:\n    """One record of table {number}."""\n\n    def load(self, path):\n'
            f"        if check_{number}(path):\n            return work_{other}(path)\n        return self.close()\n\n"
            f"    def close(self):\n        return None\n\n\ndef work_{number}(value):\n    return Record{number}()\n"
        )
    if number % 3 == 1:
        return "js", (
            f"// Draws view {number}.\nimport {{ work_{other} }} from '../../{there}'\nexport function work_{number}(value) {{\n  return draw_{number}(value, {number});\n}}\n\n"
            f"function draw_{number}(a, b) {{\n  return a > b ? work_{other}(a) : b;\n}}\n"
        )
    return "go", (
        f"// Package part serves request {number}.\npackage part\n\nfunc work_{number}(value int) int {{\n"
        f"\tif value > {number % 23} {{\n\t\treturn serve_{number}(value)\n\t}}\n\treturn work_{other}(value)\n}}\n\n"
        f"func serve_{number}(value int) int {{\n\treturn value + {number % 23}\n}}\n"
    )


def import_stream(num_files: int) -> Iterator[bytes]:
    """What `git fast-import` reads: one commit, FILES_A_FOLDER files in each folder, ten folders in each above."""
    yield b"commit refs/heads/main\ncommitter A <a@example.org> 1700000000 +0000\ndata 5\nfirst\n"
    for number in range(num_files):
        data = text_of(number)[1].encode()
        yield f"M 100644 inline {path_of(number)}\ndata {len(data)}\n".encode()
        yield data + b"\n"


def path_of(number: int) -> str:
    """Where a file is."""
    folder = number // FILES_A_FOLDER
    return f"area{folder // 10}/part{folder}/m{number}.{text_of(number)[0]}"


def write_repository(root: Path, num_files: int) -> None:
    """A bare-bones repository with these files committed and checked out."""
    root.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "-b", "main", str(root)], check=True)
    command = ["git", "-C", str(root), "fast-import", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.writelines(import_stream(num_files))
    assert process.returncode == 0
    subprocess.run(["git", "-C", str(root), "reset", "-q", "--hard"], check=True)


def commit(root: Path) -> None:
    """Commit what changed in tracked files."""
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "-C", str(root), *author, "commit", "-q", "-a", "-m", "change"], check=True)


if __name__ == "__main__":
    write_repository(Path(sys.argv[1]), int(sys.argv[2]))
