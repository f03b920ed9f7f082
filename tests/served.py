"""Servers of the standard library, which a test starts beside itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from socketserver import TCPServer


@contextmanager
def serving(server: TCPServer) -> Iterator[str]:
    """Answer in a thread until the block ends, and close; yields the URL (of one that speaks HTTP)."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)  # by default it ends in 0.5 s
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
