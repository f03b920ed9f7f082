"""A process left running in the background: remembered in a file, and nobody else's taken for it.

The file outlives the process, and a reboot, and its pid may be another's by then. So it holds when the process began,
too: only while the process of that pid began then is it believed to run, or sent a signal.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nightshift import commit
from nightshift.errors import AccessDenied

LONG_LOG = 64 << 20  # bytes
STARTTIME = 22  # field of /proc/PID/stat, counted from 1 (man 5 proc)


def log_file(path: Path) -> IO[bytes]:
    """A log to append to; one that has grown long stands beside it as `.1` from now on, and the one before is gone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size > LONG_LOG:
        path.replace(path.with_name(f"{path.name}.1"))
    return path.open("ab")


def began(pid: int) -> int | None:
    """When a process began, in clock ticks after the machine did; None where none of this pid runs (zombies do not)."""
    try:
        said = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = said.rpartition(b")")[2].split()  # from the third on: the second, a name, may hold anything
    return None if fields[0] in (b"Z", b"X") else int(fields[STARTTIME - 3])


@dataclass(frozen=True)
class Process:
    """The process that `file` remembers; it leads a group of its own."""

    file: Path

    def keep(self, pid: int, port: int) -> None:
        """Remember a process that was just started, and where it listens."""
        self._write({"pid": pid, "began": began(pid), "port": port})

    def note(self, **more: Any) -> None:
        """Remember more of it."""
        self._write(self.kept | more)

    @property
    def kept(self) -> dict[str, Any]:
        """What the file says; empty where there is none that can be read."""
        with suppress(OSError, ValueError, TypeError):
            return dict(json.loads(self.file.read_text(encoding="utf-8")))
        return {}

    @property
    def pid(self) -> int | None:
        """Its pid; None when it does not run, or the number is another's by now."""
        kept = self.kept
        pid, at = kept.get("pid"), kept.get("began")
        return pid if isinstance(pid, int) and at is not None and began(pid) == at else None

    def stop(self, within_s: float) -> None:
        """End its group, after `within_s` seconds by force, and forget it. Raises AccessDenied for another user's."""
        if (pid := self.pid) is not None:
            try:
                _end(pid, within_s)
            except PermissionError:
                raise AccessDenied(f"process {pid} is another user's", str(self.file), "stop it as that user") from None
        self.file.unlink(missing_ok=True)

    def _write(self, kept: dict[str, Any]) -> None:
        commit.file(self.file, json.dumps(kept), 0o600)


def _end(group: int, within_s: float) -> None:
    """SIGTERM to a group whose leader runs, SIGKILL to what is left of it once the leader ended, or did not in time."""
    leader, deadline = began(group), time.monotonic() + within_s
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while began(group) == leader and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)
