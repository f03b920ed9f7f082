"""Run the gateway: the endpoint on one port, its admin on the next, both on loopback, until told to stop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvicorn

from nightshift import port as ports
from nightshift.serve.follow import Follower, to_stderr
from nightshift.serve.gateway import Gateway, admin, application

HOST = "127.0.0.1"


def serve(repository: Path, home: Path, state: Path, port: int, threads: int) -> None:
    """Serve what is in production. Raises PortInUse; ends on SIGTERM or SIGINT, with the engine."""
    for one in (port, port + 1):
        free(one)
    follower = Follower(repository, home, state, threads, to_stderr)
    try:
        asyncio.run(_run(follower, home, port))
    finally:
        follower.close()


def free(port: int) -> None:
    """Raises PortInUse when something listens there, AccessDenied when one may not."""
    ports.free(port, "stop it, or choose another with --port or NIGHTSHIFT_PORT")


async def _run(follower: Follower, home: Path, port: int) -> None:
    gateway = Gateway(follower, home)
    servers = [
        uvicorn.Server(uvicorn.Config(app, host=HOST, port=one, log_level="warning", access_log=False))
        for app, one in ((application(gateway), port), (admin(gateway), port + 1))
    ]
    following = asyncio.create_task(follower.follow())
    await asyncio.wait([asyncio.create_task(server.serve()) for server in servers], return_when=asyncio.FIRST_COMPLETED)
    for server in servers:
        server.should_exit = True
    following.cancel()
