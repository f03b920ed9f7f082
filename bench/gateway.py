"""What the gateway adds to an answer's time, beside another one: the same mock engine, the same questions, one run.

    python bench/gateway.py [--out bench/gateway.json] [--seconds 6]

The peer is Portkey's gateway from npm, which is fetched into a temporary folder. Both ask the engine over loopback and
need a key: ours checks it against its store; Portkey's, as it comes from npm, hands it on, and the engine checks it.
Ours also masks, cleans, counts and traces; Portkey's hands the answer on. The engine takes a fixed time (100 ms), so
that what is added is what the gateway costs. Equal work is checked first: through each the same text comes back. Added
is a gateway's percentile less the engine's own at the same number of connections, in turns, so that a machine that
slows down slows all three.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include")]

import aiohttp  # noqa: E402
from tests import models  # noqa: E402
from tests.serve import mocked  # noqa: E402
from tests.serve.scripted import ROWS, chat  # noqa: E402

from nightshift import port  # noqa: E402

PEER = "@portkey-ai/gateway@1.15.2"
CONNECTIONS = (1, 4, 16, 64)
TOKENS, TOKEN_S, ROUNDS = 10, 0.01, 3


@contextmanager
def portkey(folder: Path) -> Iterator[str]:
    """The peer, started; its address."""
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", PEER], cwd=folder, check=True)
    at = port.unused()
    program = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(["node", str(program), f"--port={at}", "--headless"], cwd=folder, **quiet)  # type: ignore[call-overload]
    try:
        mocked.until_up(f"http://127.0.0.1:{at}/")
        yield f"http://127.0.0.1:{at}"
    finally:
        child.terminate()
        child.wait(30)


async def asked(url: str, head: dict[str, str], connections: int, seconds: float) -> tuple[list[float], str]:
    """Seconds of each answer, over so many connections, each after its last; and the text that came back."""
    took: list[float] = []
    text = ""
    over = time.perf_counter() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def some() -> None:
            nonlocal text
            while (begun := time.perf_counter()) < over:
                async with session.post(url, json=chat("Hello there"), headers=head) as said:
                    body = await said.json()
                    assert said.status == 200, body
                took.append(time.perf_counter() - begun)
                text = body["choices"][0]["message"]["content"]

        await asyncio.gather(*(some() for _ in range(connections)))
    return sorted(took), text


def measured(targets: dict[str, tuple[str, dict[str, str]]], seconds: float) -> list[dict[str, Any]]:
    """For each number of connections: percentiles of each target, and what the gateways add."""
    rows = []
    for connections in CONNECTIONS:
        took: dict[str, list[float]] = {name: [] for name in targets}
        for number in range(ROUNDS + 1):
            for name, (url, head) in targets.items():
                found, text = asyncio.run(asked(url, head, connections, seconds / ROUNDS))
                assert text == "".join(f"w{n} " for n in range(TOKENS)), (name, text)
                took[name] += found if number else []  # the first round warms up
        each = {name: {"count": len(one), **percentiles(sorted(one))} for name, one in took.items()}
        for name in each.keys() - {"engine"}:
            for percentile in ("p50_ms", "p99_ms"):
                each[name][f"added_{percentile}"] = round(each[name][percentile] - each["engine"][percentile], 2)
        rows.append({"connections": connections, **each})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def percentiles(found: list[float]) -> dict[str, float]:
    """Median and 99th percentile, milliseconds."""
    return {f"p{p}_ms": round(found[min(len(found) - 1, len(found) * p // 100)] * 1000, 2) for p in (50, 99)}


def main() -> None:
    """Run it and write the figures."""
    read = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    read.add_argument("--out", type=Path, default=ROOT / "bench" / "gateway.json")
    read.add_argument("--seconds", type=float, default=6)
    said = read.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        models.system(folder / "plain", ROOT, ROWS)
        (folder / "peer").mkdir()
        several = mocked.running(folder, 64, TOKENS, TOKEN_S, connections_an_address=250)
        with several as ours, portkey(folder / "peer") as peer:
            bearer = {"Authorization": f"Bearer {ours.key}"}
            custom = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{ours.engine}/v1"}
            targets = {
                "engine": (f"{ours.engine}/v1/chat/completions", bearer),
                "nightshift": (f"{ours.url}/v1/chat/completions", bearer),
                "portkey": (f"{peer}/v1/chat/completions", bearer | custom),
            }
            rows = measured(targets, said.seconds)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    about = {"machine": machine, "peer": PEER, "engine_ms": TOKENS * TOKEN_S * 1000}
    said.out.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
