"""What the gateway adds to an answer's time, beside another one: the same mock engine, the same questions, one run.

    python bench/gateway.py [--out bench/gateway.json] [--seconds 12]

The peer is Portkey's gateway from npm, which is fetched into a temporary folder. Both ask the engine over loopback and
need a key: ours checks it against its store; Portkey's, as it comes from npm, hands it on to the engine. Ours also
masks, cleans, counts and traces; Portkey's hands the answer on. Through each the same text comes back.

The engine says ten words, one every 10 ms by the clock, so that a stream ends when a whole answer would. Whole answers
and streams are measured, the engine itself asked in the same way beside the gateways. A connection asks, reads the
answer, and waits for up to the length of an answer (evenly drawn) before it asks again, as people do: without the wait
all connections would ask in the same instant, again and again, and what is measured would be their queue. Added is a
gateway's percentile less the engine's own at the same number of connections, in turns, so that a machine that slows
down slows all three. `processor_ms` is what a request took of the gateway's own process, which no neighbour disturbs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include")]

import httptools  # noqa: E402
import psutil  # noqa: E402
import uvloop  # noqa: E402
from tests import models  # noqa: E402
from tests.serve import mocked, paced  # noqa: E402
from tests.serve.scripted import ROWS, chat  # noqa: E402

from nightshift import port  # noqa: E402

PEER, VERSION = "@portkey-ai/gateway", "1.15.2"
NEEDS = {"@hono/node-server": "1.14.1"}  # under newer ones every stream of the peer's is a 500 (its issue 1389)
CONNECTIONS = (1, 4, 16, 64)
TOKENS, TOKEN_S, ROUNDS = 10, 0.01, 3


@dataclass(frozen=True)
class Target:
    """Who is asked: port, headers of its own, and the process that answers."""

    port: int
    headers: dict[str, str]
    process: psutil.Process

    @property
    def processor_s(self) -> float:
        """Seconds of a core that it took so far."""
        took = self.process.cpu_times()
        return float(took.user + took.system)

    def request(self, streamed: bool) -> bytes:
        """A question as it goes over the wire."""
        body = json.dumps(chat("Hello there", stream=streamed)).encode()
        head = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
        lines = [f"{name}: {value}" for name, value in (head | self.headers).items()]
        return "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *lines, "", ""]).encode() + body


@dataclass
class Took:
    """Seconds until the first word came, and until an answer's end; sorted when asked for."""

    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    processor_s: float = 0.0

    def figures(self, streamed: bool) -> dict[str, float]:
        """Percentiles in milliseconds, and the processor's time a request."""
        said = {f"first_{name}": value for name, value in percentiles(self.first).items()} if streamed else {}
        each = self.processor_s / len(self.whole) * 1000
        return {"count": len(self.whole), **said, **percentiles(self.whole), "processor_ms": round(each, 3)}


class Asker(asyncio.Protocol):
    """One connection, which asks one question at a time; written out, so that the client's time is next to nothing."""

    def __init__(self) -> None:
        self.parser: Any = None
        self.said = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport: Any = transport

    async def ask(self, request: bytes) -> tuple[float, float]:
        """Seconds until the first word, and until the end."""
        self.parser = self.parser or httptools.HttpResponseParser(self)
        self.said, self.first = b"", 0.0
        self.over: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        self.transport.write(request)
        ended = await self.over
        return self.first - begun, ended - begun

    def data_received(self, data: bytes) -> None:
        """A part of an answer."""
        self.parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """It was closed; an answer under way is none."""
        if not self.over.done():
            self.over.set_exception(ConnectionError("closed in the middle of an answer"))

    def on_body(self, body: bytes) -> None:
        """The parser's: a part of the body."""
        self.said += body
        if not self.first and b"the " in self.said:
            self.first = time.perf_counter()

    def on_message_complete(self) -> None:
        """The parser's: the answer is whole."""
        if self.parser.get_status_code() != 200:
            self.over.set_exception(ConnectionError(self.said.decode()))
        else:
            self.over.set_result(time.perf_counter())


async def asked(target: Target, streamed: bool, connections: int, seconds: float) -> tuple[Took, str]:
    """What answers took over so many connections, and the text of one."""
    took, loop, request = Took(), asyncio.get_running_loop(), target.request(streamed)
    over, before = time.perf_counter() + seconds, target.processor_s

    async def some(number: int) -> bytes:
        _, asker = await loop.create_connection(Asker, "127.0.0.1", target.port)
        drawn = random.Random(number)
        while time.perf_counter() < over:
            await asyncio.sleep(drawn.uniform(0, TOKENS * TOKEN_S))
            first, whole = await asker.ask(request)
            took.first.append(first)
            took.whole.append(whole)
        asker.transport.close()
        return asker.said

    said = await asyncio.gather(*map(some, range(connections)))
    took.processor_s = target.processor_s - before
    return took, text(said[0], streamed)


def text(body: bytes, streamed: bool) -> str:
    """The words of an answer."""
    if not streamed:
        return str(json.loads(body)["choices"][0]["message"]["content"])
    lines = [one.removeprefix("data: ") for one in body.decode().splitlines() if one.startswith("data: {")]
    deltas = [choice["delta"] for one in lines for choice in json.loads(one)["choices"]]
    return "".join(one.get("content") or "" for one in deltas)


def percentiles(found: list[float]) -> dict[str, float]:
    """Median and 99th percentile, milliseconds."""
    found = sorted(found)
    return {f"p{p}_ms": round(found[min(len(found) - 1, len(found) * p // 100)] * 1000, 2) for p in (50, 99)}


def measured(targets: dict[str, Target], streamed: bool, connections: int, seconds: float) -> dict[str, Any]:
    """Each target's percentiles at so many connections, and what the gateways add."""
    found = {name: Took() for name in targets}
    for number in range(ROUNDS + 1):
        for name, target in targets.items():
            took, said = uvloop.run(asked(target, streamed, connections, seconds / ROUNDS))
            assert said == paced.said(TOKENS), (name, said)
            if number:  # the first round warms up
                found[name].first += took.first
                found[name].whole += took.whole
                found[name].processor_s += took.processor_s
    row = {name: one.figures(streamed) for name, one in found.items()}
    for name in row.keys() - {"engine"}:
        compared = [key for key in row[name] if key.endswith(("p50_ms", "p99_ms"))]
        row[name] |= {f"added_{key}": round(row[name][key] - row["engine"][key], 2) for key in compared}
    return {"answers": "streams" if streamed else "whole", "connections": connections, **row}


@contextmanager
def portkey(folder: Path) -> Iterator[tuple[int, int]]:
    """The peer, started; its port and its process."""
    wanted = {"private": True, "dependencies": {PEER: VERSION}, "overrides": NEEDS}
    (folder / "package.json").write_text(json.dumps(wanted))
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True)
    at = port.unused()
    program = folder / "node_modules" / PEER / "build" / "start-server.js"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(["node", str(program), f"--port={at}", "--headless"], cwd=folder, **quiet)  # type: ignore[call-overload]
    try:
        mocked.until_up(f"http://127.0.0.1:{at}/")
        yield at, child.pid
    finally:
        child.terminate()
        child.wait(30)


def main() -> None:
    """Run it and write the figures."""
    read = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    read.add_argument("--out", type=Path, default=ROOT / "bench" / "gateway.json")
    read.add_argument("--seconds", type=float, default=12)
    asked_for = read.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        models.system(folder / "plain", ROOT, ROWS)
        (folder / "peer").mkdir()
        several = mocked.running(folder, 64, TOKENS, TOKEN_S, connections_an_address=250)
        with several as ours, portkey(folder / "peer") as (peer, peer_pid):
            bearer = {"authorization": f"Bearer {ours.key}"}
            custom = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{ours.engine}/v1"}
            at = {name: int(url.rpartition(":")[2]) for name, url in (("engine", ours.engine), ("ours", ours.url))}
            targets = {
                "engine": Target(at["engine"], bearer, psutil.Process(ours.engine_pid)),
                "nightshift": Target(at["ours"], bearer, psutil.Process(ours.pid)),
                "portkey": Target(peer, bearer | custom, psutil.Process(peer_pid)),
            }
            for streamed in (False, True):
                for connections in CONNECTIONS:
                    rows.append(measured(targets, streamed, connections, asked_for.seconds))
                    print(json.dumps(rows[-1]), flush=True)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    about = {"machine": machine, "peer": f"{PEER}@{VERSION}", "engine_ms": TOKENS * TOKEN_S * 1000}
    asked_for.out.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
