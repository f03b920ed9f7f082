"""Ask engines over HTTP/1.1: a question a connection at a time, kept for the next, closed when no answer is wanted.

An answer comes in many small pieces, and what a client costs a piece is most of what a gateway costs: aiohttp takes
0.95 ms of a core for an answer of ten, this 0.3 (two busy cores, Python 3.11). It does what engines need, which are
children on loopback: no redirects, no proxies, no compression. A kept connection that the engine closes just as it is
asked would break the question, so none is used again after KEPT_S; uvicorn, which engines stand on, closes after 5 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httptools

KEPT_S = 2.0
AHEAD_BYTES = 65_536  # of an answer that nobody read yet; then the engine waits
GATHERED_BYTES = 32_768  # are read at once at most, where the reader would rather wait than be woken for each piece


class Broken(Exception):
    """The engine closed the connection in the middle of an answer, or does not speak HTTP."""


class Wire(asyncio.Protocol):
    """One connection to an engine.

    Args:
        lost: is told when it is closed.
        status: of the answer; 0 before it came.
        whole: no answer is under way.
        quiet_since: when its last answer was over, by the loop's clock.
    """

    def __init__(self, lost: Callable[[Wire], None]) -> None:
        self.lost, self.loop = lost, asyncio.get_running_loop()
        self.parser = httptools.HttpResponseParser(self)
        self.status, self.whole, self.quiet_since = 0, True, 0.0
        self._came, self._wanted, self._paused, self._keeps = b"", 1, False, True
        self._failed: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Whether another question may be asked on it; not while it does not read, as the last answer was not read."""
        return self.whole and self._keeps and not self._paused and self._failed is None

    @property
    def _ready(self) -> bool:
        return len(self._came) >= self._wanted or self.whole or self._failed is not None

    def ask(self, request: bytes, deadline: float) -> None:
        """Send a request; its answer is read by `read`."""
        self.status, self.whole, self._came = 0, False, b""
        self.until(deadline)
        self.transport.write(request)

    def until(self, deadline: float) -> None:
        """When to give up, by the loop's clock."""
        self._disarm()
        self._timer = self.loop.call_at(deadline, self._late)

    async def read(self, gathered: bool = False) -> bytes:
        """What came of the body since it was last read; b"" once the answer is whole. Raises Broken, TimeoutError.

        `gathered` waits for all of it, or for so much that the engine would have to wait.
        """
        self._wanted = GATHERED_BYTES if gathered else 1
        while not self._ready:
            self._waiting = self.loop.create_future()
            await self._waiting
        came, self._came = self._came, b""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()
        if not came and not self.whole and self._failed:
            raise self._failed
        return came

    def rest(self) -> None:
        """No answer is under way or wanted any more: what is not whole is closed, and the engine stops."""
        self._disarm()
        self.quiet_since = self.loop.time()
        if not self.usable:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """It was closed."""
        self._disarm()
        self._fail(Broken())
        self.lost(self)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Broken())
        if self._ready:
            self._wake()

    def on_message_begin(self) -> None:
        """The parser's: an answer begins; one that was not asked for breaks the connection."""
        if self.whole:
            raise Broken

    def on_headers_complete(self) -> None:
        """The parser's: its status is known."""
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """The parser's: a part of the body."""
        self._came += body
        if len(self._came) > AHEAD_BYTES and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """The parser's: the answer is whole."""
        self.whole, self._keeps = True, self.parser.should_keep_alive()

    def _late(self) -> None:
        self._fail(TimeoutError())

    def _fail(self, why: Exception) -> None:
        self._failed = self._failed or why
        self.transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Wires:
    """The connections to all engines."""

    def __init__(self) -> None:
        self._quiet: dict[str, list[Wire]] = {}

    async def ask(self, url: str, path: str, body: bytes, headers: Mapping[str, str], deadline: float) -> Wire:
        """Ask the engine at this address, until a time of the loop's clock. Raises Broken, TimeoutError."""
        address = urlsplit(url)
        head = {"host": address.netloc, "content-length": str(len(body)), "content-type": "application/json", **headers}
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
        found = self._kept(url)
        if found is None:
            async with asyncio.timeout_at(deadline):
                found = await self._opened(url, str(address.hostname), int(address.port or 80))
        found.ask("\r\n".join(lines).encode("latin-1") + body, deadline)
        return found

    def give_back(self, url: str, wire: Wire) -> None:
        """Nobody reads from it any more."""
        wire.rest()
        if wire.usable:
            self._quiet.setdefault(url, []).append(wire)

    def close(self) -> None:
        """Close what is kept."""
        for kept in self._quiet.values():
            for wire in kept:
                wire.transport.abort()

    def _kept(self, url: str) -> Wire | None:
        """The connection that was quiet for the shortest time."""
        kept = self._quiet.get(url)
        while kept:
            wire = kept.pop()
            if wire.loop.time() - wire.quiet_since < KEPT_S:
                return wire
            wire.transport.abort()
        return None

    async def _opened(self, url: str, host: str, port: int) -> Wire:
        def lost(wire: Wire) -> None:
            kept = self._quiet.get(url, [])
            if wire in kept:
                kept.remove(wire)
            if not kept:
                self._quiet.pop(url, None)

        try:
            _, wire = await asyncio.get_running_loop().create_connection(lambda: Wire(lost), host, port)
        except OSError:
            raise Broken from None
        return wire
