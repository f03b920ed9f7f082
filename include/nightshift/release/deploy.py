"""Put the release that tonight published before its users, unless what was promised of it leaves no room.

Runs after the publisher, in a clone of the published commit; the assignment is a tag in the repository of record. Which
release it is say the commit's metrics, by digest: its version may be of a night before, which died here. Done twice it
is done once. The servers follow the registry: nothing is pushed to them. Where the endpoint is to try it first
(handover.py), this waits for what becomes of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nightshift import audit, params, registry, rollouts
from nightshift.deployment import Environments
from nightshift.errors import NightshiftError, ReleaseInvalid, known, tell
from nightshift.registry import CANARY, Release
from nightshift.release.handover import way

TRIED_WITHIN_S = 420.0  # a night has 1,200 s; a rollout goes on without it
LOOK_EVERY_S = 2.0


def deploy(
    repository: Path, clone: Path, home: Path, night: str, now: float, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Any]:
    """Deploy the release of the commit that `clone` stands on, or say why not, for night.json.

    `now` is in seconds since 1970. Raises ReleaseInvalid for a release without a version, ParamsError for a policy or
    an objective that cannot be read.
    """
    metrics = json.loads((clone / "metrics" / "release.json").read_text(encoding="utf-8"))
    found = registry.by_digest(repository, metrics["digest"]) if metrics.get("digest") else None
    if found is None:
        what = "no version was published of this release"
        raise ReleaseInvalid(what, str(metrics.get("digest")), "run the night again")
    first = params.load(clone / params.FILE, Environments).first
    chosen = way(repository, clone, home, found, first, int(now) // 60)
    if chosen.held:
        event = {"actor": night, "action": "hold", "target": found.digest, "version": found.version}
        audit.write(home, now, **event, environment=first, reason=chosen.held)
        return {"deployed": None, "frozen": chosen.held, "why_not_deployed": f"frozen: {chosen.held}"}
    current = registry.current(repository, first)
    if current != found and found.digest in rollouts.bad(home):
        return _why(home, found)
    if chosen.tried:
        return _tried(repository, home, found, night, now, sleep)
    if current != found:
        _noted(home, now, night, found, first)
    made = registry.assign(repository, found, first)
    rollouts.settle(home, made, "the night assigned it", now)
    return _said(made)


def _tried(
    repository: Path, home: Path, release: Release, night: str, now: float, sleep: Callable[[float], None]
) -> dict[str, Any]:
    """Let the endpoint try a release, and wait for what becomes of it."""
    _noted(home, now, night, release, CANARY)
    registry.assign(repository, release, CANARY)
    waited = 0.0
    while waited < TRIED_WITHIN_S:
        if registry.current(repository) == release:
            return _said(registry.assign(repository, release))
        if release.digest in rollouts.bad(home):
            return _why(home, release)
        sleep(LOOK_EVERY_S)
        waited += LOOK_EVERY_S
    last = rollouts.last(home, release.digest)
    passed = {"begun": "at", "advanced": "beyond"}.get(last.outcome) if last else None
    where = f"{passed} {last.step}" if last and passed else "in its queue"
    return {"deployed": None, "why_not_deployed": f"the endpoint still tries it, {where}; it goes on without the night"}


def _why(home: Path, release: Release) -> dict[str, Any]:
    """Why it went back, which is for good."""
    last = next(one for one in reversed(rollouts.read(home)) if (one.digest, one.outcome) == (release.digest, "back"))
    return {"deployed": None, "why_not_deployed": f"it went back at {last.step}: {last.told}"}


def _noted(home: Path, now: float, night: str, release: Release, environment: str) -> None:
    event = {"actor": night, "action": "deploy", "target": release.digest, "version": release.version}
    audit.write(home, now, **event, environment=environment, reason="the gate let it out")


def _said(made: registry.Assignment) -> dict[str, Any]:
    return {"deployed": made.environment, "version": made.release.version, "number": made.number}


def main() -> None:
    """Deploy, and print what was deployed or why nothing was; exits with the error's code."""
    repository, home = Path(os.environ["DVC_AIRFLOW_REPOSITORY"]), Path(os.environ["NIGHTSHIFT_HOME"])
    try:
        said = deploy(repository, Path.cwd(), home, os.environ.get("DVC_AIRFLOW_RUN", "Night"), time.time())
    except (NightshiftError, OSError) as error:
        if (found := known(error)) is None:
            raise
        sys.exit(tell("deploy", found))
    print(json.dumps(said))


if __name__ == "__main__":
    main()
