"""Fixtures that are real: a checkpoint on disk, a git repository, a SQLite file."""

from __future__ import annotations

import os

# One thread each: two workers share the cores, and threads that wait for each other at every small matmul crawl.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from rotary_batch.commands import default_model
from rotary_batch.testing import write_tiny_checkpoint

if not torch.cuda.is_available():  # before anything imports Triton, which looks once
    os.environ["TRITON_INTERPRET"] = "1"

GIT_ENVIRONMENT = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}

settings.register_profile("suite", deadline=None)  # by default an example of 0.2 s is a failure, also on a busy machine
settings.load_profile("suite")


KERNELS = Path(__file__).parents[1] / "build" / "kernels"  # compiled once, which takes half a minute
WITHOUT_SMOLLM2 = Path(__file__).with_name("without_smollm2")  # its package without the model


@pytest.fixture(scope="session", autouse=True)
def _of_the_session(tmp_path_factory):
    """For fixtures of a module or the session, which come before `_own_folders`: the cache, and the small model.

    The default model with the package of SmolLM2 takes minutes where the embedded one takes seconds.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(_cache_in(tmp_path_factory.mktemp("session"))))
        patch.setattr(default_model, "_base", lambda: None)
        patch.setenv("PYTHONPATH", str(WITHOUT_SMOLLM2), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def kernels_folder() -> Path:
    """The compiled kernels of this processor, which all tests share."""
    return KERNELS


@pytest.fixture(autouse=True)
def _own_folders(tmp_path_factory, monkeypatch):
    """Nothing a test does reaches the user's state, cache or settings."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("ROTARY_BATCH_") and name != "ROTARY_BATCH_MAX_ISA"]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)  # the program sets it, also where it runs within a test
    monkeypatch.setenv("ROTARY_BATCH_YIELDS", "false")  # whatever else this machine does while tests run
    monkeypatch.setenv("ROTARY_BATCH_ENGINE", "in-process")  # tests put others in its place; test_pools has both
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(_cache_in(home)))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    for name, value in GIT_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def _cache_in(home: Path) -> Path:
    """A cache folder that is empty but for the kernels."""
    KERNELS.mkdir(parents=True, exist_ok=True)
    cache = home / "cache"
    (cache / "rotary-batch").mkdir(parents=True)
    (cache / "rotary-batch" / "kernels").symlink_to(KERNELS)
    return cache


CUDA = [pytest.param("cuda", marks=pytest.mark.gpu)] if torch.cuda.is_available() else []


@pytest.fixture(scope="session", params=["cpu", *CUDA])
def device(request) -> str:
    """The laws of the engine are the same on both."""
    return request.param


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def tiny_pack(tiny_checkpoint, tmp_path_factory) -> Path:
    from rotary_batch.engine.packs.pack import pack

    folder = tmp_path_factory.mktemp("pack")
    pack(tiny_checkpoint, folder)
    return folder


@pytest.fixture
def git():
    """Run git in a folder: `git(folder, "add", ".")`."""

    def run(folder: Path, *arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    return run


@pytest.fixture
def make_repository(tmp_path, git):
    """A real git repository with the given files, committed."""

    def make(files: dict[str, str | bytes], name: str = "project") -> Path:
        root = tmp_path / name
        for path, text in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text if isinstance(text, bytes) else text.encode())
        root.mkdir(exist_ok=True)
        git(root, "init", "-q", "-b", "main")
        git(root, "add", "-A")
        git(root, "commit", "-q", "-m", "first", "--allow-empty")
        return root

    return make


@pytest.fixture(scope="session")
def shim(tmp_path_factory) -> Path:
    """tests/faults/shim.c, by the compiler that the kernels need."""
    source, target = Path(__file__).with_name("faults") / "shim.c", tmp_path_factory.mktemp("shim") / "shim.so"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", target, source, "-ldl"]
    subprocess.run(command, check=True)
    return target
