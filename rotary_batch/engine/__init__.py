"""The inference engine, the only part that needs torch; `open_engine` imports it on first use."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotary_batch.errors import UnavailableError
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.host import address_space_left_nbytes

if TYPE_CHECKING:
    from rotary_batch.engine.engine import RotaryEngine

TORCH_NBYTES = 10**9  # of address space; loading takes 0.6 GB, and where that is missing its libraries end the process

if "torch" not in sys.modules:
    if (_left := address_space_left_nbytes()) is not None and _left < TORCH_NBYTES:
        raise UnavailableError(f"torch needs {TORCH_NBYTES / 1e9:.0f} GB of address space; raise `ulimit -v`")
    # OpenMP reads this when torch is loaded.  By default its threads spin for milliseconds, and one busy process on one
    # of two cores then leaves a tenth of the speed.
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "5000"}  # about 150 us, like the thread pool
# MKL reads this at its first product.  By default it cuts the sums of some shapes among its threads, differently for
# other numbers of rows: of [576, 1536], at 64 to 128 rows.  Exact numerics need the same bits.  Large products
# take up to 10 % longer, small ones less time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def open_engine(
    model_dir: Path | str, device: str = "cpu", device_memory: int | None = None, **options: object
) -> RotaryEngine:
    """Open a pack or a Hugging Face checkpoint; `options` are those of `EngineOptions`.

    Raises TypeError for an option that does not exist, and what `rotary_batch.engine.build.open_engine` raises.
    """
    from rotary_batch.engine import build

    values: dict[str, Any] = {"device": device, "device_memory": device_memory, **options}
    return build.open_engine(model_dir, EngineOptions(**values))
