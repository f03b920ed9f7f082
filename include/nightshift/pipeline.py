"""Ask, before a night, whether dvc.yaml can be run at all: by the same code that makes the DAG of it.

What a night refuses of the work tree, its first task says.

The engine is a program of its own (nothing here imports it), and what it read is kept for the scheduler.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nightshift.errors import RepositoryError, full, no_room

REFUSED = 2  # how the engine ends when it has a sentence to say


def runs(root: Path) -> bool:
    """Whether nights can run here at all: what came in a bundle serves, and has no engine for nights."""
    return (root / "plugins").is_dir()


def check(root: Path) -> None:
    """Raises RepositoryError for a repository without a commit, and for a dvc.yaml that the engine refuses."""
    head = subprocess.run(["git", "-C", str(root), "rev-parse", "--quiet", "--verify", "HEAD"], capture_output=True)
    if head.returncode != 0:
        raise RepositoryError("there is no commit yet", str(root), "`git add -A && git commit`, then try again")
    asked = [sys.executable, "-m", "dvc_airflow", "check", "--pipeline", str(root)]
    around = os.environ | {"PYTHONPATH": str(root / "plugins")}
    said = subprocess.run(asked, cwd=root, env=around, capture_output=True, text=True, check=False)
    if said.returncode == 0:
        return
    last = (said.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if said.returncode == REFUSED:
        raise RepositoryError(last)
    if full(OSError(last)):
        raise no_room(str(root))
    raise RepositoryError(f"it cannot be read ({last})", str(root / "dvc.yaml"), "see what `dvc status` says")
