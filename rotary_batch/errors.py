"""Every error that this package raises on purpose, named for what the caller should do next.

    RotaryError             never raised itself                           exit 70
      UsageError            the command line is wrong                       exit 2
      InputError            bad input: repository, model, prompt or config  exit 3
        ConfigError         rotary.toml, a job or an environment variable
        RepositoryError     not a directory, no commits, unsafe owner, ...
          UnreadableError   some of its files cannot be read; the others were
        ModelError          missing shard, wrong shape, no tokenizer, ...
        PromptError         a prompt that cannot fit the context
      BusyError             another run holds the database or the device    exit 6
      UnavailableError      the model or the device is not there            exit 69
        DeviceMemoryError   the device has too little free memory now
      StorageError          the disk refused                                exit 74
        DatabaseError       the same for the database, which all repositories share
      StoppedError          the window closed first; run it again           exit 75

A message names the file, what is wrong and what to do.
"""


class RotaryError(Exception):
    """An error that the program can explain."""

    exit_code = 70


class UsageError(RotaryError):
    """The command line is wrong."""

    exit_code = 2


class InputError(RotaryError):
    """An input is wrong: a repository, a model, a prompt or a setting."""

    exit_code = 3


class ConfigError(InputError):
    """A settings file, a job file, a prompt file or an environment variable is wrong."""


class RepositoryError(InputError):
    """A repository cannot be read."""


class UnreadableError(RepositoryError):
    """Some files of a repository cannot be read; `reasons` has the reason by path.  All others were."""

    def __init__(self, message: str, reasons: dict[str, str]) -> None:
        super().__init__(message)
        self.reasons = reasons


class ModelError(InputError):
    """A checkpoint or a pack cannot be used."""


class PromptError(InputError):
    """A prompt cannot fit the context of the model."""


class BusyError(RotaryError):
    """Another run holds the database or the device."""

    exit_code = 6


class DeviceBusyError(BusyError):
    """Another run holds the device; a repository that uses another one can go on."""


class UnavailableError(RotaryError):
    """The model or the device is not there."""

    exit_code = 69


class DeviceMemoryError(UnavailableError):
    """The device ran out of memory, which other programs may have: it may do later."""


class StorageError(RotaryError):
    """The disk refused: full, read-only, failing."""

    exit_code = 74


class DatabaseError(StorageError):
    """The disk refused the database, so no other repository can continue either."""


class StoppedError(RotaryError):
    """The window closed before the work was done.  Loops that get `should_stop` raise it when that returns true."""

    exit_code = 75

    def __init__(self, why: str = "stopped before the work was done; run the same command again to resume") -> None:
        super().__init__(why)


# The libraries of the extra `[engine]`; without them, everything works that needs no model.
ENGINE_LIBRARIES = ("torch", "numpy", "safetensors")


def engine_missing(library: str) -> UnavailableError:
    """A library of the engine is not installed."""
    return UnavailableError(
        f"{library} is not installed, and the model needs it; run `pip install 'rotary-batch[engine]'`"
    )


def storage_error(error: OSError) -> StorageError:
    """The same as a StorageError; some libraries raise an OSError that has only a text."""
    return StorageError(f"{error.filename or 'input or output'}: {error.strerror or error}")
