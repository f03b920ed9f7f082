"""Serve what the registry assigns, and take a candidate through its rollout.

`prod` is what everybody is answered by: a new assignment is brought up beside what serves, and takes over in one step,
weights, prompt, index and settings at once. The release that a rollback would go to is kept warm, so that it takes over
at once too. `canary` names a candidate, one at a time: it is brought up, given its share of the keys step by step
(rollout.py), and assigned `prod` at the end; or it goes back for good, with an entry that says why. What goes wrong
with a candidate never touches what serves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from nightshift import engine, registry, rollouts
from nightshift.answer import System
from nightshift.engine import Engine, Kind
from nightshift.errors import ReleaseInvalid, StorageError, known
from nightshift.registry import Release, Standing
from nightshift.rollouts import Outcome
from nightshift.serve.loaded import LOOK_EVERY_S, Loaded
from nightshift.serve.records import Records
from nightshift.serve.rollout import Rollout
from nightshift.serve.served import Served, opened
from nightshift.serving import Rollouts
from nightshift.slo import Decision
from nightshift.store import Store

log = logging.getLogger("nightshift.serve")
Phase = Literal["serving", "loading", "refused", "none"]


class Follower:
    """Serves what is assigned.

    Args:
        repository: whose tags are the register.
        home: NIGHTSHIFT_HOME, with signatures, the public key, and what became of rollouts.
        state: NIGHTSHIFT_STATE, where fetched releases lie.
        threads: of an engine, and `kind`, which one.
        say: is told in a sentence what changed.
        clock: seconds that only grow; `wall`, seconds since 1970.
        rules: of rollouts; None serves `prod` alone and keeps nothing warm.
        queue: requests that wait for a release's engines, at most, and `wait_s` how long, seconds.
        permits: whether the error budget lets this release in; asked before each step, and never before a step back.
    """

    def __init__(
        self,
        repository: Path,
        home: Path,
        state: Path,
        threads: int,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rules: Rollouts | None = None,
        queue: int = 32,
        wait_s: float = 10.0,
        permits: Callable[[Release], Decision] = lambda release: Decision(True),
        kind: Kind = "openvino",
    ) -> None:
        self.repository, self.home, self.state, self.threads, self.kind = repository, home, state, threads, kind
        self.say, self.clock, self.wall, self.rules = say, clock, wall, rules
        self.queue, self.wait_s, self.permits = queue, wait_s, permits
        self.served: Served | None = None
        self.candidate: Served | None = None
        self.rollout: Rollout | None = None
        self.unverified: Callable[[str], None] = lambda digest: None  # is told of what served and no longer verifies
        self.wanted = Standing()
        self.looked = False  # whether the registry was asked yet
        self.loaded = Loaded(lambda release: self.bring_up(release), lambda text: self.say(text), lambda: self.clock())
        self._began = 0.0
        self._told: set[str] = set()  # kinds of errors, until a look goes well
        self._waits: set[tuple[str, str]] = set()  # releases and why they wait, until one may go on
        self._looking = asyncio.Lock()  # a rollback looks at once, beside what looks for ever
        self.records = Records(home)
        self._starting: list[Engine] = []  # by threads
        self._over = False

    def bring_up(self, release: Release) -> Served:
        """Fetch, verify, start and ask one release. Raises ReleaseInvalid when it is bad, else what may pass."""
        store = Store(self.repository, self.home, self.state)
        try:
            folder, _ = store.trusted(release)
        except ReleaseInvalid:
            if self.served is not None and self.served.release.digest == release.digest:
                self.unverified(release.digest)
            raise
        store.tidy({release.digest, *self.loaded.up}, self.wall())
        system = System.open(folder / "system")
        if system.settings["sections"]:
            system.sections("ready?")  # opens the index and its encoder before the first question does

        def start() -> Engine:
            return self._start(folder / "system")

        began = self.clock()
        made = opened(release, folder, [start()], self.queue, self.wait_s, system)
        made.another, made.lead_s = start, self.clock() - began
        return made

    def _start(self, system: Path) -> Engine:
        """One more engine of a system. Raises StorageError for one that does not start, or not any more."""
        mine: list[Engine] = []

        def begun(one: Engine) -> None:
            mine.append(one)
            self._starting.append(one)
            if self._over:
                raise StorageError("the endpoint ends, and starts no engine", one.model)

        try:
            return engine.start(system, self.threads, kind=self.kind, cache=self.state / "graphs", begun=begun)
        finally:
            for one in mine:
                self._starting.remove(one)

    def serving(self, key: str) -> Served | None:
        """The release that answers this key; None while none does."""
        if self.rollout and self.candidate and self.candidate.alive and self.rollout.takes(key):
            return self.candidate
        return self.served if self.served is not None and self.served.alive else None

    @property
    def mirror(self) -> Served | None:
        """The candidate that is sent a copy of what clients ask; None where none is."""
        at = self.rollout and self.candidate and self.candidate.alive and self.rollout.step.mirror
        return self.candidate if at else None

    @property
    def failed(self) -> str | None:
        """Digest of the release in production where that is bad."""
        stable = self.wanted.stable
        return stable.digest if stable and stable.digest in self.loaded.bad else None

    @property
    def down(self) -> bool:
        """Whether nothing answers in production; one that is only just being brought up is not down yet."""
        stable, served = self.wanted.stable, self.served
        if stable is None or (served and served.alive):
            return False
        return served is not None or bool(self.loaded.trouble(stable.digest))

    @property
    def phase(self) -> Phase:
        """Whether a release answers, and if not, whether one is coming."""
        if self.served is not None and self.served.alive:
            return "serving"
        if self.looked and self.wanted.stable is None:
            return "none"
        return "refused" if self.failed else "loading"

    async def look(self) -> None:
        """Ask the registry, and bring about what it says; what goes wrong is said, and never raised."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        try:
            self._judge()  # which needs no registry
            try:
                self.wanted = await asyncio.to_thread(self._asked)
                self.looked = True
                await self._follow_stable()
                await self._follow_candidate()
                await self._keep()
            finally:
                await asyncio.to_thread(self.records.write)  # beside a training a disk takes its time
            self._told.clear()
        except Exception as error:  # a bug too must not end what follows the registry
            self._told_once(error)

    async def follow(self) -> None:
        """Look every two seconds, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def end(self) -> None:
        """Start nothing more, and end what is being started: a large model takes minutes, and nobody waits for it."""
        self._over = True
        for one in list(self._starting):
            one.kill()

    def close(self) -> None:
        """Stop what serves."""
        self.end()
        self.loaded.close()
        if self.served:
            self.served.stop()

    def _asked(self) -> Standing:
        """What is assigned where."""
        if self.rules is None:
            return Standing(registry.current(self.repository))
        return rollouts.standing(self.repository, self.home, self.records.gone)

    async def _follow_stable(self) -> None:
        """Serve the release in production, once it is up; until then what serves goes on."""
        wanted, now = self.wanted.stable, self.served
        if wanted is None or (now and now.release.digest == wanted.digest and now.alive):
            return
        found = await self.loaded.want(wanted)
        if found is None:
            return
        found.side = "stable"
        self.served = found
        self.say(f"{wanted.version} is served ({wanted.digest[:12]})")
        if self.rollout and self.rollout.release.digest == wanted.digest:
            self.rollout = self.candidate = None  # it was promoted
        elif self.rollout and now and now.release.digest != wanted.digest:
            self._note("interrupted", f"{wanted.version} was assigned meanwhile")
            self.rollout = self.candidate = None
        elif self.rollout:
            self._look_anew(self.rollout)  # its engine was started again, and what is seen of that one counts

    async def _follow_candidate(self) -> None:
        """Take a candidate one look further."""
        if self.rules is None or self.served is None or not self.served.alive:
            return
        if self.rollout and self.rollout.release.digest in self.wanted.refused:
            self.say(f"{self.rollout.release.version} is tried no more: a person took it back")
            self.rollout = self.candidate = None
        if self.rollout is None:
            if (new := self.wanted.candidate) is None:
                return
            self.rollout, self._began = Rollout(new, self.rules, self.clock()), self.clock()
            self._note("begun")
        if self.candidate is None:
            await self._ready(self.rollout)
            return
        self._judge()
        if self.rollout:
            await self._go_on(self.rollout)

    def _judge(self) -> None:
        """Send a candidate back that is out of bounds, while there is something to go back to."""
        rollout, candidate, stable = self.rollout, self.candidate, self.served
        if rollout and candidate and stable and stable.alive and (why := rollout.wrong(candidate.whole)):
            self._back(why)

    async def _ready(self, rollout: Rollout) -> None:
        """Wait for a candidate to be up, and not for ever."""
        found, rules = await self.loaded.want(rollout.release), rollout.rules
        late = self.clock() - self._began > rules.ready_s
        if found is None:
            if late or rollout.release.digest in self.loaded.bad:
                self._back(f"it was never ready: {self.loaded.trouble(rollout.release.digest) or 'it took too long'}")
            return
        self.candidate, found.side = found, "canary"
        rollout.begun = self.clock()
        self._look_anew(rollout)
        self.say(f"{rollout.release.version} is tried at {rollout.step} ({rollout.release.digest[:12]})")

    async def _go_on(self, rollout: Rollout) -> None:
        """Pass a step that was seen through."""
        verdict = rollout.verdict(self.clock())
        if verdict != "wait":
            said = await asyncio.to_thread(self.permits, rollout.release)
            rollout.samples = said.samples
            if not said.allowed:
                self._held(rollout.release, said.reason)
                return
            self._waits.clear()
            verdict = rollout.verdict(self.clock())  # there may be more to see now
        if verdict == "advance":
            self._note("advanced", rollout.passed)
            rollout.advance(self.clock())
            self._look_anew(rollout)
            self.say(f"{rollout.release.version} is tried at {rollout.step} ({rollout.release.digest[:12]})")
        elif verdict == "promote":
            agreed = await asyncio.to_thread(registry.upcoming, self.repository)
            if (await asyncio.to_thread(self._asked)).stable != self.wanted.stable:
                return  # somebody went back meanwhile, and this must not undo it
            await asyncio.to_thread(self.records.promoting, rollout, self.wall())
            await asyncio.to_thread(registry.assign, self.repository, rollout.release, registry.PROD, agreed)
            self._note("promoted", rollout.passed)
            self.wanted = Standing(rollout.release, None, self.served.release if self.served else None)
            await self._follow_stable()

    def _held(self, release: Release, why: str) -> None:
        """A step waits; said once."""
        if (release.digest, why) not in self._waits:
            self._waits.add((release.digest, why))
            self.say(f"a rollout waits: {why}")

    def _look_anew(self, rollout: Rollout) -> None:
        """What is seen from now on counts for this step."""
        if self.candidate and self.served:
            self.candidate.seen, self.served.seen = rollout.candidate, rollout.stable

    def _back(self, why: str) -> None:
        """Send a candidate back, for good: out of the traffic first, since the records may not be writable."""
        rollout = self.rollout
        assert rollout is not None
        self._note("back", why)
        self.rollout = self.candidate = None
        self.say(f"{rollout.release.version} goes back: {why}")

    def _note(self, outcome: Outcome, reason: str = "") -> None:
        """Remember what happened."""
        if (rollout := self.rollout) is None:
            return
        against = self.served.release.digest if self.served else ""
        users = len(self.candidate.users) if self.candidate else 0
        self.records.note(rollout, outcome, reason, self.wall(), self.clock(), against, users)

    async def _keep(self) -> None:
        """Keep what serves, what is tried and what a rollback would go to; end everything else."""
        stable, before = self.wanted.stable, self.wanted.before
        wanted = {stable.digest} if stable else set()
        if self.served:
            wanted.add(self.served.release.digest)
        if self.rollout:
            wanted.add(self.rollout.release.digest)
        elif before and self.served and self.served.alive:  # one at a time: what serves first, and what is tried
            await self.loaded.want(before)
        if before:
            wanted.add(before.digest)
        self.loaded.keep(wanted)

    def _told_once(self, error: Exception) -> None:
        """Say what keeps the registry from being followed, each kind once while it lasts."""
        found = known(error)
        kind = type(found or error).__name__
        if kind not in self._told:
            self._told.add(kind)
            self.say(str(found or f"{kind}: {error}"))
            if found is None:
                log.error("a bug: %s", type(error).__name__, exc_info=error)


def to_log(text: str) -> None:
    """Tell the log."""
    log.info("%s", text)
