"""Kill nights of a virtual repository, engine and clock, but a real database, and print how many died in each journal mode.

    python lives_driver.py FOLDER NUM_KILLS SEED

All are forks of one process: a kill takes some hundredths of a second.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from rotary_batch.work import connection
from tests.lives import empty, kill
from tests.storm import MortalConnection

if __name__ == "__main__":
    connection.Connection = MortalConnection
    base = Path(sys.argv[1])
    kills = kill(empty(base), base, int(sys.argv[3]), int(sys.argv[2]))
    sys.stdout.write(json.dumps(kills))
