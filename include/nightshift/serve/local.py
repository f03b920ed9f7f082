"""The endpoint as a process of this project: start it in the background, find it again, stop it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from nightshift import params
from nightshift.errors import NightBroke
from nightshift.port import asked
from nightshift.process import Process, log_file
from nightshift.serve.server import HOST, drain_s, free
from nightshift.serving import Limits, Listen
from nightshift.stage import SERVING

PORT = 8000
UP_WITHIN_S = 30.0
STOPPED_WITHIN_S = 15.0  # once its last answer is out
LOADED_WITHIN_S = 90.0
_UNSETTLED = {
    "none": "no release is in production yet: `make nightly` makes one, and the endpoint takes it up",
    "loading": "the release in production is still being loaded; .nightshift/serve.log says what it waits for",
    "refused": "the release in production did not pass its check; .nightshift/serve.log says why",
}


@dataclass(frozen=True)
class Endpoint:
    """The endpoint of the project whose state folder this is."""

    root: Path
    state: Path
    environ: Mapping[str, str]

    @property
    def process(self) -> Process:
        """Its process; stages look into the same file (stage.py)."""
        return Process(self.state / SERVING)

    @property
    def port(self) -> int:
        """Where it listens, or would; its admin listens on the next. Raises ParamsError."""
        return int(self.process.kept.get("port") or asked("NIGHTSHIFT_PORT", PORT, self.environ))

    @property
    def url(self) -> str:
        """What clients on this machine are given as base URL. Raises ParamsError."""
        listen = params.load(self.root / params.FILE, Listen)
        host = {"0.0.0.0": HOST, "::": "::1"}.get(listen.host, listen.host)  # every address is none to ask
        scheme = "https" if listen.tls else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}/v1"

    @property
    def admin(self) -> str:
        """Its admin listener."""
        return f"http://{HOST}:{self.port + 1}"

    def up(self) -> bool:
        """Whether its process runs and answers: its admin, which is on loopback however the other listens."""
        if self.process.pid is None:
            return False
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.admin}/healthz", timeout=5).is_success
        return False

    def free(self, port: int) -> None:
        """Raises PortInUse when it would have to be started and cannot listen there."""
        if not self.up():
            for one in (port, port + 1):
                free(one)

    def start(self, port: int) -> None:
        """Start it and wait until it answers. Raises PortInUse, ParamsError, NightBroke."""
        if self.up():
            return
        for one in (port, port + 1):
            free(one)
        drain = drain_s(params.load(self.root / params.FILE, Limits))
        log = log_file(self.state / "serve.log")
        started = subprocess.Popen(
            [sys.executable, "-m", "nightshift.cli", "serve", "--port", str(port)],
            cwd=self.root,
            env=dict(self.environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.process.keep(started.pid, port)
        self.process.note(drain_s=drain)
        deadline = time.monotonic() + UP_WITHIN_S
        while not self.up():
            if started.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise NightBroke("the endpoint did not start", str(self.state / "serve.log"), "read the log there")
            time.sleep(0.1)

    def settled(self, key: str) -> str | None:
        """Wait until a release answers; returns why none does, in a sentence, or None. `key` may read deployments."""
        deadline = time.monotonic() + LOADED_WITHIN_S
        while True:
            state = self._deployed(key).get("state", "loading")
            if state == "loading" and time.monotonic() < deadline:
                time.sleep(1.0)  # a key may ask once a second
                continue
            return _UNSETTLED.get(state)

    def serves(self, version: str, key: str) -> bool:
        """Wait until this release answers; whether it does in time."""
        deadline = time.monotonic() + LOADED_WITHIN_S
        while time.monotonic() < deadline:
            if ((self._deployed(key).get("served") or {}).get("version")) == version:
                return True
            time.sleep(0.5)
        return False

    def _deployed(self, key: str) -> dict[str, Any]:
        """What the admin listener says of deployments; {} where it says nothing."""
        with suppress(httpx.HTTPError, ValueError):
            head = {"authorization": f"Bearer {key}"}
            said = httpx.get(f"{self.admin}/admin/v1/deployments", headers=head, timeout=5)
            return dict(said.json()) if said.is_success else {}
        return {}

    def stop(self) -> None:
        """Stop it, with its engine, once its answers are out; does nothing when it does not run."""
        self.process.stop(float(self.process.kept.get("drain_s", 0)) + STOPPED_WITHIN_S)
