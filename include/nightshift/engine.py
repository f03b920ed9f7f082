"""Start a system's model as a server of its own, ask it, and stop it.

The engine is `transformers serve`, a child process on loopback that answers one request after another. It dies with
its parent: a pipe whose other end only the parent holds closes, and the child's shell ends the group. Its model name is
the path that it was given, so that a name of ours has to hide it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from nightshift.errors import StorageError
from nightshift.port import unused
from nightshift.stage import WAITING

READY_WITHIN_S = 180.0
ANSWER_WITHIN_S = 120.0
STOPPED_WITHIN_S = 5.0
# runs the server, and ends with its parent however that ended: stdin is a pipe that only the parent holds
_LEASHED = "import os,sys,threading,signal\n" + (
    "def leash():\n    sys.stdin.read()\n    os.killpg(os.getpgrp(), signal.SIGKILL)\n"
    "threading.Thread(target=leash, daemon=True).start()\n"
    "sys.argv = sys.argv[1:]\n"
    "from transformers.cli.transformers import main\nmain()\n"
)


@dataclass
class Engine:
    """A running server. Use it as a context manager, or call `stop`."""

    child: subprocess.Popen[bytes]
    url: str
    model: str
    scratch: Path
    headers: dict[str, str] = field(default_factory=dict)
    slots: int = 1
    accepts: frozenset[str] = frozenset({"temperature", "top_p", "seed"})

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.child.poll() is None

    def body(self, messages: Sequence[dict[str, str]], max_new_tokens: int, **more: Any) -> dict[str, Any]:
        """The request for a greedy answer, unless `more` says otherwise."""
        asked = {"model": self.model, "messages": list(messages), "max_tokens": max_new_tokens, "temperature": 0}
        return asked | more

    def chat(self, messages: Sequence[dict[str, str]], max_new_tokens: int) -> str:
        """The greedy answer. Raises StorageError when the engine does not give one."""
        try:
            asked = self.body(messages, max_new_tokens)
            said = httpx.post(f"{self.url}/v1/chat/completions", json=asked, timeout=ANSWER_WITHIN_S)
            said.raise_for_status()
            return str(said.json()["choices"][0]["message"]["content"])
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise StorageError(f"the engine gave no answer ({error})", self.url, "look at its log") from None

    def stop(self) -> None:
        """End the process and remove its scratch folder."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(STOPPED_WITHIN_S)
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def start(system: Path, threads: int, device: str = "cpu", log: Path | None = None) -> Engine:
    """Serve the model of a system folder, and wait until it answered once. Raises StorageError when it does not."""
    settings = json.loads((system / "system.json").read_text(encoding="utf-8"))
    scratch = Path(tempfile.mkdtemp(prefix="nightshift-engine-"))
    model = _model(system, scratch)
    port = unused()
    words = ["serve", str(model), "--host", "127.0.0.1", "--port", str(port), "--device", device]
    words += ["--dtype", settings["dtype"], "--default-seed", "0"]
    out = log.open("ab") if log else (scratch / "engine.log").open("wb")
    around = os.environ | WAITING | {"OMP_NUM_THREADS": str(threads)} | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", _LEASHED, "transformers", *words],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=out,
        env=around,
        start_new_session=True,
    )
    engine = Engine(child, f"http://127.0.0.1:{port}", str(model), scratch)
    try:
        _until_ready(engine)
    except BaseException:
        engine.stop()
        raise
    return engine


def deltas(line: str) -> Iterator[dict[str, Any]]:
    """The chunk that one line of a server-sent stream holds, if any."""
    if line.startswith("data: ") and line != "data: [DONE]":
        yield json.loads(line.removeprefix("data: "))


def _model(system: Path, scratch: Path) -> Path:
    """What the engine loads: the base as it is, or one folder with the base's files and the adapter's."""
    base, adapter = (system / "base").resolve(), system / "adapter"
    if not adapter.is_dir():
        return base
    folder = scratch / "model"
    folder.mkdir()
    for file in [*base.iterdir(), *adapter.resolve().iterdir()]:
        if file.is_file() and file.name != "manifest.json":
            (folder / file.name).symlink_to(file)
    return folder


def _until_ready(engine: Engine) -> None:
    """Wait for one real answer: a server that listens may still not have its model."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and engine.alive:
        with suppress(httpx.TransportError):
            if httpx.get(f"{engine.url}/health", timeout=5).is_success:
                engine.chat([{"role": "user", "content": "Hello"}], 1)
                return
        time.sleep(0.2)
    log = engine.scratch / "engine.log"
    tail = log.read_text(errors="replace")[-400:] if log.is_file() else "see its log"
    # a busy machine, no memory, a port that was taken meanwhile: a signed release is rarely what is wrong
    do = "give it memory and time; if it never starts, assign another release"
    raise StorageError(f"its engine did not start: {tail}", engine.model, do)
