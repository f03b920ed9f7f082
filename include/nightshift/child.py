"""What runs in the process of an engine: a leash, and a server behind the guard.

    python -m nightshift.child transformers serve MODEL …    transformers' command line, its application guarded
    python -m nightshift.child run vllm serve …              another program, which guards itself (guard.py)

The leash ends the whole process group as soon as standard input closes. Its other end is a pipe that only the parent
holds, so that an engine ends with its parent however that ended, SIGKILL included.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from nightshift.guard import SECRET, Guard


def leash() -> None:
    """End this process's group once its standard input is closed."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def transformers(words: Sequence[str]) -> None:
    """Run transformers' command line in this process, with a guard around the application that it builds."""
    from transformers.cli import transformers as command
    from transformers.cli.serving import server

    secret, build = os.environ.pop(SECRET), server.build_server

    def guarded(*given: Any, **named: Any) -> Guard:
        return Guard(build(*given, **named), secret)

    server.build_server = guarded
    sys.argv = ["transformers", *words]
    command.main()


def run(words: Sequence[str]) -> int:
    """Run another program in this group; returns its exit code."""
    return subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode


def main(words: Sequence[str]) -> int:
    """Run what the words say; returns the exit code."""
    leash()
    if words[0] == "run":
        return run(words[1:])
    transformers(words[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
