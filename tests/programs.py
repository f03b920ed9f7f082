"""Programs that tests run and PyPI does not have: on PATH, or where deploy/system.sh puts them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

SYSTEM = Path(__file__).resolve().parents[1] / ".system" / "usr"
LIBRARIES = SYSTEM / "lib" / "x86_64-linux-gnu"


def program(name: str, brings: str, place: str = "bin") -> str:
    """Where a program is; fails the test with a sentence where it is not there.

    Args:
        brings: the command that brings it.
        place: its folder in Debian's package, below /usr.
    """
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], str(SYSTEM / place)]))
    if found is None:
        pytest.fail(f"{name} is not there: run {brings}, or put it on PATH", pytrace=False)
    return found
