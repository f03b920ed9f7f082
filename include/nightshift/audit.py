"""Who did what that a machine may not do by itself: one JSON line each, each holding the hash of the one before.

Kept in NIGHTSHIFT_HOME/audit.jsonl, on the disk before the deed is done. A line that was changed or taken out breaks
the chain; `verify` says where. The last event's number and hash stand beside it, since a chain that lost its end is
whole. What is appended to a log that lost it goes on from there, so that the gap stays until the lines are put back.
Whether somebody took both files away, or wrote the whole chain anew, Git tells (anchor.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
from contextlib import suppress
from pathlib import Path
from typing import Any

from nightshift import commit
from nightshift.errors import AccessDenied

FILE = "audit.jsonl"
HEAD = "audit.head.json"  # number and hash of the last event; a kill between the two files leaves it one behind
FIRST = "0" * 64
# who does it: people, nights, the endpoint; promote.py and publish.py read some of these back
BY_PEOPLE = (
    "key.create", "key.rotate", "key.revoke", "key.pepper", "approve", "propose", "approve-promotion", "promote",
    "rollback", "sign", "rotate-key", "install", "lift",
)  # fmt: skip
BY_NIGHTS, BY_ENDPOINT = ("verdict", "deploy", "hold"), ("promote", "back")
ACTIONS = frozenset((*BY_PEOPLE, *BY_NIGHTS, *BY_ENDPOINT))


def actor() -> str:
    """The user of the machine who acts, as the system knows it: what the environment says anybody can say."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user may have no name
        return f"uid {os.getuid()}"


def write(home: Path, now: float, **event: Any) -> None:
    """Append one event (actor, action, target, reason, …) at `now`, seconds since 1970.

    Raises DiskFull, AccessDenied for a last line that is none; the log is then as it was. ValueError for an action that
    is none of ACTIONS.
    """
    if event.get("action") not in ACTIONS:
        raise ValueError(f"{event.get('action')!r} is no action of the audit")
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    path = home / FILE
    with path.open("a+b", buffering=0) as log:
        os.fchmod(log.fileno(), 0o600)
        fcntl.flock(log, fcntl.LOCK_EX)
        log.seek(0)
        number, last = _end(path, log.read().splitlines())
        said = {"seq": number + 1, "time": round(now, 3), **event, "prev": last}
        own, before = _hash(said), os.fstat(log.fileno()).st_size
        commit.grow(log, json.dumps(said | {"hash": own}, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        if _head(home) is not None:  # a damaged one stays, to be seen
            try:
                commit.file(home / HEAD, commit.dumps({"seq": said["seq"], "hash": own}), 0o600)
            except BaseException:  # then the deed is not done either
                log.truncate(before)
                raise


def verify(home: Path) -> int:
    """How many events there are. Raises AccessDenied at the first that is not what it was."""
    path, noted = home / FILE, _head(home)  # which is read first: who writes meanwhile makes the log longer
    if noted is None:
        raise _changed(home / HEAD, 1)
    last, (length, head) = FIRST, noted
    lines = path.read_bytes().splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        said = _parsed(path, number, line)
        own, seq = said.pop("hash"), said.get("seq")
        if isinstance(seq, int) and seq > number and _hash(said) == own:
            raise _changed(path, number, seq - 1)
        if seq != number or said.get("prev") != last or _hash(said) != own:
            raise _changed(path, number)
        if number == length and own != head:
            raise _changed(path, number)
        last = own
    if len(lines) < length:
        raise _changed(path, len(lines) + 1, length)
    return len(lines)


def end(home: Path) -> tuple[int, str]:
    """Number and hash of the last event; number 0 where there is none. Raises AccessDenied for a line that is none."""
    path = home / FILE
    return _end(path, path.read_bytes().splitlines() if path.is_file() else [])


def events(home: Path, last: int = 0) -> list[dict[str, Any]]:
    """The last so many events, oldest first, or all; a line that is none is left out.

    Whether they are what they were says `verify`.
    """
    path = home / FILE
    lines = path.read_bytes().splitlines() if path.is_file() else []  # of text U+2028 would end a line too
    found = []
    for line in lines[-last:]:
        with suppress(ValueError):
            found.append(json.loads(line))
    return [one for one in found if isinstance(one, dict)]


def _end(path: Path, lines: list[bytes]) -> tuple[int, str]:
    """Number and hash of the event that the next one follows. Raises AccessDenied for a last line that is none.

    The head's, where no line is that event: those at the end are gone, and what goes on from it shows that. Lines after
    it are of writers that were killed before they noted theirs.
    """
    last = str(_parsed(path, len(lines), lines[-1])["hash"]) if lines else FIRST
    length, head = _head(path.parent) or (0, "")
    if not head:
        return len(lines), last
    noted = f'"hash": "{head}"'.encode()
    after = next((place for place, line in enumerate(reversed(lines)) if noted in line), None)
    return (length, head) if after is None else (length + after, last)


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """An event with its hash. Raises AccessDenied for a line that is none."""
    with suppress(ValueError):
        said = json.loads(line)
        if isinstance(said, dict) and "hash" in said:
            return said
    raise _changed(path, number)


def _head(home: Path) -> tuple[int, str] | None:
    """Number and hash of the last event, as noted; (0, "") where they never were, None where they cannot be read."""
    path = home / HEAD
    if not path.is_file():
        return 0, ""
    with suppress(ValueError, TypeError, KeyError):
        said = json.loads(path.read_text(encoding="utf-8"))
        return int(said["seq"]), str(said["hash"])
    return None


def _changed(path: Path, first: int, last: int | None = None) -> AccessDenied:
    """The log is not what it was from event `first` on; where `last` is given, these are missing."""
    missing = f"event {first} is missing" if first == last else f"events {first} to {last} are missing"
    what = "the audit was changed" if last is None else f"the audit was changed, {missing}"
    return AccessDenied(what, f"{path}:{first}", "compare it with a copy")


def _hash(said: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
