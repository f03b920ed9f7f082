"""Refuse the code of another checkout: what runs would not be what the commit says that ran."""

from __future__ import annotations

from pathlib import Path

from nightshift.errors import CheckoutMismatch


def same(root: Path) -> None:
    """Raises CheckoutMismatch when one stands in one checkout and Python imports the code of another."""
    here = Path(__file__).resolve()
    there = root / "include" / "nightshift" / "stage.py"
    if there.is_file() and not here.is_relative_to((root / "include").resolve()):
        do = f"run with PYTHONPATH={root / 'include'}, or `make` there"
        raise CheckoutMismatch("the code that would run is another checkout's", str(here), do)
