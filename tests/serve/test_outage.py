"""What is wrong while nobody asks is seen by the endpoint's own questions, and told within five minutes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nightshift import openslo, slo
from nightshift.counts import Counts
from nightshift.errors import ReleaseInvalid
from nightshift.golden import Golden
from nightshift.params import load
from nightshift.registry import Standing
from nightshift.serve.follow import Follower
from nightshift.serve.inside import Inside, Said
from nightshift.serve.meters import Meters
from nightshift.serve.pieces import Patience
from nightshift.serve.probing import Probing
from nightshift.serve.refused import Refused
from nightshift.serve.rollout import Rollout
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serve.wire import Wires
from nightshift.serving import Rollouts
from tests.conftest import ROOT
from tests.serve.scripted import RELEASE

HOUR = 3600.0
FIRST = 29_000_000  # minute in which it begins


class Over(BaseException):
    """The time that was given is over."""


@dataclass(frozen=True)
class Asked(Inside):
    """An engine that answers in a second, or not at all; time passes where it is asked and where its asker waits."""

    world: Any = None

    async def ask(self, *_: Any, **__: Any) -> Said:
        self.world.pass_(1.0 if self.world.answers else self.patience.first_token_s)
        if not self.world.answers:
            raise Refused("engine_timeout", "The answer took too long; ask for a shorter one.")
        return Said("Monday", [], 0.5, 0.02, 1.0)


class World:
    """An endpoint that nobody asks; `now` is its clock, seconds."""

    def __init__(self, home: Path) -> None:
        self.now, self.until, self.answers = 0.0, 0.0, True
        self.counts, self.meters = Counts(home), Meters()
        self.follower = Follower(home, home, home, 1, lambda _: None, clock=lambda: self.now)
        self.follower.wanted = Standing(RELEASE)
        self.engine: Any = SimpleNamespace(alive=True, unanswered=0, slots=1)
        system: Any = SimpleNamespace(folder=home / "system")
        self.served = self.follower.served = Served(RELEASE, system, [self.engine], Turns(1, 9, 9.0))
        inside = Asked(Wires(), Patience(30.0, 120.0), lambda: self.now, self)
        known = [Golden("g", "When is the pump oiled?", "x", "Monday", "Monday", False)]
        self.probing = Probing(
            self.follower, self.meters, inside, lambda _: known, lambda *_: True, lambda: self.now, sleep=self.sleep
        )

    def pass_(self, seconds: float) -> None:
        """Let time pass; each minute is counted when it is over."""
        for _ in range(int(self.now + seconds) // 60 - int(self.now) // 60):
            self.counts.add(FIRST + int(self.now) // 60, self.meters.take())
        self.now += seconds
        if self.now >= self.until:
            raise Over

    async def sleep(self, seconds: float) -> None:
        self.pass_(seconds)

    def run(self, seconds: float) -> None:
        """Ask for so long."""
        self.until = self.now + seconds
        with pytest.raises(Over):
            asyncio.run(self.probing.probe())

    def told(self) -> list[tuple[str, str]]:
        """The alerts of the last whole minute."""
        minute = FIRST + int(self.now) // 60 - 1
        found = slo.alerts(openslo.promised(ROOT).values(), slo.series(self.counts, minute, 7 * 1440), minute, 0)
        return [(one.id, one.severity) for one in found]

    def counted(self, sli: str = "availability") -> tuple[int, int]:
        """(good, valid) events."""
        events = [(good, number) for (name, _, good), number in self.meters.events.items() if name == sli]
        return sum(number for good, number in events if good), sum(number for _, number in events)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("fault", ["hangs", "is dead"])
def test_an_engine_that_gives_no_answer_is_a_page_within_five_minutes_though_nobody_asks(
    fault: str, world: World
) -> None:
    world.run(6 * HOUR)
    assert world.told() == []
    if fault == "hangs":
        world.answers = False
    else:
        world.engine.alive = False
        assert world.follower.phase != "serving"  # which /readyz tells
    world.run(61.0)
    assert world.told() == []  # a minute is what a restart takes
    world.run(240.0)
    assert world.told() == [("health", "page")]


@pytest.mark.parametrize("trouble", [True, False])
def test_a_release_that_cannot_be_brought_up_is_an_outage_and_one_that_is_on_its_way_is_none(
    trouble: bool, world: World
) -> None:
    world.follower.served = None
    if trouble:
        world.follower.loaded._met(ReleaseInvalid("it has no signature"), RELEASE)
    world.run(59.0)
    assert world.counted() == ((0, 4) if trouble else (0, 0))


def test_while_a_candidate_is_tried_a_minute_weighs_as_much(world: World) -> None:
    world.follower.candidate = Served(RELEASE, world.served.system, [world.engine], Turns(1, 9, 9.0))
    rollout = world.follower.rollout = Rollout(RELEASE, load(ROOT / "params.yaml", Rollouts), 0.0)
    world.follower.candidate.seen, world.served.seen = rollout.candidate, rollout.stable
    world.run(59.0)
    assert rollout.stable.asked > 20
    assert world.counted() == (4, 4)
