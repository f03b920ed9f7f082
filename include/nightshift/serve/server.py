"""Run the gateway: the endpoint on one port, its admin on the next, both on loopback, until told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from nightshift import port as ports
from nightshift.serve.follow import Follower, to_stderr
from nightshift.serve.gateway import Gateway, admin, application

HOST = "127.0.0.1"
LAST: dict[str, Any] = {"timeout_graceful_shutdown": 10}  # seconds for answers that are under way at the end


class _Server(uvicorn.Server):
    """One of two in a process: a signal is for both."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(repository: Path, home: Path, state: Path, port: int, threads: int) -> None:
    """Serve what is in production. Raises PortInUse; ends on SIGTERM or SIGINT, with the engine."""
    for one in (port, port + 1):
        free(one)
    to_stderr(f"http://{HOST}:{port}/v1, and its admin at http://{HOST}:{port + 1}")
    follower = Follower(repository, home, state, threads, to_stderr)
    try:
        asyncio.run(_run(follower, home, port))
    finally:
        follower.close()


def free(port: int) -> None:
    """Raises PortInUse when something listens there, AccessDenied when one may not."""
    ports.free(port, "stop it, or set NIGHTSHIFT_PORT (`serve` takes --port too)")


async def _run(follower: Follower, home: Path, port: int) -> None:
    gateway = Gateway(follower, home)
    servers = [
        _Server(uvicorn.Config(app, host=HOST, port=one, log_level="warning", access_log=False, **LAST))
        for app, one in ((application(gateway), port), (admin(gateway), port + 1))
    ]

    def end() -> None:
        for server in servers:
            server.should_exit = True

    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, end)
    following = asyncio.create_task(follower.follow())
    serving = [asyncio.create_task(server.serve()) for server in servers]
    await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
    end()
    await asyncio.gather(*serving)
    following.cancel()
