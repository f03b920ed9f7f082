"""What is costly to find again of a project, kept in it under the hash of what it was found from.

Each may be lost at any time, and is found anew. Only the newest stay.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

MOST = 64  # of a checkout's commits and of those that its nights pinned, some are read again and again


def folder(root: Path) -> Path:
    """Where it is kept of the checkout at `root`."""
    return root / ".dvc" / "tmp" / "projects"


def read(folder: Path, name: str) -> Any:
    """What was kept under this name; None for nothing."""
    with suppress(OSError, ValueError):
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return None


def write(folder: Path, name: str, found: Any) -> None:
    """Keep it, where it can be written, and is of JSON's values."""
    draft = folder / f"{name}.{os.getpid()}.draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(found), encoding="utf-8")
        draft.replace(folder / f"{name}.json")
        for old in sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime)[:-MOST]:
            old.unlink(missing_ok=True)
    except (OSError, TypeError, ValueError):
        draft.unlink(missing_ok=True)
