"""Connect with a Ray cluster, which anybody who reaches it could run code on unless it asks for a token.

Ray reads its settings from the environment when it is imported, so they are set here, before the first import.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rotary_batch.errors import ConfigError, UnavailableError

AUTO = "auto"  # the cluster that a node on this machine is part of
_ASK_S = 60.0
_CONNECT_S = 10.0
_WITHOUT_TOKEN = "the Ray cluster takes commands from anybody who reaches it"
_HOW = "start its head and its nodes with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN, or give --insecure-ray"
# Whether a stranger gets in.  Exits 0 if so, 3 if not.
_STRANGER = """
import sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=sys.argv[1]).get_all_node_info()
except AuthenticationError:
    sys.exit(3)
"""


def connect(address: str, *, insecure: bool = False) -> None:
    """Join a cluster as its driver; nothing when that was done before.

    Raises UnavailableError when it cannot be reached, ConfigError when it asks for no token or not for ours.
    """
    _prepare(os.environ, insecure=insecure)
    with _own_signals():
        try:
            import ray
        except ImportError as error:
            raise UnavailableError("ray is not installed; run `pip install 'rotary-batch[ray]'`") from error
        if ray.is_initialized():
            return
        address = _resolved(address)
        _require_reachable(address)
        if not insecure:
            _require_closed(address)
        _keep_off_stdout()
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level="ERROR")
        except ray.exceptions.AuthenticationError as error:
            raise ConfigError(f"the Ray cluster {address} has another token; set RAY_AUTH_TOKEN to its own") from error
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            raise UnavailableError(f"the Ray cluster {address} cannot be reached: {_first_line(error)}") from error


def node_resources() -> list[dict[str, float]]:
    """What each node of the cluster has."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _prepare(environment: dict[str, str] | os._Environ[str], *, insecure: bool) -> None:
    """Settings of Ray.  Raises ConfigError without a token."""
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    environment.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if insecure:
        return
    if not _has_token(environment):
        raise ConfigError(
            f"there is no token for the Ray cluster: set RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or write "
            f"~/.ray/auth_token (`ray get-auth-token --generate` makes one); without one, {_WITHOUT_TOKEN}"
        )
    environment["RAY_AUTH_MODE"] = "token"


def _has_token(environment: Mapping[str, str]) -> bool:
    named = environment.get("RAY_AUTH_TOKEN") or environment.get("RAY_AUTH_TOKEN_PATH")
    return bool(named) or (Path(environment.get("HOME", "/")) / ".ray" / "auth_token").is_file()


def _resolved(address: str) -> str:
    from ray._private import services

    if address != AUTO:
        return address
    found = services.find_gcs_addresses()
    if not found:
        raise UnavailableError("no node of a Ray cluster runs on this machine; name one with --ray HOST:PORT")
    return str(min(found))


def _require_reachable(address: str) -> None:
    """Raise UnavailableError when nothing listens there: Ray itself would try for a minute, then end the process."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UnavailableError(f"the Ray cluster {address} cannot be reached: {error}") from error


def _require_closed(address: str) -> None:
    """Raise ConfigError when the cluster lets somebody in who has a made-up token."""
    stranger = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    words = [sys.executable, "-c", _STRANGER, address]
    try:
        asked = subprocess.run(words, env=stranger, capture_output=True, text=True, timeout=_ASK_S)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"the Ray cluster {address} did not answer for {_ASK_S:.0f} s") from error
    if asked.returncode == 0:
        raise ConfigError(f"{_WITHOUT_TOKEN}; {_HOW}")
    if asked.returncode != 3:
        last = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UnavailableError(f"the Ray cluster {address} cannot be reached: {last}")


def _keep_off_stdout() -> None:
    """Ray prints on stdout that an engine died, in front of the answer of `--json`; no setting of Ray ends that."""
    from ray._private import worker

    worker.print_to_stdstream = lambda *_, **__: None  # the pool logs it


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray ends the process at SIGTERM, before what is claimed was given back."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
