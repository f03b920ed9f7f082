"""Assign the release that tonight published to production.

Runs after the publisher, in a clone of the published commit; the assignment is a tag in the repository of record. The
servers follow the registry: nothing is pushed to them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from nightshift import registry
from nightshift.errors import NightshiftError, ReleaseInvalid, known, tell


def deploy(repository: Path, commit: str) -> registry.Assignment:
    """Assign the release of `commit` to production. Raises ReleaseInvalid when it has none."""
    found = [one for one in registry.releases(repository) if one.commit == commit]
    if not found:
        raise ReleaseInvalid("no version was published from this commit", commit, "run the night again")
    return registry.assign(repository, found[-1])


def main() -> None:
    """Assign, and print what was assigned; exits with the error's code."""
    asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    try:
        made = deploy(Path(os.environ["DVC_AIRFLOW_REPOSITORY"]), asked.stdout.strip())
    except (NightshiftError, OSError) as error:
        if (found := known(error)) is None:
            raise
        sys.exit(tell("deploy", found))
    print(json.dumps({"deployed": made.environment, "version": made.release.version, "number": made.number}))


if __name__ == "__main__":
    main()
