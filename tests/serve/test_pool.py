"""Engines come when they are needed and go when they are not; no answer is cut, and nothing is started in vain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from nightshift import params
from nightshift.counts import TURNS, Counts
from nightshift.errors import StorageError
from nightshift.registry import Release
from nightshift.scaling import Rules
from nightshift.serve.loaded import LONGEST_PAUSE_S, LOOK_EVERY_S
from nightshift.serve.pool import Pool
from nightshift.serve.rollout import Rollout
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serving import Rollouts
from tests.conftest import ROOT

MONDAY = 1_795_996_800  # 2026-11-30, midnight
FIRST, SECOND = Release("v0.1.0", "c" * 40, "a" * 64), Release("v0.2.0", "c" * 40, "b" * 64)
CANARY = params.load(ROOT / "params.yaml", Rollouts)
RULES = Rules(1, 4, 300.0, 1.0, 0.05)


@dataclass(eq=False)
class Fake:
    """An engine with two slots."""

    stopped: int = 0
    alive: bool = True
    slots: int = 2
    accepts: frozenset[str] = frozenset()

    def stop(self) -> None:
        """Count it."""
        self.stopped += 1
        self.alive = False


@dataclass
class World:
    """A pool, the release that it scales, and engines that start, or not, by a script; `now` is the clock."""

    home: Path
    pool: Pool
    follower: Any
    served: Served
    made: list[Fake] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    now: float = 0.0
    slots: int = 2

    def another(self) -> Fake:
        """One more engine, unless the script says otherwise."""
        if self.fails:
            raise self.fails.pop(0)
        self.made.append(Fake(slots=self.slots))
        return self.made[-1]

    async def look(self, times: int = 1, every: float = LOOK_EVERY_S) -> None:
        """Look so often, and let what is started and ended come to its end."""
        for _ in range(times):
            await self.pool.look()
            growing = [one for growth in self.pool._growth.values() for one in growth.starting]
            await asyncio.gather(*growing, *self.pool._ending, return_exceptions=True)
            self.now += every

    def ask(self, number: int) -> None:
        """So many ask, and are answered at once."""
        self.served.turns.asked += number


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., World]:
    def made(rules: Rules = RULES, release: Release = FIRST, **more: Any) -> World:
        follower = SimpleNamespace(
            served=None, candidate=None, rollout=None, rules=None, loaded=SimpleNamespace(up={}), said=[]
        )
        pool = Pool(follower, rules, Counts(tmp_path), [0.0] * 168, ZoneInfo("UTC"), 4.0, **more)  # type: ignore[arg-type]
        one = World(tmp_path, pool, follower, serves(release))
        follower.served, one.served.another = one.served, one.another  # type: ignore[assignment]
        follower.clock, follower.wall, follower.say = lambda: one.now, lambda: MONDAY + one.now, one.said.append
        return one

    return made


def serves(release: Release) -> Served:
    return Served(release, None, [Fake()], Turns(2, 32, 10.0), lead_s=20.0)  # type: ignore[arg-type,list-item]


def test_a_burst_brings_engines_and_a_quiet_while_takes_them_away(make: Callable[..., World]) -> None:
    world = make()

    async def went() -> None:
        await world.look(2)
        assert (world.served.warm, world.made) == (1, [])
        world.ask(60)  # 4 under way by Little's law, of 1.4 an engine
        await world.look(2)
        assert (world.served.warm, world.served.turns.slots, len(world.made)) == (3, 6, 2)
        await world.look(170)  # 340 s: the last minute stays full for 60, and then 300 have to be quiet
        assert world.served.warm == 3
        await world.look(15)
        assert (world.served.warm, world.served.turns.slots) == (1, 2)
        assert sum(one.stopped for one in world.made) + (not world.made[0].alive) >= 1

    asyncio.run(went())
    assert world.said == [
        "engines warm: 3 instead of 1 (0.0 answers under way and 0 requests waiting, "
        "1 a second came in the last minute)",
        "engines warm: 1 instead of 3 (nothing asked for 3 in the last 5 minutes)",
    ]


def test_with_one_engine_at_least_and_at_most_nothing_is_started_or_ended(make: Callable[..., World]) -> None:
    world = make(Rules(1, 1, 10.0, 1.0, 0.05))

    async def went() -> None:
        for _ in range(20):
            world.ask(500)
            await world.look()
        [only] = world.served.engines
        vars(only)["alive"] = False  # the last: the whole release is brought up again, by others
        await world.look(3)
        assert world.served.engines == [only]

    asyncio.run(went())
    assert (world.made, world.said) == ([], [])


def test_an_engine_that_leaves_finishes_what_it_answers(make: Callable[..., World]) -> None:
    world = make(Rules(1, 2, 10.0, 1.0, 0.05))

    world.slots = vars(world.served.engines[0])["slots"] = 8

    async def went() -> None:
        await world.look()
        world.ask(100)
        await world.look(2)
        assert world.served.warm == 2
        async with world.served.turn("a", 1) as one, world.served.turn("a", 1) as other:
            assert one is not other  # the least busy first
            await world.look(50)
            [stays] = world.served.engines
            leaves = other if stays is one else one
            assert world.served.leaving == [leaves] and not leaves.stopped
            async with world.served.turn("b", 1) as next_one:
                assert next_one is stays
        await world.look()
        assert leaves.stopped == 1 and not stays.stopped and world.served.leaving == []

    asyncio.run(went())


def test_one_that_died_is_replaced_and_more_slowly_when_it_goes_on_dying(make: Callable[..., World]) -> None:
    replaced: list[int] = []
    world = make(Rules(2, 2, 10.0, 1.0, 0.05), replaced=lambda: replaced.append(1))

    async def went() -> None:
        await world.look(2)
        assert (world.served.warm, world.said) == (2, [])
        for _ in range(150):  # five minutes
            for one in world.made:
                one.alive = False
            await world.look()
        assert world.served.engines[0].alive and world.served.turns.slots in (2, 4)
        assert 5 <= len(world.made) <= 10
        assert len(replaced) == len(world.made) - world.made[-1].alive
        await world.look(60)
        assert world.served.warm == 2

    asyncio.run(went())
    assert world.said[0] == "an engine of v0.1.0 died, 1 more answer"
    assert all(one.stopped == 1 for one in world.made[:-1])  # its scratch folder goes too


def test_one_that_does_not_start_is_said_once_and_tried_again(make: Callable[..., World]) -> None:
    world = make(Rules(2, 2, 10.0, 1.0, 0.05))
    world.fails = [StorageError("its engine did not start")] * 3

    async def went() -> None:
        await world.look(40)
        assert world.served.warm == 2

    asyncio.run(went())
    assert world.said == ["engines are not scaled: its engine did not start."]
    assert world.now < 2 * LONGEST_PAUSE_S


def test_the_hours_that_were_busy_are_ready_for_and_a_restart_knows_them(make: Callable[..., World]) -> None:
    world = make()
    eight = MONDAY // 60 + 8 * 60
    for week in (1, 2):
        for minute in range(eight - week * 10_080, eight - week * 10_080 + 60, 15):
            world.pool.counts.add(minute, {(TURNS, "x"): (60, 60)})
    quiet = make()
    quiet.now = (eight - 10) * 60 - MONDAY

    async def went() -> None:
        await quiet.look(2)
        assert quiet.served.warm == 1
        quiet.now = eight * 60 - MONDAY - 15.0  # an engine takes 20 s
        await quiet.look(2)
        assert quiet.served.warm == 4

    asyncio.run(went())
    assert quiet.said == ["engines warm: 4 instead of 1 (the week's profile has 1 requests a second at Mon 08:00)"]


def test_no_more_than_memory_holds_beside_a_candidate_and_the_release_before(make: Callable[..., World]) -> None:
    world = make(fits=lambda _: 4)
    world.follower.rules = CANARY

    async def went() -> None:
        await world.look()
        world.ask(1000)
        await world.look(3)
        assert world.served.warm == 2

    asyncio.run(went())
    assert world.said[0].endswith("and no more than 4 may be warm, and memory holds 2)")


def test_a_candidate_has_its_share_of_the_next_step_and_the_release_before_one(make: Callable[..., World]) -> None:
    world = make(Rules(4, 4, 10.0, 1.0, 0.05))
    candidate, before = serves(SECOND), serves(Release("v0.0.9", "c" * 40, "e" * 64))
    for one in (candidate, before):
        one.another = world.another  # type: ignore[assignment]
    before.engines.append(Fake())  # type: ignore[arg-type]  # it served until now
    world.follower.candidate, world.follower.rollout = candidate, Rollout(SECOND, CANARY, 0.0)
    world.follower.loaded.up = {one.release.digest: one for one in (world.served, candidate, before)}

    async def went() -> None:
        found = []
        for _ in range(3):
            await world.look(2)
            found.append((world.served.warm, candidate.warm, before.warm))
            world.follower.rollout.place = min(2, world.follower.rollout.place + 1)
        assert found == [(4, 1, 1), (4, 4, 1), (4, 4, 1)]
        world.follower.loaded.up.pop(SECOND.digest)
        world.follower.candidate = world.follower.rollout = None
        await world.look()
        assert candidate not in world.pool._growth

    asyncio.run(went())


def test_what_a_candidate_is_asked_counts_too_and_its_mirror_does_not(make: Callable[..., World]) -> None:
    world, candidate = make(), serves(SECOND)
    world.follower.candidate = candidate
    found = []

    async def went() -> None:
        for strategy, place in (("shadow", 0), ("canary", 2)):
            rules = CANARY.model_copy(update={"strategy": strategy})
            world.follower.rollout = Rollout(SECOND, rules, 0.0, place=place)
            await world.look()
            candidate.turns.asked += 60
            await world.look(3)
            found.append((world.served.warm, candidate.warm))
            [engine] = candidate.engines
            vars(engine)["alive"] = False
            await world.look()
            assert candidate.engines == [engine]  # its rollout sends it back; it is not mended here
            vars(engine)["alive"] = True

    asyncio.run(went())
    assert found == [(1, 1), (3, 1)]


def test_an_engine_that_came_too_late_for_its_release_is_ended(make: Callable[..., World]) -> None:
    world = make(Rules(2, 2, 10.0, 1.0, 0.05))
    begun = asyncio.Event()

    async def went() -> None:
        loop = asyncio.get_running_loop()

        def slow() -> Fake:
            loop.call_soon_threadsafe(begun.set)
            while world.follower.served is world.served:
                time.sleep(0.005)
            return world.another()

        world.served.another = slow  # type: ignore[assignment]
        await world.pool.look()
        [task] = world.pool._growth[world.served].starting
        await begun.wait()
        assert world.served.starting == 1
        world.follower.served = serves(SECOND)
        await world.pool.look()
        await task
        await asyncio.sleep(0)
        await asyncio.gather(*world.pool._ending)
        assert [one.stopped for one in world.made] == [1]

    asyncio.run(went())


def test_what_cannot_be_read_is_said_and_ends_nothing(make: Callable[..., World]) -> None:
    world = make()
    world.pool.counts.path.parent.mkdir()
    world.pool.counts.path.write_text("no database")

    async def went() -> None:
        await world.look(3)
        world.pool.counts.path.unlink()
        await world.look(1)

    asyncio.run(went())
    assert len(world.said) == 1 and "the counts cannot be used" in world.said[0]


def test_counts_that_break_a_second_time_are_said_again(make: Callable[..., World]) -> None:
    world = make()
    path = world.pool.counts.path
    path.parent.mkdir()

    async def went() -> None:
        for content in ("no database", "no database", None, "no database"):  # a quarter of an hour each
            path.unlink(missing_ok=True)
            if content:
                path.write_text(content)
            await world.look(3, every=300)

    asyncio.run(went())
    assert len(world.said) == 2


def test_a_start_that_fails_again_after_one_that_went_well_is_said_again(make: Callable[..., World]) -> None:
    world = make(Rules(3, 3, 10.0, 1.0, 0.05))
    fails = lambda: [StorageError("its engine did not start")] * 2  # noqa: E731

    async def went() -> None:
        world.fails = fails()
        await world.look(10, every=LONGEST_PAUSE_S)
        assert world.served.warm == 3
        for engine in world.served.engines[1:]:
            vars(engine)["alive"] = False
        world.fails = fails()
        await world.look(10, every=LONGEST_PAUSE_S)
        assert world.served.warm == 3

    asyncio.run(went())
    assert len([one for one in world.said if "did not start" in one]) == 2


def test_a_bug_is_logged_with_its_traceback(make: Callable[..., World], caplog: pytest.LogCaptureFixture) -> None:
    world = make(fits=lambda _: {}["memory"])
    asyncio.run(world.look(2))
    (record,) = caplog.records
    assert record.getMessage() == "a bug: KeyError" and record.exc_info
    assert world.said == ["engines are not scaled: KeyError: 'memory'"]
