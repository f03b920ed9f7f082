"""An endpoint for tests: the real gateway in a real server, in front of an engine that says what it is told to.

What the engine says hangs on the question's words: `BREAK` breaks off there, `REFUSE422` is that status, `HANG` waits,
`SLOW` takes a while for each word, `SAY:` says what follows, and anything else is said back as it was asked.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from nightshift import port
from nightshift.answer import System
from nightshift.engine import Engine
from nightshift.registry import Release
from nightshift.serve.follow import Follower
from nightshift.serve.keys import SCOPES, Keys
from nightshift.serve.listener import protocol
from nightshift.serve.served import Served
from nightshift.serve.server import Service, Settings, _server
from nightshift.serve.turns import Turns
from nightshift.spans import Tracer
from tests.conftest import ROOT
from tests.data.conftest import section

ROWS: list[dict[str, object]] = [
    section("pump.md", "Pump > Maintenance", "The pump is oiled every Monday by the keeper of the mill."),
    section("valve.md", "Valve > Colour", "The valve of the old well was painted green in spring."),
    section("board.md", "Board > Salaries", "The salaries of the board are oiled with champagne.", groups=["board"]),
]
RELEASE = Release("v0.1.0", "c" * 40, "d" * 64)
TRACER = Tracer("nightshift-gateway")
PLAIN = ssl.SSLContext()  # nothing here is asked over TLS, and reading the system's certificates takes 20 ms a request
ACCEPTS = frozenset({"temperature", "top_p", "seed", "n"})


@dataclass
class Script:
    """An engine; it remembers what it was asked, and how many of its answers were cut short."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    instead: dict[str, str] = field(default_factory=dict)  # what it says in place of a word, or of `word@1` in choice 1
    running: int = 0
    cut: int = 0

    async def answer(self, request: Request) -> Response:
        """Say something, word by word."""
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        chat = "messages" in body
        said = body["messages"][-1]["content"] if chat else body["prompt"]
        if hit := re.search(r"REFUSE(\d{3})?", said):
            return Response(f"no, said {__file__}", int(hit[1] or 500))
        return StreamingResponse(self._words(said, chat, body.get("n", 1)), media_type="text/event-stream")

    async def _words(self, said: str, chat: bool, count: int) -> Any:
        self.running += 1
        whole = False
        try:
            words = said.partition("SAY:")[2].split(" ") if "SAY:" in said else said.split(" ")
            for word in words:
                if "BREAK" in word:
                    return
                if "HANG" in word:
                    await asyncio.sleep(60)
                await asyncio.sleep(0.05 if "SLOW" in said else 0)
                for index in range(count):
                    said_now = self.instead.get(f"{word}@{index}", self.instead.get(word, word))
                    yield _chunk(chat, f"{said_now} ", None, index)
            for index in range(count):
                yield _chunk(chat, "", "stop", index)
            usage = {"prompt_tokens": 7, "completion_tokens": len(words)}
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()
            yield b"data: [DONE]\n\n"
            whole = True
        finally:
            self.running -= 1
            self.cut += not whole


def _chunk(chat: bool, text: str, finish: str | None, index: int) -> bytes:
    said = {"delta": {"content": text}} if chat else {"text": text}
    return f"data: {json.dumps({'choices': [{'index': index, **said, 'finish_reason': finish}]})}\n\n".encode()


@dataclass
class Endpoint:
    """A running endpoint, with a key of every scope for the group `public`."""

    url: str
    admin: str
    home: Path
    keys: Keys
    key: str
    script: Script
    served: Served
    follower: Follower
    gateway: Any
    front: Any
    guard: type[Any]  # the class of its connections

    def made(self, *scopes: str, groups: tuple[str, ...] = ("public",), **more: Any) -> str:
        """A key."""
        return self.keys.create("test", scopes, groups, 1, time.time(), **more)

    def post(self, path: str, body: Any, key: str | None = None, **more: Any) -> httpx.Response:
        """Ask for something."""
        head = {"Authorization": f"Bearer {key or self.key}"} | more.pop("headers", {})
        return httpx.post(self.url + path, json=body, headers=head, timeout=30, verify=PLAIN, **more)

    def call(self, method: str, path: str, body: Any = None, key: str | None = None, **head: str) -> httpx.Response:
        """Ask either listener for a path, on the admin's where it is one of its own."""
        base = self.admin if path.startswith(("/admin", "/metrics")) else self.url.removesuffix("/v1")
        head = ({"Authorization": f"Bearer {key or self.key}"} if key != "" else {}) | head
        return httpx.request(method, base + path, json=body, headers=head, timeout=30, verify=PLAIN)

    def ask(self, text: str, key: str | None = None, **more: Any) -> httpx.Response:
        """Ask the chat a question."""
        return self.post("/chat/completions", chat(text, **more), key)


def chat(text: str, **more: Any) -> dict[str, Any]:
    """A body that asks this."""
    return {"model": "nightshift", "messages": [{"role": "user", "content": text}], **more}


@contextmanager
def endpoint(
    folder: Path,
    system: Path,
    slots: int = 1,
    around: Callable[[Any], Any] = lambda app: app,
    script: Script | None = None,
    tracer: Tracer = TRACER,
    **changed: Any,
) -> Iterator[Endpoint]:
    """The real gateway on two free ports in a thread of this process.

    `around` is put around its public application; `script` is the engine; `changed` are settings, limits and rails, by
    name.
    """
    script, home = script or Script(), folder / "home"
    home.mkdir(parents=True)
    keys = Keys(home)
    settings = _changed(Settings.read(ROOT), {"abstain_below": None} | changed)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with _running([(_app(script), port.unused(), None)]) as [engine_url]:
        made = Engine(child, engine_url, "/secret/path", folder / "scratch", {"authorization": "Bearer engine"}, slots)
        made.accepts = ACCEPTS
        follower = Follower(folder, home, folder / "state", 1, lambda _: None)
        turns = Turns(slots, settings.limits.queue, settings.limits.queue_s)
        served = follower.served = Served(RELEASE, System.open(system), [made], turns)
        service = Service.of(follower, home, ROOT, settings, tracer)
        gateway = service.gateway
        first = port.unused(2)
        guard = protocol(settings.limits, settings.listen.behind_proxy)
        apps = [(around(service.public), first, guard), (service.admin, first + 1, guard)]
        with _running(apps, gateway.close) as [url, beside]:
            key = keys.create("test", tuple(SCOPES), ("public",), 1, time.time())
            front = gateway.front
            yield Endpoint(f"{url}/v1", beside, home, keys, key, script, served, follower, gateway, front, guard)
    child.kill()
    child.wait()


def _app(script: Script) -> Starlette:
    paths = ("/v1/chat/completions", "/v1/completions")
    return Starlette(routes=[Route(one, script.answer, methods=["POST"]) for one in paths])


def _changed(settings: Settings, changed: dict[str, Any]) -> Settings:
    limits = {name: value for name, value in changed.items() if hasattr(settings.limits, name)}
    rails = {name: value for name, value in changed.items() if hasattr(settings.rails, name)}
    made = {"limits": settings.limits.model_copy(update=limits), "rails": settings.rails.model_copy(update=rails)}
    own = {name: value for name, value in changed.items() if name in vars(settings)}
    return Settings(**(vars(settings) | made | own))


@contextmanager
def _running(apps: list[tuple[Any, int, Any]], close: Any = None) -> Iterator[list[str]]:
    """Servers in one event loop of a thread, until the end."""
    servers = [_server(app, "127.0.0.1", at, http or protocol(Settings.read(ROOT).limits)) for app, at, http in apps]

    async def run() -> None:
        await asyncio.gather(*(server.serve() for server in servers))
        if close:
            await close()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    while not all(server.started for server in servers):
        time.sleep(0.01)
    yield [f"http://127.0.0.1:{at}" for _, at, _ in apps]
    for server in servers:
        server.should_exit = True
        server.force_exit = True
    thread.join(20)
