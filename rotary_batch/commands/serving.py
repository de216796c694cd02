"""Serve a folder to this machine alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from rotary_batch.errors import UnavailableError

HOST = "127.0.0.1"


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder; says nothing."""

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal quiet."""


@contextmanager
def serving(folder: Path, port: int) -> Iterator[str]:
    """Serve a folder on the loopback interface; yields its URL.  Port 0 takes a free one."""
    try:
        server = ThreadingHTTPServer((HOST, port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise UnavailableError(f"port {port}: {error.strerror}; name another with --port") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
