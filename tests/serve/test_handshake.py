"""Whoever begins a TLS handshake and does not go on is gone in the time that a request's header has."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from nightshift import params, port
from nightshift.errors import AccessDenied
from nightshift.serve.listener import protocol
from nightshift.serve.server import _server, loop
from nightshift.serving import Limits
from tests.conftest import ROOT
from tests.release.test_served import certificate

HEADER_S = 0.5
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # of a handshake record, with most of it to come


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(params=[loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, ssl.SSLContext]]:
    """A listener with TLS: its port, and a context that knows its certificate."""
    made = certificate(tmp_path / "tls")
    limits = params.load(ROOT / params.FILE, Limits).model_copy(update={"header_s": HEADER_S})
    at, tls = port.unused(), {"ssl_certfile": str(made), "ssl_keyfile": str(made.parent / "key.pem")}
    server, factory = _server(app, "127.0.0.1", at, protocol(limits), tls), request.param

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(server.serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    _until(lambda: server.started)
    yield at, ssl.create_default_context(cafile=made)
    server.should_exit = server.force_exit = True
    thread.join(20)


@pytest.mark.parametrize("sent", [b"", HELLO], ids=["nothing", "half a hello"])
def test_half_a_handshake_is_given_up(served: tuple[int, ssl.SSLContext], sent: bytes) -> None:
    at, context = served
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(socket.create_connection(("127.0.0.1", at), 5))) for _ in range(30)]
        begun = time.monotonic()
        for one in slow:
            one.sendall(sent)
        assert httpx.get(f"https://127.0.0.1:{at}/", verify=context).text == "ok"
        for one in slow:
            assert _ended(one)
        assert HEADER_S * 0.5 < time.monotonic() - begun < HEADER_S + 3


def test_where_nothing_can_listen_is_said(tmp_path: Path) -> None:
    limits = params.load(ROOT / params.FILE, Limits)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        server = _server(app, "127.0.0.1", taken.getsockname()[1], protocol(limits))
        with pytest.raises(AccessDenied, match="nothing can listen there"):
            asyncio.run(server.serve())


def _ended(one: socket.socket) -> bool:
    """Whether the other side closes, whatever it says before; a socket's own time is 5 seconds."""
    try:
        while one.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
