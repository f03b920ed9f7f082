"""Assign the release that tonight published to the first environment.

Runs after the publisher, in a clone of the published commit; the assignment is a tag in the repository of record. Which
release it is say the commit's metrics, by digest: its version may be of a night before, which died here. Done twice it
is done once. The servers follow the registry: nothing is pushed to them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from nightshift import audit, params, registry
from nightshift.deployment import Environments
from nightshift.errors import NightshiftError, ReleaseInvalid, known, tell


def deploy(repository: Path, clone: Path, home: Path, night: str, now: float) -> registry.Assignment:
    """Assign the release of the commit that `clone` stands on, at `now`. Raises ReleaseInvalid if unversioned."""
    digest = json.loads((clone / "metrics" / "release.json").read_text(encoding="utf-8")).get("digest")
    found = registry.by_digest(repository, digest) if digest else None
    if found is None:
        raise ReleaseInvalid("no version was published of this release", str(digest), "run the night again")
    first = params.load(clone / params.FILE, Environments).first
    if registry.current(repository, first) != found:
        event = {"actor": night, "action": "deploy", "target": found.digest, "version": found.version}
        audit.write(home, now, **event, environment=first, reason="the gate let it out")
    return registry.assign(repository, found, first)


def main() -> None:
    """Assign, and print what was assigned; exits with the error's code."""
    home, night = Path(os.environ["NIGHTSHIFT_HOME"]), os.environ.get("DVC_AIRFLOW_RUN", "Night")
    try:
        made = deploy(Path(os.environ["DVC_AIRFLOW_REPOSITORY"]), Path.cwd(), home, night, time.time())
    except (NightshiftError, OSError) as error:
        if (found := known(error)) is None:
            raise
        sys.exit(tell("deploy", found))
    print(json.dumps({"deployed": made.environment, "version": made.release.version, "number": made.number}))


if __name__ == "__main__":
    main()
