"""Five bad candidates and one rollback by hand, under load and beside a training: how long, and who noticed.

    python bench/drill.py [--out bench/drill.json] [--idle]

The endpoint is the real one, with a real registry and its own rollout; engines are mocked (tests/serve/drilled.py). Two
hundred users ask for streams all the time; beside them the project's own model is pretrained on every core, at the
priority that a stage has while something serves. For each drill: seconds from the fault's first request to the stable
release for everybody, streams that did not end whole, refusals among them, but for those of the bad release, and users
that it answered. Exits 1 when a bound is broken: thirty seconds (five for a rollback), no cut stream, five users in a
hundred.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include")]

import aiohttp  # noqa: E402
from bench import pretraining  # noqa: E402
from tests.serve import drilled  # noqa: E402
from tests.serve.drilled import Drilled  # noqa: E402
from tests.serve.scripted import chat  # noqa: E402

from nightshift import rollouts  # noqa: E402

BAD = {version: kind for version, kind in drilled.ENGINES.items() if kind != "good"}
STREAMS = 3  # at a time
BACK_S, ROLLBACK_S = 30.0, 5.0


@dataclass
class Streams:
    """What users saw, by digest: streams that ended whole, those that did not, and who was answered; "" of none."""

    whole: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note(self, digest: str, key: str, whole: bool) -> None:
        """A stream ended."""
        (self.whole if whole else self.cut)[digest] += 1
        self.users[digest].add(key)


async def users(one: Drilled, streams: Streams, over: asyncio.Event) -> None:
    """Ask for streams, a few at a time, each by another user, until it is over."""
    drawn = random.Random(3)
    async with aiohttp.ClientSession() as session:

        async def some() -> None:
            while not over.is_set():
                await _stream(session, one, drawn.choice(one.keys), streams)

        await asyncio.gather(*(some() for _ in range(STREAMS)))


async def _stream(session: aiohttp.ClientSession, one: Drilled, key: str, streams: Streams) -> None:
    head, digest, text = {"Authorization": f"Bearer {key}"}, "", ""
    try:
        asked = session.post(f"{one.url}/v1/chat/completions", json=chat("Hello there", stream=True), headers=head)
        async with asked as said:
            digest = said.headers.get("x-model-digest", "")
            text = (await said.read()).decode()
    except aiohttp.ClientError:
        pass
    streams.note(digest, key, '"finish_reason": "stop"' in text and text.rstrip().endswith("[DONE]"))


async def drill(one: Drilled, version: str) -> dict[str, Any]:
    """Let a bad release be tried, under load, and see it go back."""
    streams, over = Streams(), asyncio.Event()
    load = asyncio.create_task(users(one, streams, over))
    digest, stable = one.release(version).digest, one.release("v0.1.0").digest
    one.propose(version)
    entries = await _until(one, digest, "back")
    over.set()
    await load
    tried = max(entry.seconds for entry in entries)  # since it took requests, or, never ready, since its assignment
    back = entries[-1]
    return {
        "seconds": round(tried, 1),
        "reason": back.reason,
        "cut_streams": streams.cut.total() - streams.cut[digest],
        "whole_streams": streams.whole[stable],
        "users": back.users,
    }


async def rollback(one: Drilled) -> dict[str, Any]:
    """Promote a good release, then go back from it by hand, under load."""
    streams, over = Streams(), asyncio.Event()
    load = asyncio.create_task(users(one, streams, over))
    release = one.release("v0.7.0")
    one.propose(release.version)
    await _until(one, release.digest, "promoted")
    head = {"Authorization": f"Bearer {one.admin_key}"}
    async with aiohttp.ClientSession() as session:
        await asyncio.sleep(3)
        streams.users.clear()
        begun = time.perf_counter()
        body = {"reason": "a drill"}
        async with session.post(f"{one.admin}/admin/v1/deployments/rollback", json=body, headers=head) as said:
            assert said.status == 200, await said.text()
        while True:
            async with session.get(f"{one.admin}/admin/v1/deployments", headers=head) as said:
                if (await said.json())["served"]["version"] == "v0.1.0":
                    break
        seconds = time.perf_counter() - begun
    await asyncio.sleep(2)
    over.set()
    await load
    return {
        "seconds": round(seconds, 2),
        "cut_streams": streams.cut.total(),
        "whole_streams": streams.whole.total(),
        "users": len(streams.users[release.digest]),
    }


async def _until(one: Drilled, digest: str, outcome: str, within_s: float = 240.0) -> list[rollouts.Entry]:
    """A release's entries, once the last is this. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while True:
            found = [entry for entry in rollouts.read(one.home) if entry.digest == digest]
            if found and found[-1].outcome == outcome:
                return found
            await asyncio.sleep(0.1)


def run(versions: list[str], busy: bool, by_hand: bool = True) -> dict[str, Any]:
    """The drills; `broken` holds the bounds that did not hold."""
    report: dict[str, Any] = {"drills": {}}
    broken = []
    beside = pretraining.beside() if busy else nullcontext()
    with tempfile.TemporaryDirectory() as made, drilled.running(Path(made)) as one, beside:
        for version in versions:
            said = asyncio.run(drill(one, version))
            report["drills"][BAD[version]] = said
            print(BAD[version], json.dumps(said), flush=True)
            if said["seconds"] > BACK_S or said["cut_streams"] or said["users"] > len(one.keys) * 0.05 + 1:
                broken.append(f"{BAD[version]}: {said}")
        if by_hand:
            report["rollback"] = said = asyncio.run(rollback(one))
            print("rollback", json.dumps(said), flush=True)
            if said["seconds"] > ROLLBACK_S or said["cut_streams"]:
                broken.append(f"rollback: {said}")
    return report | {"users": len(one.keys), "pretraining_beside": busy, "broken": broken}


def main() -> None:
    """Run them and write the report."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--out", type=Path, default=ROOT / "bench" / "drill.json")
    asked.add_argument("--idle", action="store_true", help="without a pretraining beside")
    said = asked.parse_args()
    report = run(list(BAD), not said.idle)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    said.out.write_text(json.dumps({"machine": machine} | report, indent=2) + "\n")
    sys.exit(1 if report["broken"] else 0)


if __name__ == "__main__":
    main()
