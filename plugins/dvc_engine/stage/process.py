"""The process of one attempt: in a session of its own, on a leash, with what its recorder kept.

The leash is a pipe whose write end only this process holds: when it dies, however it dies, the leader of that session
ends all that the attempt started (leash.py). DVC itself says only that something failed, so exit code, signal and last
words come from the shell that it starts commands with (recorder.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc_engine.pipeline import wire
from dvc_engine.stage import leash
from dvc_engine.stage.outcome import plain

ATTENDED_S = 2.0
LOOKS, LOOK_S = 20, 0.01  # for what forks while it is looked for
# a -c command, so that this folder is not on the path; nor, by -P, is the clone, whose `select.py` is not Python's
_START = "import sys; from dvc_engine.stage.child import leave, main; leave(main(sys.argv[1]))"


class Leashed:
    """A process that leads a session of its own, on a leash; `killed` once it was to be ended.

    Args:
        whole: whether it is ended with all that it started, whatever that did since; else what left its group lives on.
    """

    def __init__(self, whole: bool) -> None:
        self.killed, self.whole = False, whole
        self._leader: subprocess.Popen[bytes] | None = None
        self._leash = -1

    def begin(self, spawn: Callable[[int], subprocess.Popen[bytes]]) -> None:
        """Start it: `spawn` is given the read end of its leash. Raises OSError."""
        reads, self._leash = os.pipe()
        try:
            self._leader = spawn(reads)
        except BaseException:
            os.close(self._leash)
            raise
        finally:
            os.close(reads)
        if self.killed:  # between the last look and here
            self.kill()

    def wait(self) -> int:
        """Its exit code once it ended, and, of a `whole` one, nothing is left; below 0 for a signal."""
        assert self._leader is not None
        with suppress(ChildProcessError, ProcessLookupError):
            os.waitid(os.P_PID, self._leader.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet: its group is still its own
            if self.whole or self.killed:
                os.killpg(self._leader.pid, signal.SIGKILL)  # what a killed recorder, or a stage, left running
        code, self._leader = self._leader.wait(), None  # what has its number from here on is another's
        os.close(self._leash)
        return code

    def kill(self) -> None:
        """End it and all that it started: SIGTERM, at most four seconds, SIGKILL; for a signal handler."""
        self.killed = True
        if self._leader is not None:
            leash.end(self._leader.pid, self.whole)


class Process(Leashed):
    """The child that reproduces one stage.

    Args:
        folder: of the job: its clone, and what the child, the recorder and the stage leave.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(whole=True)
        self.folder = folder

    def start(self) -> None:
        """Start it: it imports DVC, which takes as long as to make its clone, and waits to be told."""
        here = Path(__file__).resolve().parent
        around = {
            "SHELL": str(here / "recorder.py"),
            "DVC_AIRFLOW_RECORD": str(self.folder / "record.jsonl"),
            "PYTHONPATH": str(here.parents[1]),
            "DVC_SITE_CACHE_DIR": str(self.folder / "site"),  # goes before the clone's configuration
            "DVC_NO_ANALYTICS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.begin(lambda reads: spawn(self.folder, reads, scrubbed() | around))

    def tell(self, job: Mapping[str, Any]) -> None:
        """Say what it is to do, by a pipe: a stage's secrets are among it."""
        (self.folder / "record.jsonl").touch(mode=0o600)  # a stage's last words are for its owner alone
        assert self._leader is not None
        assert self._leader.stdin is not None
        with suppress(BrokenPipeError), self._leader.stdin as told:  # it may have ended
            told.write(f"{json.dumps(job)}\n".encode())

    def wait(self) -> int:
        """As any's; where the leader itself was killed, which would have, ends what had left its session."""
        code = super().wait()
        for _ in range(LOOKS if code == -signal.SIGKILL else 0):
            if not (left := self._left()):
                break
            leash.tell(left, signal.SIGKILL)
            time.sleep(LOOK_S)
        return code

    def _left(self) -> list[int]:
        """Every process that was started with this job's variables, and still runs."""
        mark, found = f"DVC_AIRFLOW_RECORD={self.folder / 'record.jsonl'}".encode(), []
        for place in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # it has ended, or is another user's; of a zombie nothing stands there
                if mark in place.read_bytes().split(b"\0"):
                    found.append(int(place.parent.name))
        return found

    def dismiss(self) -> None:
        """End it before it has begun; of one that has ended, or was never started, nothing."""
        if self._leader is not None and self._leader.stdin is not None:
            self._leader.stdin.close()
            leash.end(self._leader.pid, self.whole)
            self.wait()

    def records(self) -> list[dict[str, Any]]:
        """What the recorder wrote, one of each command that ended; nothing where it was cut off while it wrote."""
        with suppress(OSError, ValueError):
            text = (self.folder / "record.jsonl").read_text(encoding="utf-8")
            return [json.loads(line) for line in text.splitlines()]
        return []

    def said(self, name: str) -> dict[str, Any]:
        """A JSON object that the child (result.json) or the stage (outcome.json) left; empty for none."""
        with suppress(OSError, ValueError):
            found = wire.measured((self.folder / name).read_text(encoding="utf-8"))
            return plain(found) if isinstance(found, dict) else {}
        return {}


@contextmanager
def attended(end: Callable[[], None], parent: int | None = None, every_s: float = ATTENDED_S) -> Iterator[None]:
    """Call `end` where the process that started this one dies while the block runs: nobody hears of the result then.

    Who knows its number from before, when it was there, names that `parent`: it may have died since.

    Airflow's worker is that process. When it is killed its task runs on, and a stage for as long as it likes, beside
    the attempt that Airflow makes instead.
    """
    started, done = parent or os.getppid(), threading.Event()

    def look() -> None:
        while not done.wait(every_s):
            if os.getppid() != started:
                end()
                return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def spawn(folder: Path, reads: int, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start child.py for the job of a folder, on a leash with this read end, to be told by its standard input."""
    command = [sys.executable, "-P", "-c", _START, str(folder)]
    return leash.start(reads, True, command, subprocess.PIPE, cwd="/", env=env)


def scrubbed() -> dict[str, str]:
    """The environment without Airflow's settings and secrets, and with this interpreter's commands first."""
    kept = {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW_")}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
