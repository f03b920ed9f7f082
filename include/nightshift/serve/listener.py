"""uvicorn's HTTP protocol with the deadlines and bounds that it lacks.

By itself it waits for ever for the rest of a request: thirty sockets that send half a header stop a server that allows
twenty connections, until they hang up. Here a request has so long for its header, so long for its body, and a quiet
connection so long until it is closed; headers are counted as they arrive; one address has so many connections. What is
refused here is refused in the same shape as everything else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections import Counter
from collections.abc import Collection
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nightshift.serve.refused import Refused
from nightshift.serving import Limits

REASONS = {400: "Bad Request", 408: "Request Timeout", 429: "Too Many Requests", 431: "Headers Too Large", 503: "Busy"}


def protocol(limits: Limits, proxies: Collection[str] = (), plain: bool = True) -> type[Connection]:
    """The protocol class of one listener; connections of proxies, addresses or networks, are not counted by address.

    Args:
        plain: whether nothing but the proxies ends TLS: others than these, and this machine, are not listened to.
    """

    class Bounded(Connection):
        bounds = limits
        open = Counter[str]()
        trusted = tuple(ipaddress.ip_network(one) for one in proxies)
        only_proxies = plain and bool(proxies)

    return Bounded


class Connection(HttpToolsProtocol):
    """One client's connection."""

    bounds: Limits
    open: Counter[str]  # connections by address
    trusted: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]
    only_proxies: bool
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it; refuse one too many."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None  # runs while the client reads nothing of what was written
        self._reading, self._head = True, 0  # whether a header is awaited, and its bytes so far
        self._fields = 0
        self._came = self.client[0] if self.client else ""
        self.open[self._came] += 1
        if self.only_proxies and not self._near():
            self._refuse(Refused("insufficient_scope", "A key would come here in the clear; ask through the proxy."))
        elif sum(self.open.values()) > self.bounds.connections:
            self._refuse(Refused("server_overloaded", "Too many connections are open here."))
        elif self.open[self._came] > self.bounds.connections_an_address and not self._trusted():
            self._refuse(Refused("concurrency_limit", "Too many connections are open from this address."))
        else:
            self._arm(self.bounds.header_s)

    def _near(self) -> bool:
        return self._trusted() or ipaddress.ip_address(self._came).is_loopback

    def _trusted(self) -> bool:
        return any(ipaddress.ip_address(self._came) in network for network in self.trusted)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._disarm()
        self._reads()
        self.open[self._came] -= 1
        if self.open[self._came] <= 0:
            del self.open[self._came]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; refuse a header that is too long, and what is not HTTP."""
        if self.transport.is_closing():
            return
        if self._reading:
            self._head += len(data)
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(Refused("bad_request", "This endpoint speaks HTTP/1.1 and nothing else."))
        except httptools.HttpParserError:
            self._refuse(Refused("bad_request", "This is not an HTTP request."))
        else:
            if self._reading and self._head > self.bounds.header_bytes:
                self._too_long()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._reading, self._fields, self._size = True, 0, 0
        self._arm(self.bounds.header_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field."""
        super().on_header(name, value)
        self._fields += 1
        self._size += len(name) + len(value) + 4

    def on_headers_complete(self) -> None:
        """The header is whole: let the application see it, unless it is too long."""
        self._reading, self._head = False, 0
        if self._fields > self.bounds.header_fields or self._size + len(self.url) > self.bounds.header_bytes:
            self._too_long()
            return
        try:
            super().on_headers_complete()
        except (UnicodeDecodeError, httptools.HttpParserInvalidURLError):
            self._refuse(Refused("bad_request", "This is not the address of anything."))
            return
        self._arm(self.bounds.body_s)

    def on_body(self, body: bytes) -> None:
        """A part of the body, for a request that the application saw."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        if self.transport.is_closing():
            return
        super().on_message_complete()
        self._reading = True
        if self.cycle is None or not self.cycle.response_complete:
            self._disarm()  # its answer has deadlines of its own
        else:
            self._arm(self.bounds.idle_s)

    def on_response_complete(self) -> None:
        """The answer is out: another request may come, for a while."""
        super().on_response_complete()
        if not self.transport.is_closing() and not self.pipeline:
            whole = self.cycle is None or not self.cycle.more_body
            self._arm(self.bounds.idle_s if whole else self.bounds.body_s)

        elif self.transport.is_closing():
            self._reads_not()  # closing waits until what was written is sent

    def pause_writing(self) -> None:
        """More was written than is sent: the client has so long to read some of it."""
        super().pause_writing()
        self._reads_not()

    def resume_writing(self) -> None:
        """It reads."""
        self._reads()
        super().resume_writing()
        if self.transport.is_closing():
            self._reads_not()

    def timeout_keep_alive_handler(self) -> None:
        """uvicorn's own idle deadline; ours ends a connection whose client does not even read."""

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _reads_not(self) -> None:
        if self._unread is None:
            left = self.transport.get_write_buffer_size()
            self._unread = self.loop.call_later(self.bounds.write_s, self._unless_read, left)

    def _unless_read(self, left: int) -> None:
        """Cut the connection unless something was read meanwhile; its end would wait for all of it, for ever."""
        self._unread = None
        if self.transport.get_write_buffer_size() < left:
            self._reads_not()
        else:
            self.transport.abort()

    def _reads(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _late(self) -> None:
        """A deadline passed: say so where somebody may listen, and close."""
        waiting = self._head > 0 or (self.cycle is not None and not self.cycle.response_started)
        if waiting and not self.transport.is_closing():
            self._refuse(Refused("request_timeout", "The request did not arrive in time."))
        self.transport.abort()

    def _too_long(self) -> None:
        most = f"{self.bounds.header_bytes} bytes and {self.bounds.header_fields} fields"
        self._refuse(Refused("headers_too_large", f"The request's header is over {most}."))

    def _refuse(self, why: Refused) -> None:
        """Answer without the application, unless it has begun to, and close."""
        self._disarm()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete or self._unseen()):
            self.transport.write(_response(why))
        self.transport.close()
        self._timer = self.loop.call_later(1.0, self.transport.abort)  # for a client that does not read it

    def _unseen(self) -> bool:
        return not self.cycle.response_started


def _response(why: Refused) -> bytes:
    content = why.content
    head: dict[str, Any] = {
        "content-type": "application/json",
        "content-length": len(content),
        "x-request-id": secrets.token_hex(16),
        "connection": "close",
        **why.headers,
    }
    lines = [f"HTTP/1.1 {why.status} {REASONS.get(why.status, 'Refused')}", *(f"{k}: {v}" for k, v in head.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content
