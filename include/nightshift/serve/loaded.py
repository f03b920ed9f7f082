"""Which releases are up: brought up beside what serves, tried again where that helps, ended without a cut answer.

A release is fetched from DVC's cache or remote, checked against its manifest, its digest and its signature, started,
and asked once; only then is it up. One that is bad is not tried again; what may pass (a full disk, a store that is
away, an engine that a busy machine did not start in time, one that dies again soon after) is, after pauses that grow to
a minute. Each kind of trouble is said once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from nightshift.backoff import pause
from nightshift.errors import ReleaseInvalid, known
from nightshift.registry import Release
from nightshift.serve.served import Served

LOOK_EVERY_S = 2.0
LONGEST_PAUSE_S = 60.0  # between two tries of one release
AT_ONCE_S = 0.05  # what is up this fast is up in the same look
LONG_LIFE_S = 300.0  # who lived so long and dies is brought up again at once: what was before is forgotten
log = logging.getLogger("nightshift.serve")


@dataclass
class Trouble:
    """What keeps a release from being up, and may pass.

    Args:
        times: how often in a row it was tried in vain, or died soon.
        again: when it may be tried again, in seconds of the clock.
        since: when it came up; None while it is not.
        said: kinds of errors that were told.
    """

    times: int = 0
    again: float = 0.0
    since: float | None = None
    said: set[str] = field(default_factory=set)
    last: str = ""

    def failed(self, now: float) -> None:
        """It was tried in vain, or died soon."""
        self.times += 1
        self.again = now + pause(self.times, 2 * LOOK_EVERY_S, LONGEST_PAUSE_S)

    def came(self, now: float) -> None:
        """It is up; how often it was not is remembered until it lived long."""
        self.since, self.last = now, ""
        self.said.clear()

    def died(self, now: float) -> None:
        """It is not up any more, after a short life or a long one; what is said again counts once."""
        if self.since is None:
            return
        lived, self.since = now - self.since, None
        if lived < LONG_LIFE_S:
            self.failed(now)
        else:
            self.times = 0


@dataclass
class Loaded:
    """The releases that are up, or on their way.

    Args:
        bring_up: fetches, verifies, starts and asks a release; raises ReleaseInvalid for a bad one, else what may pass.
        say: is told in a sentence what goes wrong.
        clock: seconds that only grow.
        bad: digests that are not tried again, with the reason.
        restarted: is told of an engine that died and was brought up again.
        drain_s: seconds that the answers of a release which is ended have left; none takes longer.
    """

    bring_up: Callable[[Release], Served]
    say: Callable[[str], None]
    clock: Callable[[], float]
    up: dict[str, Served] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    restarted: Callable[[], None] = lambda: None
    drain_s: float = 120.0
    _coming: dict[str, asyncio.Task[Served]] = field(default_factory=dict)
    _trouble: dict[str, Trouble] = field(default_factory=dict)
    _ending: set[asyncio.Task[None]] = field(default_factory=set)

    async def want(self, release: Release) -> Served | None:
        """This release, if it is up; else it is on its way, unless it is bad or must wait."""
        digest = release.digest
        if (found := self.up.get(digest)) and found.alive:
            return found
        if digest in self.bad:
            return None
        trouble = self._trouble.setdefault(digest, Trouble())
        if found:
            trouble.died(self.clock())
        if digest not in self._coming and self.clock() >= trouble.again:
            self._coming[digest] = asyncio.create_task(asyncio.to_thread(self.bring_up, release))
        if digest in self._coming:
            await asyncio.wait({self._coming[digest]}, timeout=AT_ONCE_S)
        return self._came(release)

    def trouble(self, digest: str) -> str:
        """Why a release is not up, in words; "" where nothing is known."""
        found = self._trouble.get(digest)
        return self.bad.get(digest) or (found.last if found else "")

    def keep(self, wanted: Collection[str]) -> None:
        """End what is up, or on its way, and not among these, once its answers are out."""
        for digest in [one for one in self.up if one not in wanted]:
            self._end(self.up.pop(digest))
        for digest in [one for one in self._coming if one not in wanted]:
            self._coming.pop(digest).add_done_callback(self._unwanted)
        for digest in [one for one in self._trouble if one not in wanted]:
            del self._trouble[digest]

    def close(self) -> None:
        """Stop everything."""
        for one in self.up.values():
            one.stop()

    def _came(self, release: Release) -> Served | None:
        """What its task made, once it is done."""
        task = self._coming.get(release.digest)
        if task is None or not task.done():
            return None
        del self._coming[release.digest]
        try:
            made = task.result()
        except Exception as error:  # a bug too must not end what follows the registry
            self._met(error, release)
            return None
        if (before := self.up.get(release.digest)) is not None:
            self.restarted()
            self.say(f"{release.version}: its engine ended, and another one answers in its place")
            self._end(before)
        self.up[release.digest] = made
        self._trouble[release.digest].came(self.clock())
        return made

    def _met(self, error: Exception, release: Release) -> None:
        """Remember a bad release for good, and of what may pass when to try again; say each kind of it once."""
        found = known(error)
        trouble = self._trouble.setdefault(release.digest, Trouble())
        trouble.last = str(found or f"{type(error).__name__}: {error}")
        if isinstance(found, ReleaseInvalid):
            self.bad[release.digest] = trouble.last
        trouble.failed(self.clock())
        kind = type(found or error).__name__
        if kind not in trouble.said:
            trouble.said.add(kind)
            self.say(f"{release.version} is not served: {trouble.last}")
            if found is None:
                log.error("a bug: %s", type(error).__name__, exc_info=error)

    def _end(self, old: Served) -> None:
        task = asyncio.create_task(_ended(old, self.drain_s))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _unwanted(self, task: asyncio.Task[Served]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._end(task.result())


async def _ended(old: Served, within_s: float) -> None:
    """Stop a release once its answers are out, or after so long."""
    waited = 0.0
    while old.busy and waited < within_s:
        await asyncio.sleep(0.1)
        waited += 0.1
    await asyncio.to_thread(old.stop)
