"""A small process between a task and what it runs: the leader of a session of their own, at the far end of a leash.

The leash is a pipe whose write end only the task holds. When the task dies, however it dies, the pipe ends, and the
leader ends its whole group, itself last: it waits for its own SIGKILL, since what ends on SIGTERM may leave helpers
that do not.

A stage is ended with all that it started, a process in a session of its own too: where such a one's parent is gone, the
leader is its parent (PR_SET_CHILD_SUBREAPER), finds it below itself, and waits for it as init would.

    task → leader → DVC (child.py) → recorder.py → the command's shell → …

`end` may run in the task and in the leader at once; the leader's number is its own until the task waits for it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

GRACE_S = 4.0  # between SIGTERM and SIGKILL; Airflow gives a task five seconds
_LOOK_S = 0.05
_LOOKS = 20  # for what forks while it is looked for
_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
# isolated, so that nothing of the clone or of the command's own path is imported; and nothing else is needed
_START = "import sys; sys.path.insert(0, sys.argv[1]); from dvc_engine.stage import leash; sys.exit(leash.main())"


def start(
    leash: int, whole: bool, command: Sequence[str], stdin: int = subprocess.DEVNULL, **around: Any
) -> subprocess.Popen[bytes]:
    """Start a command on a leash, the read end of a pipe: the leader of its session, which ends as the command does.

    It has not the task's standard input: that is the socket by which Airflow is asked for every connection and
    variable.

    Args:
        whole: whether nothing that the command started outlives it; else what it leaves running is meant to run.
        around: cwd, env, stdout and stderr, as of Popen.
    """
    how, plugins = "whole" if whole else "group", str(Path(__file__).resolve().parents[2])
    words = [sys.executable, "-I", "-S", "-c", _START, plugins, str(leash), how, *command]
    return subprocess.Popen(words, stdin=stdin, start_new_session=True, pass_fds=[leash], **around)


@contextmanager
def held(leash: int, whole: bool) -> Iterator[list[int]]:
    """Hang on a leash (its file descriptor) while the block runs, as the leader of a session.

    As a `whole`, nothing that the block started outlives it.

    Yields:
        The SIGTERMs that came so far: they are for the rest of the group.
    """
    told = list[int]()  # no lock: a handler may interrupt itself
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    if whole:
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    hanging = threading.Thread(target=_hang_on, args=(leash, whole), daemon=True)
    hanging.start()
    try:
        yield told
    finally:
        ended = select.poll()
        ended.register(leash)
        if ended.poll(0):
            hanging.join()  # does not return: the SIGKILL is for this process too
        if whole and not _childless():
            _wait_out(os.getpid(), whole, GRACE_S if told else 0)


def main() -> int:
    """Run a command on a leash, as `start` says. Returns its exit code, 127 for no program; or ends by its signal."""
    leash, whole, command = int(sys.argv[2]), sys.argv[3] == "whole", sys.argv[4:]
    with held(leash, whole) as told:
        try:
            child = subprocess.Popen(command)
        except OSError as error:
            sys.stderr.write(f"{command[0]}: {error.strerror}\n")
            return 127
        if told:  # it may have come before the command was there
            child.terminate()
        child.returncode = code = _reaped(child.pid)
    if code < 0:  # so that a signal that ended DVC is told from an exit code
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def end(leader: int, whole: bool) -> None:
    """SIGTERM, at most four seconds, SIGKILL: for a leader's group and, as a `whole`, for all below it; itself last."""
    with suppress(ProcessLookupError):
        tell([pid for pid, group in _left(leader, whole).items() if group != leader], signal.SIGTERM)
        os.killpg(leader, signal.SIGTERM)
        _wait_out(leader, whole, GRACE_S)
        os.killpg(leader, signal.SIGKILL)


def _reaped(child: int) -> int:
    """The exit code of a child, once it ended; others that end meanwhile are of what the leader adopted."""
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def _hang_on(leash: int, whole: bool) -> None:
    while os.read(leash, 1):
        pass
    end(os.getpgrp(), whole)


def _wait_out(leader: int, whole: bool, grace_s: float) -> None:
    """Wait for all that a leader leads, and for itself where another process asks; then end all but the leader."""
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and _left(leader, whole).keys() - {os.getpid()}:
        time.sleep(_LOOK_S)
    for _ in range(_LOOKS):
        if not (left := [pid for pid in _left(leader, whole) if pid != leader]):
            return
        tell(left, signal.SIGKILL)
        time.sleep(_LOOK_S / 10)


def _childless() -> bool:
    """Whether nothing runs below this process: the parent of what lost its own, it would have a child."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return False
    return True


def _left(leader: int, whole: bool) -> dict[int, int]:
    """Process → group, of all that still run in a leader's group and, as a `whole`, below it; zombies do not."""
    found, below = dict[int, int](), dict[int, list[int]]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if state != "Z":
                found[int(stat.parent.name)] = int(group)
                below.setdefault(int(parent), []).append(int(stat.parent.name))
    family = [leader]
    for one in family:
        family += below.get(one, []) if whole else []
    known = set(family)
    return {pid: group for pid, group in found.items() if group == leader or pid in known}


def tell(pids: list[int], number: int) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):  # PermissionError: it is another user's by now
            os.kill(pid, number)
