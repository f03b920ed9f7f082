"""Bring the release in production up, and keep up with the registry.

A new assignment is fetched from DVC's cache or remote, checked against its manifest, its digest and its signature,
started, asked once, and only then given traffic; the one before it ends when its last answer is out. What cannot be
brought up is said once, and what serves goes on serving.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nightshift import engine, registry, signature
from nightshift.answer import System
from nightshift.engine import Engine
from nightshift.errors import NightshiftError, known
from nightshift.registry import Release

LOOK_EVERY_S = 2.0
DRAIN_S = 30.0


@dataclass
class Served:
    """A release that answers: its system, its engine, and how many answers are under way."""

    release: Release
    system: System
    engine: Engine
    busy: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # the engine answers one request after another

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Count an answer, so that the engine is not stopped under it."""
        self.busy += 1
        try:
            async with self.lock:
                yield
        finally:
            self.busy -= 1


class Follower:
    """Serves what an environment is assigned.

    Args:
        repository: whose tags are the register.
        home: NIGHTSHIFT_HOME, with signatures and the public key.
        state: NIGHTSHIFT_STATE, where fetched releases lie.
        threads: of the engine.
        say: is told in a sentence what changed.
    """

    def __init__(self, repository: Path, home: Path, state: Path, threads: int, say: Callable[[str], None]) -> None:
        self.repository, self.home, self.state, self.threads, self.say = repository, home, state, threads, say
        self.served: Served | None = None
        self.failed: str | None = None  # digest that could not be brought up: said once, not tried again
        self._ending: set[asyncio.Task[None]] = set()

    def bring_up(self, release: Release) -> Served:
        """Fetch, verify, start and ask one release. Raises ReleaseInvalid."""
        folder = registry.fetch(self.repository, release, self.state / "releases" / release.digest)
        known = self.home / "releases" / release.digest / "model.sig"
        signature.verify(folder, known, self.home, self.repository / "keys")
        system = System.open(folder / "system")
        if system.settings["sections"]:
            system.sections("ready?")  # opens the index and its encoder before the first question does
        return Served(release, system, engine.start(folder / "system", self.threads))

    async def look(self) -> None:
        """Take over a new assignment, if there is one."""
        wanted = await asyncio.to_thread(registry.current, self.repository)
        now = self.served
        if wanted is None or wanted.digest == self.failed:
            return
        if now and now.release.digest == wanted.digest and now.engine.alive:
            return
        try:
            fresh = await asyncio.to_thread(self.bring_up, wanted)
        except (NightshiftError, OSError) as error:
            self.failed = wanted.digest
            self.say(f"{wanted.version} is not served: {known(error) or error}")
            return
        self.served, self.failed = fresh, None
        self.say(f"{wanted.version} is served ({wanted.digest[:12]})")
        if now:
            task = asyncio.create_task(self._end(now))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def follow(self) -> None:
        """Look every two seconds, for ever."""
        while True:
            try:
                await self.look()
            except (NightshiftError, OSError) as error:
                self.say(str(known(error) or error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def _end(self, old: Served) -> None:
        """Stop an engine once its answers are out, or after half a minute."""
        waited = 0.0
        while old.busy and waited < DRAIN_S:
            await asyncio.sleep(0.1)
            waited += 0.1
        await asyncio.to_thread(old.engine.stop)

    def close(self) -> None:
        """Stop what serves."""
        if self.served:
            self.served.engine.stop()


def to_stderr(text: str) -> None:
    """Tell the log."""
    print(f"serve: {text}", file=sys.stderr, flush=True)
