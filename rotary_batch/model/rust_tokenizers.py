"""What `tokenizers` does with a file that it cannot read, as the errors of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rotary_batch.errors import ModelError
from rotary_batch.model.host import address_space_left_nbytes

# Reading a tokenizer takes 16 times its file: 190 MB for one of 150,000 tokens in 11.6 MB.
_LOADING_NBYTES, _LOADING_FACTOR = 32 * 2**20, 20


@contextmanager
def reading_tokenizer(json_nbytes: int, where: object, remedy: str) -> Iterator[None]:
    """Raises ModelError for a text that `tokenizers` cannot read, MemoryError where it would end the process."""
    left = address_space_left_nbytes()
    if left is not None and left < _LOADING_NBYTES + _LOADING_FACTOR * json_nbytes:
        raise MemoryError
    try:
        yield
    except Exception as error:
        fact = str(error)[:200]  # it may contain a whole regular expression
        raise ModelError(f"{where}: not a tokenizer that `tokenizers` can read: {fact}; {remedy}") from error
    except BaseException as error:  # a panic of the Rust library is not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"{where}: `tokenizers` breaks on it: {str(error)[:200]}; {remedy}") from error
