"""The far end of a leash: a pipe whose write end only the task holds.

When the task dies, however it dies, the pipe ends, and who holds this end ends its whole group, itself last: it waits
for its own SIGKILL, since what ends on SIGTERM may leave helpers that do not.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

GRACE_S = 4.0  # between SIGTERM and SIGKILL; Airflow gives a task five seconds


@contextmanager
def held(leash: int) -> Iterator[None]:
    """Hang on a leash (its file descriptor) while the block runs, as the leader of a session.

    SIGTERM is for the rest of the group: the leader reports afterwards.
    """
    signal.signal(signal.SIGTERM, lambda *_: None)
    hanging = threading.Thread(target=_hang_on, args=(leash,), daemon=True)
    hanging.start()
    try:
        yield
    finally:
        if select.select([leash], [], [], 0)[0]:
            hanging.join()  # does not return: the SIGKILL is for this process too


def main() -> int:
    """Run a command on a leash, as `_ _ LEASH WORD…` says; its exit code, 128 + n for signal n, 127 for no program."""
    leash, words = int(sys.argv[2]), sys.argv[3:]
    with held(leash):
        try:
            code = subprocess.run(words, check=False).returncode
        except OSError as error:
            sys.stderr.write(f"{words[0]}: {error.strerror}\n")
            return 127
    return code if code >= 0 else 128 - code


def _hang_on(leash: int) -> None:
    while os.read(leash, 1):
        pass
    group = os.getpgrp()
    os.killpg(group, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(group, signal.SIGKILL)
