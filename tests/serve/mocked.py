"""The real gateway in a process of its own, in front of an engine of fixed speed in another: for load, drills and
benchmarks.

    python -m tests.serve.mocked PORT FOLDER ENGINE_PORT SLOTS TOKENS TOKEN_S [name=value …]

It serves a system without sections, so that what is measured is the gateway. It starts more such engines (paced.py)
where `warm` (serve.warm) lets it; `faster` is how many times as fast as the machine's its clock goes, so that a quiet
while is over soon.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from nightshift import params, port, tracing
from nightshift.answer import System
from nightshift.engine import Engine
from nightshift.registry import Standing
from nightshift.serve import server
from nightshift.serve.follow import Follower
from nightshift.serve.keys import Keys
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serving import KeyLimits
from tests.conftest import ROOT
from tests.serve.scripted import ACCEPTS, RELEASE, _changed

WIDE = KeyLimits(concurrency=10_000, requests_a_minute=10_000_000, tokens_a_minute=1_000_000_000)


@dataclass
class Mocked:
    """A running gateway.

    Args:
        url: its public address, without /v1.
        pid: of its process, and `engine_pid` of its engine's.
    """

    url: str
    admin: str
    engine: str
    key: str
    pid: int
    engine_pid: int


def gateway(
    at: int, folder: Path, engine_at: int, slots: int, tokens: int, token_s: float, changed: dict[str, Any]
) -> None:
    """Run the gateway in front of the engine."""
    faster, warm = changed.pop("faster", 1), changed.pop("warm", {})
    settings = _changed(server.Settings.read(ROOT), {"key": WIDE} | changed)
    settings = replace(settings, warm=settings.warm.model_copy(update=warm))
    home = folder / "home"
    follower = Follower(folder, home, folder / "state", 1, server.to_log, clock=lambda: faster * time.monotonic())
    idle = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    child = subprocess.Popen(idle, stdin=subprocess.PIPE, start_new_session=True)
    made = Engine(child, f"http://127.0.0.1:{engine_at}", "m", folder / "scratch", {}, slots)
    made.accepts = ACCEPTS

    def another() -> Engine:
        beside = port.unused()
        words = [sys.executable, "-m", "tests.serve.paced", *map(str, (beside, slots, tokens, token_s))]
        child = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
        until_up(f"http://127.0.0.1:{beside}/")
        scratch = folder / "scratch" / str(beside)
        return Engine(child, f"http://127.0.0.1:{beside}", "m", scratch, {}, slots, ACCEPTS)

    system = System.open(folder / "plain")
    system.settings["sections"] = 0
    turns = Turns(slots, settings.limits.queue, settings.limits.queue_s)
    follower.served = Served(RELEASE, system, [made], turns, another=another)
    follower.wanted, follower.looked = Standing(RELEASE), True

    async def stay() -> None:
        await asyncio.sleep(10**6)

    follower.follow = stay  # type: ignore[method-assign]
    tracer = tracing.tracer(home, params.load(ROOT / params.FILE, tracing.Traces), "gateway")
    service = server.Service.of(follower, home, ROOT, settings, tracer)
    try:
        with asyncio.Runner(loop_factory=server.loop) as runner:
            runner.run(server.run(service, follower, at, settings))
    finally:
        follower.close()
        tracer.close()


@contextmanager
def running(folder: Path, slots: int = 8, tokens: int = 10, token_s: float = 0.01, **changed: Any) -> Iterator[Mocked]:
    """Both, in processes of their own; `folder` holds a system `plain`; `changed` are limits and rails by name."""
    first, beside = port.unused(2), port.unused()
    scopes = ("infer:chat", "infer:completions", "infer:embeddings", "models:read", "metrics:read")
    key = Keys(folder / "home").create("load", scopes, ("public",), 1, time.time())
    told = [f"{name}={json.dumps(value)}" for name, value in changed.items()]
    words: list[list[Any]] = [
        ["tests.serve.paced", beside, slots, tokens, token_s],
        ["tests.serve.mocked", first, folder, beside, slots, tokens, token_s, *told],
    ]
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"}
    children = [subprocess.Popen([sys.executable, "-m", *map(str, one)], cwd=ROOT, env=env) for one in words]
    try:
        for at, path in ((beside, "/"), (first, "/healthz")):
            until_up(f"http://127.0.0.1:{at}{path}")
        url = f"http://127.0.0.1:{first}"
        yield Mocked(
            url, f"http://127.0.0.1:{first + 1}", f"http://127.0.0.1:{beside}", key, children[1].pid, children[0].pid
        )
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(60)


def until_up(url: str, status: int | None = None) -> None:
    """Wait until something answers there, or with this status. Raises TimeoutError."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            said = httpx.get(url, timeout=5)
            if status in (None, said.status_code):
                return
        time.sleep(0.05)
    raise TimeoutError(url)


if __name__ == "__main__":
    at, folder, engine_at, slots, tokens, token_s, *rest = sys.argv[1:]
    settings = {name: json.loads(value) for name, _, value in (one.partition("=") for one in rest)}
    gateway(int(at), Path(folder), int(engine_at), int(slots), int(tokens), float(token_s), settings)
