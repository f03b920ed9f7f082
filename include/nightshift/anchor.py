"""The audit's last event, named by the commit of every night: to take the log away is not enough.

A trailer `Audit: NUMBER HASH KEY` of commits on the branch `nightly`. KEY is the fingerprint of the key that signs
releases in this home, since a branch may carry nights of several homes, each with an audit of its own.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from nightshift import audit, signature
from nightshift.errors import AccessDenied
from nightshift.registry import BRANCH

TRAILER = "Audit"
SAID = re.compile(r"(?m)^([0-9a-f]{40,64}) (\d{1,15}) ([0-9a-f]{64}) ([0-9a-f]{64})$")


class Anchor(NamedTuple):
    """An event that a commit names: its number, its hash, and the key of the home whose audit it is in."""

    number: int
    hash: str
    key: str
    commit: str


def trailer(home: Path) -> str | None:
    """What a commit is to say of this home's audit; None before the first event or the first signature."""
    key, (number, own) = signature.current(home), audit.end(home)
    return f"{TRAILER}: {number} {own} {key}" if key and number else None


def named(root: Path) -> list[Anchor]:
    """Every one that a night's commit names, newest first."""
    asked = ["git", "-C", str(root), "log", "--first-parent", f"--grep=^{TRAILER}: "]
    shown = [f"--format=%H %(trailers:key={TRAILER},valueonly,separator=%x20)", f"refs/heads/{BRANCH}", "--"]
    said = subprocess.run([*asked, *shown], capture_output=True, text=True, check=False).stdout
    return [Anchor(int(one[2]), one[3], one[4], one[1]) for one in SAID.finditer(said)]


def verify(home: Path, root: Path) -> int:
    """How many events the audit has. Raises AccessDenied unless it is whole and holds all that Git names of it."""
    number, key = audit.verify(home), signature.current(home)
    own = [one for one in named(root) if one.key == key]
    held = {one["seq"]: one["hash"] for one in audit.events(home)} if own else {}
    for one in reversed(own):
        if held.get(one.number) != one.hash:
            what = f"event {one.number} is not the one that commit {one.commit[:12]} on branch {BRANCH} names"
            do = "put the log back from a copy; one that is lost for good ends with its key (`release rotate-key`)"
            raise AccessDenied(what, f"{home / audit.FILE}:{one.number}", do)
    return number


def elsewhere(home: Path, root: Path) -> Anchor | None:
    """The newest that Git names, where it is of another home; None where this audit holds it, or there is none."""
    newest = next(iter(named(root)), None)
    if newest is None or newest.key == signature.current(home):
        return None
    held = any((one.get("seq"), one.get("hash")) == (newest.number, newest.hash) for one in audit.events(home))
    return None if held else newest  # which a key that was replaced since had named
