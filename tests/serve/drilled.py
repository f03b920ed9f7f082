"""An endpoint whose releases are as bad as their version says: for drills.

    python -m tests.serve.drilled PORT FOLDER

The registry is a real repository, the gateway the real one with its own follower and rollout; only engines are mocked,
each a process of its own. A release of the version v0.N.0 has the engine of ENGINES[N]. Its golden questions are what a
good engine says.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift import port, registry
from nightshift.answer import System
from nightshift.engine import Engine
from nightshift.errors import StorageError
from nightshift.golden import FILE, Golden
from nightshift.registry import CANARY, Release
from nightshift.serve import server
from nightshift.serve.follow import Follower
from nightshift.serve.keys import Keys
from nightshift.serve.served import Served, opened
from tests import models
from tests.conftest import ROOT
from tests.serve import paced
from tests.serve.mocked import WIDE, until_up
from tests.serve.scripted import ACCEPTS, ROWS, TRACER, _changed

SLOTS, TOKENS, TOKEN_S = 4, 10, 0.02
# version → what its engine does: words for `tests.serve.paced`
ENGINES = {
    "v0.1.0": "good",
    "v0.2.0": "errors",
    "v0.3.0": "slow",
    "v0.4.0": "garbage",
    "v0.5.0": "never",
    "v0.6.0": "dies",
    "v0.7.0": "good",
}


@dataclass
class Drilled:
    """A running endpoint.

    Args:
        url: its public address, without /v1.
        keys: of as many users.
        admin_key: of its operator.
    """

    folder: Path
    url: str
    admin: str
    keys: list[str]
    admin_key: str

    @property
    def home(self) -> Path:
        """Its NIGHTSHIFT_HOME."""
        return self.folder / "home"

    def release(self, version: str) -> Release:
        """A release by version."""
        return next(one for one in registry.releases(self.folder) if one.version == version)

    def propose(self, version: str) -> None:
        """Assign a candidate."""
        registry.assign(self.folder, self.release(version), CANARY)


def gateway(at: int, folder: Path) -> None:
    """Run the endpoint."""
    settings = _changed(server.Settings.read(ROOT), {"key": WIDE, "connections_an_address": 250, "abstain_below": None})
    rules = settings.rollouts.model_copy(update={"ready_s": 15.0})
    follower = Follower(folder, folder / "home", folder / "state", 1, server.to_log, rules=rules)

    def bring_up(release: Release) -> Served:
        kind, beside = ENGINES[release.version], port.unused()
        if kind == "never":
            raise StorageError("its engine did not start", "engine", "give it time")
        factor = 3 if kind == "slow" else 1
        words = [beside, SLOTS, TOKENS, TOKEN_S * factor, kind if kind != "slow" else "good"]
        env = os.environ | {"PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"}
        program = [sys.executable, "-m", "tests.serve.paced", *map(str, words)]
        child = subprocess.Popen(program, env=env, cwd=ROOT, start_new_session=True)
        until_up(f"http://127.0.0.1:{beside}/")
        made = Engine(child, f"http://127.0.0.1:{beside}", "m", folder / "scratch" / release.version, {}, SLOTS)  # type: ignore[arg-type]
        made.accepts = ACCEPTS
        system = System.open(folder / "releases" / "system")
        return opened(release, folder / "releases", [made], 64, 10.0, system)

    follower.bring_up = bring_up  # type: ignore[method-assign]
    service = server.Service.of(follower, folder / "home", ROOT, settings, TRACER)
    try:
        with asyncio.Runner(loop_factory=server.loop) as runner:
            runner.run(server.run(service, follower, at, settings))
    finally:
        follower.close()


def made(folder: Path) -> None:
    """A repository with a release for every engine, the first in production, and what they all hold."""
    models.system(folder / "releases" / "system", ROOT, ROWS)
    said = paced.said(TOKENS)
    known = [Golden(f"g{number}", f"Question {number}?", "s", said, said, False).as_json() for number in range(20)]
    (folder / "releases" / FILE).write_text(json.dumps(known))
    _git(folder, "init", "-q")
    for number, version in enumerate(ENGINES):
        _git(folder, "commit", "-q", "--allow-empty", "-m", version)
        _git(folder, "tag", "-a", f"nightshift@{version}", "-m", registry.message(f"{number + 1:x}" * 64))
    registry.assign(folder, registry.releases(folder)[0])


@contextmanager
def running(folder: Path, users: int = 200) -> Iterator[Drilled]:
    """The endpoint in a process of its own, with its first release up."""
    made(folder)
    store = Keys(folder / "home")
    keys = [store.create(f"user{n}", ("infer:chat",), ("public",), 1, time.time()) for n in range(users)]
    operator = store.create("operator", ("models:read", "deploy:rollback"), ("public",), 1, time.time())
    at = port.unused(2)
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"}
    words = [sys.executable, "-m", "tests.serve.drilled", str(at), str(folder)]
    child = subprocess.Popen(words, cwd=ROOT, env=env)
    try:
        until_up(f"http://127.0.0.1:{at}/readyz", 200)
        yield Drilled(folder, f"http://127.0.0.1:{at}", f"http://127.0.0.1:{at + 1}", keys, operator)
    finally:
        child.terminate()
        child.wait(60)


def _git(folder: Path, *words: str) -> None:
    asked: list[Any] = ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@t", *words]
    subprocess.run(asked, check=True, capture_output=True)


if __name__ == "__main__":
    gateway(int(sys.argv[1]), Path(sys.argv[2]))
