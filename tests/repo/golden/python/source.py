"""A module."""
import os
from json import dumps as d

@decorated
class Box(Base):
    """Holds things."""

    def put(self, thing: int) -> None:  # a remark
        """Put it in."""
        d(os.getpid())

def alone(): return Box()
