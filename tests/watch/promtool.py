"""Where promtool is: Prometheus' own judge of rules."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def promtool(root: Path) -> str:
    """The program; fails the test with a sentence where it is not there."""
    own = root / ".system" / "usr" / "bin" / "promtool"
    found = shutil.which("promtool") or (str(own) if own.is_file() else None)
    if found is None:
        pytest.fail("promtool is not there: run deploy/system.sh, or put it on PATH", pytrace=False)
    return found
