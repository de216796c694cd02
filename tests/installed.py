"""Build wheel and sdist, install each into a new environment, and run the program there, outside the checkout.

First without the engine, as CI that renders and checks has it; then with it.

    python tests/installed.py WORK_FOLDER TORCH

`TORCH` is what pip installs first, as in the Makefile.  Raises CalledProcessError or AssertionError.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rotary_batch import __version__
from rotary_batch.errors import ENGINE_LIBRARIES, UnavailableError

ROOT = Path(__file__).parent.parent
SOURCE = '''"""Greets people."""


def greet(name):
    """Return a greeting for `name`."""
    return f"Hello, {name}"
'''


def main(work: Path, torch: str) -> None:
    shutil.rmtree(work, ignore_errors=True)
    dist = work / "dist"
    run(sys.executable, "-m", "hatchling", "build", "-d", dist, cwd=ROOT)
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    environment = work / "environment"
    run(sys.executable, "-m", "venv", environment)
    pip = environment / "bin" / "pip"
    run(pip, "install", "--quiet", wheel)
    try_without_engine(environment)
    run(pip, "install", "--quiet", torch)
    run(pip, "install", "--quiet", f"{wheel}[engine]")
    try_program(environment / "bin" / "rotary-batch")
    run(pip, "install", "--quiet", "--force-reinstall", "--no-deps", sdist)
    try_program(environment / "bin" / "rotary-batch")


def try_program(program: Path) -> None:
    """A first night: the pages of a small repository, and every answer of the embedded model."""
    with tempfile.TemporaryDirectory() as folder:
        document(program, Path(folder))


def try_without_engine(environment: Path) -> None:
    """Pages and checks work, and a model is refused with what to install."""
    program, python = environment / "bin" / "rotary-batch", environment / "bin" / "python"
    found = f"import importlib.util; print([one for one in {ENGINE_LIBRARIES!r} if importlib.util.find_spec(one)])"
    assert run(python, "-c", found).strip() == "[]"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        repository, env = make_repository(home), environment_of(home)
        for command in ("index", "status", "render", "check"):
            run(program, command, repository, cwd=repository, env=env)
        run(program, "search", "greet", cwd=repository, env=env)
        run(program, "jobs", "list", cwd=repository, env=env)
        refused = subprocess.run([program, "run", repository], cwd=home, env=env, capture_output=True, text=True)
        assert refused.returncode == UnavailableError.exit_code, refused
        assert "run `pip install 'rotary-batch[engine]'`" in refused.stderr, refused


def document(program: Path, home: Path) -> None:
    repository, env = make_repository(home), environment_of(home)
    assert run(program, "--version", cwd=home, env=env).split() == ["rotary-batch", __version__]
    [indexed] = json.loads(run(program, "index", "--json", repository, cwd=home, env=env))
    assert indexed["parsed"] == 1, indexed
    assert "Return a greeting" in (repository / "rotary-docs" / "greet.py.md").read_text()
    [drained] = json.loads(run(program, "run", "--json", repository, cwd=home, env=env))
    assert (drained["outcome"], drained["open"], drained["parked"]) == ("done", 0, 0), drained


def make_repository(home: Path) -> Path:
    repository = home / "greetings"
    repository.mkdir(parents=True)
    (repository / "greet.py").write_text(SOURCE)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    run(*git, "init", "--quiet", cwd=repository)
    run(*git, "add", ".", cwd=repository)
    run(*git, "commit", "--quiet", "--message", "first", cwd=repository)
    return repository


def environment_of(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def run(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    return subprocess.run(command, cwd=cwd, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2])
