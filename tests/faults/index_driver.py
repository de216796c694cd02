"""Run `index` again and again, each time in a process of its own that gets a real SIGKILL at a statement.

    python index_driver.py [40,17,...] REPO

Runs that die at an even statement have a rollback journal, the others a write-ahead log.  The last run is left alone.
Prints what ended the others, how the last one ended and how many statements it had.  All runs are forks of one process
that has imported everything: 300 starts of Python would take most of the time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable

from rotary_batch import cli
from rotary_batch.planner import index as planner_index
from rotary_batch.work import connection

CHILD_FAILED = 99
JOURNALS = ("delete", "wal")


left = {"statements": 0}


def counted(inner: Callable) -> Callable:
    """Kills this process at a statement."""

    def run_statement(*arguments):
        left["statements"] -= 1
        if left["statements"] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments)

    return run_statement


def run(kill_at: int) -> tuple[int, int]:
    """The exit code of one run, negative when a signal ended it, and the number of statements."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = CHILD_FAILED
        try:
            code = index(kill_at)
            os.write(writer, b"%d" % (kill_at - left["statements"]))
        finally:
            os._exit(code)
    os.close(writer)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(reader) as counted:
        return code, int(counted.read() or 0)


def index(kill_at: int) -> int:
    left["statements"] = kill_at
    for name in ("execute", "executemany"):
        setattr(connection.Connection, name, counted(getattr(connection.Connection, name)))
    planner_index.FILES_A_COMMIT = 3
    connection.journal_mode_for = lambda _: JOURNALS[kill_at % 2]
    sys.argv = ["rotary-batch", "index", sys.argv[2]]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


if __name__ == "__main__":  # parser processes import this file too
    ended = [(-run(at)[0], JOURNALS[at % 2]) for at in json.loads(sys.argv[1])]
    exit_code, num_statements = run(0)
    killed = [one for one in ended if one[0] > 0]
    sys.stdout.write(json.dumps({"killed": killed, "exit": exit_code, "statements": num_statements}) + "\n")
