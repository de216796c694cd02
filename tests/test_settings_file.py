"""`init` and `config show`: the settings file is complete and loads, and every value says where it comes from."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from rotary_batch.commands.settings_file import DESCRIBED
from rotary_batch.config import Settings, user_values


def rotary(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment, timeout=100)


@pytest.fixture
def written(tmp_path) -> Path:
    done = rotary("init", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"settings: {tmp_path}/rotary.toml\n", "")
    return tmp_path / "rotary.toml"


def load(path: Path) -> dict[str, object]:
    return {name: value for name, (value, _) in user_values(flags={}, environment={}, folders=(), config=path).items()}


def test_the_file_sets_nothing_and_each_line_of_it_loads(written):
    text = written.read_text()
    assert load(written) == {}
    lines = re.findall(r"^# (\w+ = .*)$", text, re.MULTILINE)
    assert [line.split(" = ")[0] for line in lines] == [field.name for field in fields(Settings)]
    for line in lines:
        written.write_text(text.replace(f"# {line}\n", f"{line}\n"))
        assert list(load(written)) == [line.split(" = ")[0]]
    written.write_text("\n".join(lines))
    everything, defaults = Settings(**load(written)), Settings()
    shows_default = [name for name, described in DESCRIBED.items() if described.default is None and name != "db"]
    assert [getattr(everything, name) for name in shows_default] == [getattr(defaults, name) for name in shows_default]


def test_a_file_is_never_overwritten(written):
    written.write_text("mine\n")
    done = rotary("init", cwd=written.parent)
    assert (done.returncode, done.stdout, written.read_text()) == (3, "", "mine\n")
    assert done.stderr == f"rotary-batch: {written} exists already; edit it, or move it away first\n"


def test_in_a_repository_the_file_goes_to_the_user(make_repository, tmp_path):
    root = make_repository({"a.py": "a = 1\n"})
    done = rotary("init", "--json", cwd=root, XDG_CONFIG_HOME=str(tmp_path / "config"))
    path = tmp_path / "config" / "rotary-batch" / "rotary.toml"
    assert json.loads(done.stdout) == {"file": str(path), "in_repository": True}
    assert "is not trusted" in done.stderr
    assert path.is_file()
    assert not (root / "rotary.toml").exists()


def test_every_setting_says_where_it_comes_from(make_repository, tmp_path):
    root = make_repository(
        {"a.py": "a = 1\n", "rotary.toml": 'exclude = ["tests/"]\nout = "docs/api"\ndevice = "cuda"\n'}
    )
    (tmp_path / "my.toml").write_text('kv = "int8"\nmax_batch = 7\nout = "pages"\n')
    environment = {"ROTARY_BATCH_MAX_BATCH": "9", "ROTARY_BATCH_DEVICE_MEMORY": "2GB", "XDG_STATE_HOME": str(tmp_path)}
    arguments = ("config", "show", root, "--config", tmp_path / "my.toml", "--device-memory", "3GB", "--worktree")
    rows = json.loads(rotary(*arguments, "--json", cwd=tmp_path, **environment).stdout)
    assert [row["setting"] for row in rows] == [field.name for field in fields(Settings)]
    assert {row["setting"]: (row["value"], row["source"]) for row in rows if row["source"] != "default"} == {
        "exclude": (["tests/"], f"{root}/rotary.toml"),
        "out": ("pages", f"{tmp_path}/my.toml"),
        "worktree": (True, "--worktree"),
        "device_memory": (3 * 10**9, "--device-memory"),
        "max_batch": (9, "ROTARY_BATCH_MAX_BATCH"),
        "yields": (False, "ROTARY_BATCH_YIELDS"),
        "engine": ("in-process", "ROTARY_BATCH_ENGINE"),
        "kv": ("int8", f"{tmp_path}/my.toml"),
    }
    assert rows[0] == {"setting": "db", "value": str(tmp_path / "rotary-batch" / "work.db"), "source": "default"}
    shown = rotary(*arguments, cwd=tmp_path, **environment)
    assert "ignored: device" in shown.stderr
    table = {line.split()[0]: re.split(r"  +", line)[1:] for line in shown.stdout.splitlines()}
    assert table["setting"] == ["value", "from"]
    assert table["device_memory"] == ["3.0 GB", "--device-memory"]
    assert table["model"] == ["the demonstration model", "default"]
