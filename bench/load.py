"""Throw at the gateway what the internet throws at one, and write down what came of it.

    python bench/load.py [--out bench/load.json] [--minutes 30] [--seconds 30]

A mock engine of fixed speed stands behind the real gateway, each in a process of its own. First the peak is measured;
then come hostile bodies, requests made from the endpoint's own OpenAPI document (schemathesis), half-open sockets, slow
readers, and load in an open loop at 0.5, 1 and 5 times the peak, while `/healthz` is asked ten times a second. Last, at
half the peak for `--minutes`, memory is looked at: its slope from minute 5 on. Exits 1 when a bound is broken.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include")]

from tests import models  # noqa: E402
from tests.serve import attack, mocked  # noqa: E402
from tests.serve.scripted import ROWS  # noqa: E402

from nightshift.adapt.index import encoder_folder  # noqa: E402

SLOTS, TOKENS, TOKEN_S = 4, 10, 0.01  # the engine: 40 answers a second, whatever the gateway costs
RECOVERED_S = 6.0  # from an attack's start
BOUNDS = {"goodput at 5 times the peak": 0.8, "probes under a second": 0.999, "MB a minute": 0.2}


def run(seconds: float, minutes: float, quiet: bool = False) -> dict[str, Any]:
    """Every attack on one gateway; what came of each, and `broken`, the bounds that did not hold."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        models.system(folder / "plain", ROOT, ROWS)
        (folder / "plain" / "index" / "encoder").symlink_to(encoder_folder())
        with mocked.running(folder, SLOTS, TOKENS, TOKEN_S, connections_an_address=250, queue=16) as one:
            say = (lambda _: None) if quiet else (lambda text: print(text, flush=True))
            return _run(one, seconds, minutes, say)


def _run(one: mocked.Mocked, seconds: float, minutes: float, say: Any) -> dict[str, Any]:
    asyncio.run(attack.closed_loop(one.url, one.key, SLOTS, 40))
    begun = time.perf_counter()
    asked = asyncio.run(attack.closed_loop(one.url, one.key, 2 * SLOTS, int(30 * seconds)))
    peak = asked.statuses[200] / (time.perf_counter() - begun)
    report: dict[str, Any] = {"peak": round(peak, 1), "attacks": {}}
    say(f"peak: {peak:.1f} answers a second")
    broken: list[str] = []
    probes: list[tuple[float, float]] = []
    for name, thrown in _attacks(one, peak, seconds).items():
        begun = time.perf_counter()
        said, seen = asyncio.run(_beside(one, thrown))
        took = time.perf_counter() - begun
        probes += [at for at in seen if at[0] > RECOVERED_S]
        good = said.statuses[200] / took if said.statuses else None
        report["attacks"][name] = {
            "seconds": round(took, 1),
            "statuses": {str(status): number for status, number in sorted(said.statuses.items())},
            "wrong": said.wrong[:5],
            "goodput": round(good, 1) if good is not None else None,
            "slowest_probe_s": round(max((took for at, took in seen if at > RECOVERED_S), default=0.0), 3),
        }
        say(f"{name}: {report['attacks'][name]}")
        broken += [f"{name}: {one}" for one in said.wrong[:5]]
        if name != "load at 5" and said.statuses[0]:
            broken.append(f"{name}: {said.statuses[0]} connections broke")
        if name == "load at 5" and good is not None and good < BOUNDS["goodput at 5 times the peak"] * peak:
            broken.append(f"goodput at 5 times the peak is {good:.1f}, of {peak:.1f}")
    report["schemathesis"] = schemathesis(one)
    if report["schemathesis"]["exit"]:
        broken.append("schemathesis found something")
    quick = sum(took < 1.0 for _, took in probes) / max(1, len(probes))
    report["probes"] = {"count": len(probes), "under_a_second": round(quick, 4)}
    if quick < BOUNDS["probes under a second"]:
        broken.append(f"only {quick:.4f} of the probes took under a second")
    if minutes:
        report["memory"] = memory(one, peak, minutes)
        if report["memory"]["mb_a_minute"] > BOUNDS["MB a minute"]:
            broken.append(f"memory grows by {report['memory']['mb_a_minute']} MB a minute")
    return report | {"broken": broken}


def _attacks(one: mocked.Mocked, peak: float, seconds: float) -> dict[str, Any]:
    """Name → what is thrown: makes a coroutine that gives an Outcome."""
    host, _, at = one.url.removeprefix("http://").partition(":")
    address = (host, int(at))

    async def held(sockets: list[Any]) -> attack.Outcome:
        await asyncio.sleep(max(seconds, RECOVERED_S + 2))
        outcome = await attack.closed_loop(one.url, one.key, 2, 20)  # the others are answered
        for each in sockets:
            each.close()
        return outcome

    found = {
        "hostile bodies": lambda: attack.hostile(one.url, one.key, list(attack.bodies(7))),
        "half-open sockets": lambda: held(attack.half_open(address)),
        "slow readers": lambda: held(attack.slow_readers(address, one.key)),
    }
    for times in (0.5, 1, 5):
        found[f"load at {times:g}"] = lambda times=times: attack.open_loop(one.url, one.key, peak * times, seconds, 3)
    return found


async def _beside(one: mocked.Mocked, thrown: Any) -> tuple[attack.Outcome, list[tuple[float, float]]]:
    """An attack, with `/healthz` of both listeners asked beside it."""
    over = asyncio.Event()
    probing = asyncio.create_task(attack.probing([one.url, one.admin], over))
    said = await thrown()
    over.set()
    return said, await probing


def schemathesis(one: mocked.Mocked) -> dict[str, Any]:
    """Requests made from the endpoint's own document: it never fails, and answers as the document says."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    words = [sys.executable, "-m", "schemathesis.cli", "run", f"{one.url}/openapi.json", "--checks", checks]
    words += [
        "-H",
        f"Authorization: Bearer {one.key}",
        "--max-examples",
        "25",
        "--phases",
        "examples,fuzzing",
        "--no-color",
    ]
    words += ["--seed", "1", "--suppress-health-check", "all"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": ""})
    return {"exit": ended.returncode, "said": ended.stdout.splitlines()[-12:] + ended.stderr.splitlines()[-3:]}


def memory(one: mocked.Mocked, peak: float, minutes: float) -> dict[str, Any]:
    """Resident memory of the gateway at half the peak, once a quarter of a minute."""
    found: list[tuple[float, float]] = []

    async def looking() -> None:
        load = asyncio.create_task(attack.open_loop(one.url, one.key, peak / 2, minutes * 60, 5))
        begun = time.perf_counter()
        while not load.done():
            found.append(((time.perf_counter() - begun) / 60, attack.memory_mb(one.pid)))
            await asyncio.sleep(15)

    asyncio.run(looking())
    late = [each for each in found if each[0] >= min(5, minutes / 2)]
    return {"mb": round(found[-1][1], 1), "mb_a_minute": round(slope(late), 3), "minutes": minutes}


def slope(points: list[tuple[float, float]]) -> float:
    """Of the least-squares line through these."""
    n = len(points)
    if n < 2:
        return 0.0
    x, y = sum(one[0] for one in points) / n, sum(one[1] for one in points) / n
    spread = sum((one[0] - x) ** 2 for one in points)
    return sum((one[0] - x) * (one[1] - y) for one in points) / spread if spread else 0.0


def main() -> None:
    """Run it and write the report."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--out", type=Path, default=ROOT / "bench" / "load.json")
    asked.add_argument("--minutes", type=float, default=30)
    asked.add_argument("--seconds", type=float, default=30)
    said = asked.parse_args()
    report = run(said.seconds, said.minutes)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    said.out.write_text(json.dumps({"machine": machine} | report, indent=2) + "\n")
    print(json.dumps(report["broken"]))
    sys.exit(1 if report["broken"] else 0)


if __name__ == "__main__":
    main()
