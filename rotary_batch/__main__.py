"""`rotary-batch` and `python -m rotary_batch`.  A failing import also ends in one line and an exit code."""

from __future__ import annotations

import platform

from rotary_batch.errors import UnavailableError
from rotary_batch.process import guarded


def main() -> None:
    """Run the command line."""
    guarded(_command)


def _command() -> None:
    if platform.system() != "Linux":  # before anything is imported that exists only there
        raise UnavailableError(
            f"rotary-batch runs on Linux only, and this is {platform.system()}; on Windows, use it inside WSL 2"
        )
    from rotary_batch.cli import app

    app()


if __name__ == "__main__":
    main()
