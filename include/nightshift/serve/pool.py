"""Keep as many engines of a release warm as its hour needs: scaling.py says how many, this starts and ends them.

The release that serves is scaled; a candidate has its share of that, of the step to come, so that it is not the fewer
engines that make it slow; every other release that is up (the one that a rollback would go to) has one. An engine that
is not needed gets no more requests, and ends when its answers are out. One that died beside others is replaced, after
pauses that grow while that goes on. The last one is not this module's: then the whole release is brought up again
(loaded.py). With `serve.warm` at one engine, nothing is ever started or ended here.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from nightshift import capacity
from nightshift.backoff import pause
from nightshift.counts import KEEP, TURNS, Counts
from nightshift.engine import Engine, Kind
from nightshift.errors import DataRefused, known
from nightshift.scaling import QUARTER, Decision, Engines, Lately, Load, Profile, Rules, Scaling
from nightshift.serve.follow import Follower
from nightshift.serve.loaded import LONGEST_PAUSE_S, LOOK_EVERY_S
from nightshift.serve.served import Served

log = logging.getLogger("nightshift.serve")


@dataclass(eq=False)
class Growth:
    """What is on its way for one release.

    Args:
        times: how often in a row an engine died or did not start.
        again: when the next may be started, seconds of the clock.
        told: kinds of errors that kept one from starting, until one starts.
    """

    starting: set[asyncio.Task[Engine]] = field(default_factory=set)
    times: int = 0
    again: float = 0.0
    told: set[str] = field(default_factory=set)

    def failed(self, now: float) -> None:
        """One died, or did not start."""
        self.times = 1 if now > self.again + LONGEST_PAUSE_S else self.times + 1
        self.again = now + pause(self.times, 2 * LOOK_EVERY_S, LONGEST_PAUSE_S)


@dataclass
class Pool:
    """The engines of one follower's releases.

    Args:
        counts: what the gateway counted, for the profile.
        expected: requests of each hour of the week, where nothing was counted yet.
        service_s: seconds an answer, where none was given yet.
        fits: how many engines of a release memory holds; None where that is not known.
        replaced: is told of an engine that died.
    """

    follower: Follower
    rules: Rules
    counts: Counts
    expected: Sequence[float]
    zone: ZoneInfo
    service_s: float
    fits: Callable[[Served], int | None] = lambda _: None
    replaced: Callable[[], None] = lambda: None
    _growth: dict[Served, Growth] = field(default_factory=dict)
    _ending: set[asyncio.Task[None]] = field(default_factory=set)
    _told: dict[str, int] = field(default_factory=dict)  # kind of an error → quarter in which it was met last
    _quarter: int = 0  # whose profile it is, minutes since 1970 // 15
    _room: int | None = None  # engines that memory holds
    _of: tuple[Served, ...] = ()  # whose `_lately` it is
    _last: Decision | None = None

    def __post_init__(self) -> None:
        self._scaling = Scaling(self.rules, Profile.of({}, self.expected, self.zone))
        self._lately = Lately()

    async def scale(self) -> None:
        """Look every two seconds, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Start and end what is to be; what goes wrong is said, and never raised."""
        try:
            await self._look()
        except Exception as error:  # a bug too must not end what follows the load
            self._say_once(error, self._told)
            self._told[_kind(error)] = self._quarter
        else:  # the counts are read once a quarter, so that the rest of a quarter goes well without them
            self._told = {kind: quarter for kind, quarter in self._told.items() if quarter == self._quarter}

    async def _look(self) -> None:
        follower, now = self.follower, self.follower.clock()
        up = {one for one in (*follower.loaded.up.values(), follower.served, follower.candidate) if one is not None}
        for gone in [one for one in self._growth if one not in up]:
            self._abandon(self._growth.pop(gone))
        for one in up:
            self._settle(one, self._growth.setdefault(one, Growth()), now)
        served = follower.served
        if served is None or not served.alive:
            return
        wanted = await self._wanted(served, now)
        for one in up:
            if one.alive:
                self._grow(one, self._growth[one], self._number(one, wanted), now)

    async def _wanted(self, served: Served, now: float) -> int:
        """How many engines of the release that serves should be warm; said where that changed."""
        if not self._of or served is not self._of[0]:
            self._room = await asyncio.to_thread(self.fits, served)
        await self._profiled()
        load = self._load(served, now)
        kind = Engines(served.engines[0].slots, served.service_s(self.service_s), served.lead_s)
        said = self._scaling.decide(now, self.follower.wall(), load, kind)
        self._said(said)
        return max(self.rules.least, min(said.engines, self._most()))

    def _load(self, served: Served, now: float) -> Load:
        """What clients asked in the last minute, of the release that serves and of a candidate that answers some."""
        rollout, candidate = self.follower.rollout, self.follower.candidate
        asked = (served, candidate) if candidate and rollout and rollout.step.share else (served,)
        if asked != self._of:
            self._of, self._lately = asked, Lately()
        turns = [one.turns for one in asked]
        return self._lately.note(
            now, sum(one.asked for one in turns), sum(one.running for one in turns), sum(one.waiting for one in turns)
        )

    def _most(self) -> int:
        """The most engines that may be warm: what memory holds, less one of the release before and of a candidate."""
        if self._room is None:
            return self.rules.most
        return min(self.rules.most, max(1, self._room - (2 if self.follower.rules else 0)))

    def _number(self, one: Served, wanted: int) -> int:
        """How many engines a release should have, when the one that serves should have `wanted`."""
        follower = self.follower
        if one is follower.served:
            return wanted
        if one is not follower.candidate or follower.rollout is None:
            return 1
        steps, at = follower.rollout.steps, follower.rollout.place
        share = math.ceil(wanted * steps[min(at + 1, len(steps) - 1)].share / 100)
        return max(1, share if self._room is None else min(share, self._room - wanted - 1))

    def _settle(self, one: Served, growth: Growth, now: float) -> None:
        """Take in engines that were started, forget those that died, and end those whose answers are out."""
        for task in [task for task in growth.starting if task.done()]:
            growth.starting.discard(task)
            try:
                one.add(task.result())
                growth.told.clear()
            except Exception as error:  # what keeps an engine from starting may pass, and a bug too is said
                growth.failed(now)
                self._say_once(error, growth.told)
                growth.told.add(_kind(error))
        for _ in range(one.bury() if one is not self.follower.candidate else 0):  # such a candidate goes back
            growth.failed(now)
            self.replaced()
            self.follower.say(f"an engine of {one.release.version} died, {one.warm} more answer")
        for engine in one.left():
            self._end(engine)
        one.starting = len(growth.starting)

    def _grow(self, one: Served, growth: Growth, wanted: int, now: float) -> None:
        """Start what is missing, or let go of what is too much."""
        if one.another is None:
            return
        missing = wanted - one.warm - len(growth.starting)
        for _ in range(missing if now >= growth.again else 0):
            growth.starting.add(asyncio.create_task(self._started(one, one.another)))
        while missing < 0 and one.warm > wanted:
            one.drop()
            missing += 1
        one.starting = len(growth.starting)

    async def _started(self, one: Served, start: Callable[[], Engine]) -> Engine:
        """One more engine, and how long it took to start."""
        began = self.follower.clock()
        made = await asyncio.to_thread(start)
        one.lead_s = self.follower.clock() - began
        return made

    def _abandon(self, growth: Growth) -> None:
        """Nobody wants what was started."""
        for task in growth.starting:
            task.add_done_callback(self._unwanted)

    def _unwanted(self, task: asyncio.Task[Engine]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._end(task.result())

    def _end(self, engine: Engine) -> None:
        task = asyncio.create_task(asyncio.to_thread(engine.stop))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _profiled(self) -> None:
        """Look at the weeks again, once in a quarter of an hour."""
        minute = int(self.follower.wall()) // 60
        if minute // QUARTER == self._quarter:
            return
        self._quarter = minute // QUARTER
        whole = self._quarter * QUARTER - 1  # the last minute of the last whole quarter
        found = await asyncio.to_thread(self.counts.quarters, TURNS, minute - KEEP, whole)
        self._scaling.profile = Profile.of(found, self.expected, self.zone)

    def _said(self, now: Decision) -> None:
        """Say how many engines are wanted where that changed, and why."""
        before = self._last.engines if self._last else self.rules.least
        self._last = now
        if now.engines == before:
            return
        minutes = self.rules.quiet_s / 60
        why = now.said if now.engines > before else f"nothing asked for {before} in the last {minutes:g} minutes"
        held = f", and memory holds {self._most()}" if now.engines > self._most() else ""
        self.follower.say(f"engines warm: {now.engines} instead of {before} ({why}{held})")

    def _say_once(self, error: Exception, told: Collection[str]) -> None:
        """Say what goes wrong, unless its kind was told."""
        found, kind = known(error), _kind(error)
        if kind not in told:
            self.follower.say(f"engines are not scaled: {found or f'{kind}: {error}'}")
            if found is None:
                log.error("a bug: %s", type(error).__name__, exc_info=error)


def _kind(error: Exception) -> str:
    return type(known(error) or error).__name__


def room(served: Served, kind: Kind) -> int | None:
    """How many engines of a release, with all their slots in use, this machine's memory holds; None for not known.

    vLLM takes a GPU's memory whole.
    """
    if kind == "vllm":
        return 1
    try:
        shape = capacity.Shape.of(served.system.folder, kind)
    except DataRefused:
        return None
    return capacity.engines(shape, capacity.memory(), shape.context, served.engines[0].slots)
