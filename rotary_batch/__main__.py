"""`rotary-batch` and `python -m rotary_batch`.  A failing import also ends in one line and an exit code."""

from __future__ import annotations

import platform

from rotary_batch import interrupts


def main() -> None:
    """Run the command line."""
    interrupts.stop_at_once()
    from rotary_batch.process import guarded

    guarded(_command)


def _command() -> None:
    _require_linux()
    from rotary_batch.cli import app

    app()


def _require_linux() -> None:
    """Called before anything is imported that exists only there."""
    from rotary_batch.errors import UnavailableError

    if platform.system() != "Linux":
        raise UnavailableError(
            f"rotary-batch runs on Linux only, and this is {platform.system()}; on Windows, use it inside WSL 2"
        )


if __name__ == "__main__":
    main()
