"""`rotary-batch` and `python -m rotary_batch`.  A failing import also ends in one line and an exit code."""

from __future__ import annotations

from rotary_batch import interrupts


def main() -> None:
    """Run the command line."""
    interrupts.stop_at_once()
    from rotary_batch.process import guarded

    guarded(_command)


def _command() -> None:
    from rotary_batch.cli import app

    app()


if __name__ == "__main__":
    main()
