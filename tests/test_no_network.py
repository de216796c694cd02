"""A whole run opens no socket: by strace where it is there, and by the interpreter's own audit everywhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

SOURCE = {
    "src/a.py": 'def add(a, b):\n    """Adds."""\n    return a + b\n',
    "b.go": "package b\n\nfunc F() {}\n",
    # What finds secrets can verify them over the network, which it must not do.
    "c.py": 'TOKEN = "gh' + 'p_q7Zt2Lx9Wm4Kc8VbN3pR6sDfH5jY1uTeG0aQ"\n',
}
# A pair of connected sockets without a name or an address, between two processes of ours, reaches nobody else.
_UNNAMED = re.compile(r"socketpair\(AF_UNIX, SOCK_(STREAM|SEQPACKET|DGRAM)(\|SOCK_CLOEXEC)?(\|SOCK_NONBLOCK)?, 0, \[")
_ON_PAIRS = re.compile(r"(sendto|recvfrom|sendmsg|recvmsg|shutdown|getsockopt|setsockopt|getsockname|getpeername)\(")
AUDIT = """
import sys
def hook(name, arguments):
    if name.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        with open(TRIP, "a") as file:
            file.write(f"{name} {arguments!r}\\n")
sys.addaudithook(hook)
"""


@pytest.fixture(autouse=True)
def _as_by_default(monkeypatch):
    """The engine in a process of its own, to which a pair of sockets leads."""
    monkeypatch.delenv("ROTARY_BATCH_ENGINE")


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-f", "-e", "trace=network", "true"], capture_output=True).returncode == 0


def calls(trace: str) -> list[str]:
    """Calls of the kernel, without the signals and ends of processes between them."""
    lines = [re.sub(r"^(\[pid +\d+\] |\d+ +)", "", line) for line in trace.splitlines()]
    return [line for line in lines if line and not line.startswith(("---", "+++", "<..."))]


@pytest.mark.timeout(900)
@pytest.mark.skipif(not strace_works(), reason="strace is not installed, or ptrace is not permitted here")
@pytest.mark.parametrize("command", ["run", "generate", "site", "mcp"])
def test_no_call_of_the_network_reaches_the_kernel(make_repository, tmp_path, command):
    root, trace = make_repository(SOURCE), tmp_path / "trace"
    requests = tmp_path / "in.jsonl"
    requests.write_text('{"custom_id": "1", "body": {"prompt": "def f(): ", "max_tokens": 4}}\n')
    arguments = {
        "run": ["run", str(root)],
        "generate": ["generate", str(requests), "-o", str(tmp_path / "out.jsonl")],
        "site": ["site", str(root)],
        "mcp": ["mcp"],
    }[command]
    if command in {"site", "mcp"}:
        subprocess.run([sys.executable, "-m", "rotary_batch", "index", str(root)], capture_output=True, check=True)
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-qq",
            "-e",
            "trace=network",
            "-o",
            str(trace),
            sys.executable,
            "-m",
            "rotary_batch",
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode in {0, 5}, done.stderr
    found = calls(trace.read_text())
    assert [line for line in found if not _UNNAMED.match(line) and not _ON_PAIRS.match(line)] == []
    assert all("AF_INET" not in line and "AF_NETLINK" not in line for line in found)


def test_the_trace_would_show_a_socket(tmp_path):
    if not strace_works():
        pytest.skip("strace is not installed, or ptrace is not permitted here")
    script = "import socket; socket.socket(socket.AF_UNIX).close(); socket.socket(socket.AF_INET).close()"
    trace = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace), sys.executable, "-c", script], check=True
    )
    assert len([line for line in calls(trace.read_text()) if line.startswith("socket(")]) == 2


@pytest.mark.timeout(900)
def test_no_python_of_ours_asks_for_a_socket(make_repository, tmp_path):
    """The hook is in every interpreter of the run, the parser processes too."""
    root, trip = make_repository(SOURCE), tmp_path / "trip"
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(AUDIT.replace("TRIP", repr(str(trip))))
    environment = os.environ | {"PYTHONPATH": f"{hook}{os.pathsep}{os.environ['PYTHONPATH']}"}
    script = "import socket; socket.socket().close()"
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert "socket.__new__" in trip.read_text()
    trip.unlink()
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    for command in (
        ["index", root], ["export", "--requests", requests], ["generate", requests, "-o", results], ["import", results],
        ["run", root], ["search", "add"], ["inspect", "graph", root, "--format", "dot"], ["report", root], ["mcp"],
        ["export", "--sqlite", tmp_path / "code.db"], ["site", root], ["agents", root], ["verify"], ["gc"],
        ["forget", root],
    ):  # fmt: skip
        words = [sys.executable, "-m", "rotary_batch", *map(str, command)]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (command, done.stderr)
    assert (root / "rotary-docs" / "index.md").exists()
    assert (root / "rotary-site" / "index.html").exists()
    seen = trip.read_text().splitlines() if trip.exists() else []
    # The ends of a socketpair; a name, an address or a connection would be an event of its own.
    assert [line for line in seen if not re.fullmatch(r"socket\.__new__ \(<.*>, 1, 1, 0\)", line)] == []
