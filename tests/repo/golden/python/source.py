"""A module."""
import os
from json import dumps as d
try:
    import fast
except ImportError:
    fast = None

__all__ = ["Box", "LIMIT", "alone", "Größe"]
__all__ += ["Label", "Width"]

#: The most things in a box.
LIMIT: int = 10
RATES = {
    "slow": 1,  # a remark
    "fast": 2_000_000, "faster": 3_000_000, "fastest": 4_000_000,
}
SEPARATOR, WIDTH = "   ", 80  # for printing
first = second = None
"""Both are unset."""
type Label = str | None
Width: TypeAlias = "int"
Key = TypeVar("Key")
Pairs = dict[str, Label]
_text = """
Several lines that are too long to be shown.
"""

@decorated
# between
@registered(name="box")
class Box(Base[Key], metaclass=Meta):
    """Holds things."""

    size: int = 0
    """How many things it holds."""
    label: str | None  # what is written on it
    CAPACITY = 3
    __slots__ = ()

    def put(self, thing: int) -> None:  # a remark
        """Put it in."""
        d(os.getpid())
        # the end

    @property
    def weight(self) -> float:
        """In kilograms."""
        return 1.0

    @weight.setter
    def weight(self, value): ...

    @overload
    def get(self, key: int) -> int: ...
    @overload
    def get(self, key: str) -> str: ...
    def get(self, key):
        """The thing of that name."""
        def inner(): ...
        return key

    @staticmethod
    async def open(text="a default that is much longer than anybody wants to read"): ...
    def _check(self): ...
    def __len__(self): ...

class Colour(enum.IntEnum):
    RED = 1
    """Stop."""
    GREEN = 2

class Point(NamedTuple):
    x: int
    y: int = 0

if os.name == "nt":
    def alone(): return Box()
else:
    def alone(): return Box()

class Größe:
    def naïve(self): ...
