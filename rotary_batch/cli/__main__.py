"""`python -m rotary_batch.cli`."""

from __future__ import annotations

from rotary_batch.cli import main

if __name__ == "__main__":  # parser processes import this file too
    main()
