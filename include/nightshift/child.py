"""What runs in the process of an engine: a leash, and a server behind the guard.

    python -m nightshift.child openvino SYSTEM CACHE MODEL PORT CONTEXT THREADS SLOTS    a server of ours
    python -m nightshift.child transformers serve MODEL …    transformers' command line, its application guarded
    python -m nightshift.child run vllm serve …              another program, which guards itself

The leash ends the whole process group as soon as standard input closes. Its other end is a pipe that only the parent
holds, so that an engine ends with its parent however that ended, SIGKILL included.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nightshift.guard import SECRET, Guard


def leash() -> None:
    """End this process's group once its standard input is closed."""

    def wait() -> None:
        while os.read(0, 1 << 16):  # by its number: a thread in sys.stdin spoils the end of an interpreter
            pass
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


def openvino(system: Path, cache: Path, model: str, port: int, context: int, threads: int, slots: int) -> None:
    """Serve a system's model with OpenVINO; its graph is made first, where it is not there yet."""
    import uvicorn

    from nightshift import graph
    from nightshift.batching import Batch
    from nightshift.completions import Completions

    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))  # before the graph is made: nobody else may have the port meanwhile
    secret, batch = os.environ.pop(SECRET), Batch(graph.kept(system, cache), threads, slots)
    served = Completions(batch, system / "base", model, context)
    config = uvicorn.Config(Guard(served.application(), secret), log_level="warning")
    uvicorn.Server(config).run(sockets=[taken])


def run(words: Sequence[str]) -> int:
    """Run another program in this group; returns its exit code."""
    return subprocess.run(words, stdin=subprocess.DEVNULL, check=False).returncode


def main(words: Sequence[str]) -> int:
    """Run what the words say; returns the exit code."""
    leash()
    kind, *rest = words
    if kind == "run":
        return run(rest)
    if kind == "openvino":
        system, cache, model, *numbers = rest
        openvino(Path(system), Path(cache), model, *map(int, numbers))
    else:
        transformers(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
