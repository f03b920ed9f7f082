"""What is thrown at an endpoint: hostile bodies, sockets that never end, readers that never read, and load in an open
loop. Each says what came of it; nothing here decides whether that was right.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.serve.scripted import chat

SHAPE = {"message", "type", "param", "code"}
GOOD_WITHIN_S = 15.0  # a later answer is none


@dataclass
class Outcome:
    """What came of requests.

    Args:
        statuses: how often each status was answered; 0 where the connection broke.
        wrong: answers that no endpoint of ours may give, in words.
        seconds: of those that were answered well.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def note(self, status: int, body: bytes, headers: Any, seconds: float) -> None:
        """Look at one answer."""
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)
            return
        try:
            shaped = set(json.loads(body)["error"]) == SHAPE
        except (ValueError, KeyError, TypeError):
            shaped = False
        if not shaped:
            self.wrong.append(f"{status} without the shape of an error: {body[:100]!r}")
        if status >= 500 and (status != 503 or "retry-after" not in headers):
            self.wrong.append(f"{status} {body[:100]!r}")


def bodies(seed: int, count: int = 300) -> Iterator[bytes]:
    """Hostile bodies: known tricks first, then mutations of a good one, the same for the same seed."""
    drawn = random.Random(seed)
    good = json.dumps(chat("Hello there", max_tokens=5, temperature=0, stop=["x"], stream=False)).encode()
    user = {"role": "user", "content": "x"}
    parts = {"role": "user", "content": [{"type": "text", "text": "x"}] * 9000}
    known = [
        *(b"", b"null", b"[]", b'"x"', b"{", b"\xff\xfe", b"\x00" * 100, b"[" * 50_000, b" " * 2_000_000),
        *(b'{"a":' * 500 + b"1" + b"}" * 500, b'{"model":"nightshift","model":"x"}', b'{"model":"\\ud800"}'),
        *(b'{"temperature":NaN}', b'{"temperature":1e999}', b'{"seed":' + b"9" * 9999 + b"}"),
        *map(_dumped, (chat("x", n=16384), chat("x", max_tokens=2**31), chat("x", max_tokens=-1))),
        *map(_dumped, (chat("x", stop=["s"] * 10_000), chat("🦀" * 200_000), chat("a" * 1_100_000))),
        *map(_dumped, (chat("x") | {"messages": [user] * 600}, chat("x") | {"messages": [parts]})),
        *map(_dumped, (chat("x") | {"__proto__": {"a": 1}}, chat("' or 1=1 -- {{7*7}} ${jndi:ldap://x} ../../etc"))),
    ]
    yield from known[:count]
    values: list[Any] = [None, True, -1, 0, 2**63, 1e308, "", "x" * 300, [], {}, [[]], {"a": {"b": []}}, "\u0000", "‮"]
    for _ in range(count - len(known)):
        if drawn.random() < 0.5:
            changed = json.loads(good)
            changed[drawn.choice([*changed, "user", "n", "tools", "logit_bias", "zzz"])] = drawn.choice(values)
            yield json.dumps(changed).encode()
        else:
            cut = bytearray(good)
            for _ in range(drawn.randint(1, 8)):
                cut[drawn.randrange(len(cut))] = drawn.randrange(256)
            yield bytes(cut[: drawn.randint(1, len(cut))])


def _dumped(body: Any) -> bytes:
    return json.dumps(body).encode()


async def hostile(url: str, key: str, sent: list[bytes]) -> Outcome:
    """Send bodies, eight at a time."""
    outcome, left = Outcome(), list(sent)
    async with aiohttp.ClientSession() as session:

        async def some() -> None:
            while left:
                await _one(session, url, key, left.pop(), outcome)

        await asyncio.gather(*(some() for _ in range(8)))
    return outcome


async def open_loop(url: str, key: str, rate: float, seconds: float, seed: int, stream: bool = False) -> Outcome:
    """Ask at a Poisson rate, whatever comes back: a slow answer delays no later question."""
    drawn, outcome, body = random.Random(seed), Outcome(), json.dumps(chat("Hello there", stream=stream)).encode()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as asked:
        begun, at = time.perf_counter(), 0.0
        while at < seconds:
            await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
            asked.create_task(_one(session, url, key, body, outcome))
            at += drawn.expovariate(rate)
    return outcome


async def closed_loop(url: str, key: str, connections: int, count: int, stream: bool = False) -> Outcome:
    """Ask over so many connections, each after its last answer."""
    outcome, left = Outcome(), count
    body = json.dumps(chat("Hello there", stream=stream)).encode()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def some() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await _one(session, url, key, body, outcome)

        await asyncio.gather(*(some() for _ in range(connections)))
    return outcome


async def _one(session: aiohttp.ClientSession, url: str, key: str, body: bytes, outcome: Outcome) -> None:
    head = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    begun = time.perf_counter()
    try:
        timeout = aiohttp.ClientTimeout(total=GOOD_WITHIN_S)
        async with session.post(f"{url}/v1/chat/completions", data=body, headers=head, timeout=timeout) as said:
            read = await said.read()
            outcome.note(said.status, read, said.headers, time.perf_counter() - begun)
    except (TimeoutError, aiohttp.ClientError):
        outcome.statuses[0] += 1


def half_open(address: tuple[str, int], count: int = 30) -> list[socket.socket]:
    """Sockets that send the beginning of a request and no more."""
    made = []
    for _ in range(count):
        one = socket.create_connection(address, timeout=10)
        one.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-")
        made.append(one)
    return made


def slow_readers(address: tuple[str, int], key: str, count: int = 30) -> list[socket.socket]:
    """Sockets that ask for a stream and read nothing of it."""
    body = json.dumps(chat("Hello there", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    made = []
    for _ in range(count):
        one = socket.create_connection(address, timeout=10)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        one.sendall(head.encode() + body)
        made.append(one)
    return made


async def probing(urls: list[str], over: asyncio.Event, every_s: float = 0.1) -> list[tuple[float, float]]:
    """Ask `/healthz` of each address until it is over: (when, how long it took), seconds; 99 for no answer."""
    found: list[tuple[float, float]] = []
    begun = time.perf_counter()
    async with aiohttp.ClientSession() as session:
        while not over.is_set():
            now = time.perf_counter()
            for url in urls:
                at = time.perf_counter()
                try:
                    async with session.get(f"{url}/healthz", timeout=aiohttp.ClientTimeout(total=5)) as said:
                        took = time.perf_counter() - at if said.status == 200 else 99.0
                except (TimeoutError, aiohttp.ClientError):
                    took = 99.0
                found.append((at - begun, took))
            await asyncio.sleep(max(0.0, now + every_s - time.perf_counter()))
    return found


def memory_mb(pid: int) -> float:
    """Resident memory of a process, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
