"""A checkout: whose code runs in it, and where its places are that are not outs."""

from __future__ import annotations

import os
from pathlib import Path

from nightshift.errors import CheckoutMismatch


def same(root: Path) -> None:
    """Raises CheckoutMismatch when one stands in one checkout and Python imports the code of another.

    What runs would not be what the commit says that ran.
    """
    here = Path(__file__).resolve()
    there = root / "include" / "nightshift" / "stage.py"
    if there.is_file() and not here.is_relative_to((root / "include").resolve()):
        do = f"run with PYTHONPATH={root / 'include'}, or `make` there"
        raise CheckoutMismatch("the code that would run is another checkout's", str(here), do)


def folder(variable: str, default: Path) -> Path:
    """A place as the environment has it (NIGHTSHIFT_STATE, …), else the checkout's own."""
    return Path(os.environ.get(variable) or default).resolve()
