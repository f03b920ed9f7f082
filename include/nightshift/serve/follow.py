"""Bring the release in production up, and keep up with the registry.

A new assignment is fetched from DVC's cache or remote, checked against its manifest, its digest and its signature,
started, asked once, and only then given traffic; the one before it ends when its last answer is out. What cannot be
brought up is said once, and what serves goes on serving. A release that is bad is not tried again; what may pass (a
full disk, a store that is away, an engine that a busy machine did not start in time) is, at most a minute later.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nightshift import commit, engine, registry, signature
from nightshift.answer import System
from nightshift.engine import Engine
from nightshift.errors import ReleaseInvalid, known
from nightshift.registry import Release
from nightshift.serve.turns import Turns

LOOK_EVERY_S = 2.0
LONGEST_PAUSE_S = 60.0  # between two tries of one release
DRAIN_S = 30.0
Phase = Literal["serving", "loading", "refused", "none"]


@dataclass
class Served:
    """A release that answers: its system, its engine, and whose turn it is.

    Args:
        side: what it is in a rollout.
        prompt: sha256 of its prompt.
        corpus: digest of the documents in its index; None where its facts do not say.
    """

    release: Release
    system: System
    engine: Engine
    turns: Turns
    side: Literal["stable", "canary", "shadow"] = "stable"
    prompt: str = ""
    corpus: str | None = None
    busy: int = 0

    @asynccontextmanager
    async def turn(self, key: str, cost: float) -> AsyncIterator[None]:
        """A turn at its engine, which is not stopped meanwhile. Raises Refused."""
        self.busy += 1
        try:
            async with self.turns.turn(key, cost):
                yield
        finally:
            self.busy -= 1


@dataclass
class Trouble:
    """What keeps a release (None: the registry) from being looked at or served, and may pass.

    Args:
        digest: of the release.
        times: how often it was tried in vain.
        again: when it may be tried again, in seconds of the follower's clock.
        said: kinds of errors that were told.
    """

    digest: str | None = None
    times: int = 0
    again: float = 0.0
    said: set[str] = field(default_factory=set)


class Follower:
    """Serves what an environment is assigned.

    Args:
        repository: whose tags are the register.
        home: NIGHTSHIFT_HOME, with signatures and the public key.
        state: NIGHTSHIFT_STATE, where fetched releases lie.
        threads: of the engine.
        say: is told in a sentence what changed.
        clock: seconds that only grow.
        queue: requests that wait for an engine, at most, and `wait_s` how long, seconds.
    """

    def __init__(
        self,
        repository: Path,
        home: Path,
        state: Path,
        threads: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        queue: int = 32,
        wait_s: float = 10.0,
    ) -> None:
        self.repository, self.home, self.state, self.threads = repository, home, state, threads
        self.say, self.clock = say, clock
        self.queue, self.wait_s = queue, wait_s
        self.served: Served | None = None
        self.wanted: Release | None = None  # what the registry named last
        self.looked = False  # whether it was asked yet
        self.failed: str | None = None  # digest of a release that is bad: said once, not tried again
        self._trouble = Trouble()
        self._ending: set[asyncio.Task[None]] = set()

    def bring_up(self, release: Release) -> Served:
        """Fetch, verify, start and ask one release. Raises ReleaseInvalid when it is bad, else what may pass."""
        folder = registry.fetch(self.repository, release, self.state / "releases" / release.digest)
        known = self.home / "releases" / release.digest / "model.sig"
        signature.verify(folder, known, self.home, self.repository / "keys")
        system = System.open(folder / "system")
        if system.settings["sections"]:
            system.sections("ready?")  # opens the index and its encoder before the first question does
        started = engine.start(folder / "system", self.threads)
        turns = Turns(started.slots, self.queue, self.wait_s)
        prompt = commit.sha256(folder / "system" / "prompt.yaml")
        return Served(release, system, started, turns, "stable", prompt, _corpus(folder))

    def serving(self, key: str) -> Served | None:
        """The release that answers this key; None while none does."""
        return self.served if self.served is not None and self.served.engine.alive else None

    async def look(self) -> None:
        """Take over a new assignment, if there is one and it is time; what goes wrong is said, and never raised."""
        wanted: Release | None = None
        try:
            wanted = self.wanted = await asyncio.to_thread(registry.current, self.repository)
            self.looked = True
            if wanted is None or self._settled(wanted):
                self._trouble = Trouble()
            elif wanted.digest != self._trouble.digest or self.clock() >= self._trouble.again:
                await self._take_over(wanted)
                self._trouble = Trouble()
        except Exception as error:  # a bug too must not end what follows the registry
            self._met(error, wanted)

    @property
    def phase(self) -> Phase:
        """Whether a release answers, and if not, whether one is coming."""
        if self.served is not None and self.served.engine.alive:
            return "serving"
        if self.looked and self.wanted is None:
            return "none"
        return "refused" if self.wanted and self.wanted.digest == self.failed else "loading"

    async def follow(self) -> None:
        """Look every two seconds, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def _settled(self, wanted: Release) -> bool:
        """Whether it is served, or known to be bad."""
        now = self.served
        return wanted.digest == self.failed or bool(now and now.release.digest == wanted.digest and now.engine.alive)

    async def _take_over(self, wanted: Release) -> None:
        now = self.served
        self.served = await asyncio.to_thread(self.bring_up, wanted)
        self.failed = None
        self.say(f"{wanted.version} is served ({wanted.digest[:12]})")
        if now:
            task = asyncio.create_task(self._end(now))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def _met(self, error: Exception, wanted: Release | None) -> None:
        """Remember a bad release for good, and of what may pass when to try again; say each kind of it once."""
        found = known(error)
        if wanted and isinstance(found, ReleaseInvalid):
            self.failed = wanted.digest
        trouble, digest = self._trouble, wanted.digest if wanted else None
        if trouble.digest != digest:
            trouble = self._trouble = Trouble(digest)
        trouble.times += 1
        trouble.again = self.clock() + min(LOOK_EVERY_S * 2**trouble.times, LONGEST_PAUSE_S)
        kind = type(found or error).__name__
        if kind in trouble.said:
            return
        trouble.said.add(kind)
        about = f"{wanted.version} is not served: " if wanted else ""
        self.say(about + str(found or f"{kind}: {error}"))
        if found is None:
            traceback.print_exception(error)

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


def _corpus(release: Path) -> str | None:
    """The digest of the documents that a release's index holds."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((release / "facts.json").read_text(encoding="utf-8"))
        return str(said["tables"]["unique"]["digest"])
    return None


def to_stderr(text: str) -> None:
    """Tell the log."""
    print(f"serve: {text}", file=sys.stderr, flush=True)
