"""The endpoint of a checkout on loopback, before a scripted engine, and a record of what clients sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nightshift import port
from nightshift.serve.follow import Follower
from nightshift.serve.keys import SCOPES, Keys
from nightshift.serve.listener import protocol
from nightshift.serve.server import Service, Settings
from nightshift.serving import KeyLimits
from tests.conftest import ROOT
from tests.integrations.release import Checkout
from tests.serve import scripted

MANY = KeyLimits(concurrency=64, requests_a_minute=100_000, tokens_a_minute=100_000_000)


@dataclass
class Sent:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Recorder:
    """The application with a note of every request."""

    application: Any
    sent: list[Sent] = field(default_factory=list)
    under_way: int = 0

    def forget(self) -> None:
        """Begin anew, once what was asked before is noted: a client has its answer a little earlier."""
        deadline = time.monotonic() + 10
        while self.under_way and time.monotonic() < deadline:
            time.sleep(0.01)
        self.sent.clear()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Note a request when it was answered."""
        body = b""

        async def read() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        if scope["type"] != "http":
            await self.application(scope, read, send)
            return
        self.under_way += 1
        try:
            await self.application(scope, read, send)
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            self.sent.append(Sent(scope["method"], scope["path"], headers, json.loads(body) if body else {}))
        finally:
            self.under_way -= 1


@dataclass
class Running:
    """A served checkout, and a key for everyone's sections."""

    checkout: Checkout
    url: str
    key: str
    recorder: Recorder


@contextmanager
def serving(checkout: Checkout, folder: Path) -> Iterator[Running]:
    """Serve a checkout until the block ends; `folder` is scratch. Its first key lies where `make up` puts it."""
    recorder = Recorder(None)

    def around(application: Any) -> Recorder:
        recorder.application = application
        return recorder

    system = checkout.folder / "system"
    with scripted.endpoint(folder, system, slots=4, around=around, key=MANY, connections_an_address=200) as made:
        (checkout.root / "var" / "first.key").write_text(f"{made.key}\n")
        yield Running(checkout, made.url, made.key, recorder)


@contextmanager
def really_serving(checkout: Checkout) -> Iterator[str]:
    """Serve a checkout's release by the engine that serves it everywhere; gives the endpoint's address."""
    home, settings = checkout.root / "var", Settings.read(ROOT)
    settings = replace(settings, limits=settings.limits.model_copy(update={"key": MANY, "connections_an_address": 200}))
    settings = replace(settings, rails=settings.rails.model_copy(update={"abstain_below": None}))
    follower = Follower(checkout.root, home, checkout.root / ".nightshift", 1, lambda _: None)
    try:
        follower.served = follower.bring_up(checkout.release)
        service = Service.of(follower, home, ROOT, settings, scripted.TRACER)
        key = Keys(home).create("first", tuple(SCOPES), ("public",), 1, time.time())
        (home / "first.key").write_text(f"{key}\n")
        servers = [(service.public, port.unused(), protocol(settings.limits))]
        with scripted._running(servers, service.gateway.close) as [url]:
            yield f"{url}/v1"
    finally:
        follower.close()
