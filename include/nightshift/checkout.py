"""A checkout: whose code runs in it, and where its places are that are not outs."""

from __future__ import annotations

import os
from pathlib import Path

from nightshift import storage
from nightshift.errors import CheckoutMismatch, UsageError


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


def state(root: Path) -> tuple[Path, str]:
    """NIGHTSHIFT_STATE as a folder of this machine, and as the S3 prefix that all machines share; "" for none.

    With a prefix the folder is NIGHTSHIFT_SCRATCH, or the checkout's own: what one machine keeps for itself. Raises
    UsageError for a prefix without a bucket.
    """
    said = os.environ.get("NIGHTSHIFT_STATE", "")
    if not storage.is_s3(said):
        return folder("NIGHTSHIFT_STATE", root / ".nightshift"), ""
    if not said.removeprefix("s3://").partition("/")[0]:
        raise UsageError("it names no bucket", f"NIGHTSHIFT_STATE={said}", "write it as s3://bucket/prefix")
    return folder("NIGHTSHIFT_SCRATCH", root / ".nightshift"), said.rstrip("/")
