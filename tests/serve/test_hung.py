"""An engine that runs and does not answer is ended, and another one answers in its place; one that answers is not."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nightshift import port, registry
from nightshift.answer import System
from nightshift.engine import Engine
from nightshift.golden import Golden
from nightshift.registry import Release
from nightshift.serve import probing
from nightshift.serve.follow import Follower
from nightshift.serve.inside import Inside
from nightshift.serve.meters import Meters
from nightshift.serve.pieces import Patience
from nightshift.serve.probing import Probing
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serve.wire import Wires
from tests import models
from tests.conftest import ROOT
from tests.serve.mocked import until_up
from tests.serve.scripted import RELEASE, ROWS

QUESTION = Golden("g", "When is the pump oiled?", "x", "Monday", "Monday", False)


@dataclass
class World:
    """A follower of one release, whose engines are processes, and what asks it."""

    folder: Path
    system: System
    said: list[str] = field(default_factory=list)
    engines: list[Engine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.follower = Follower(self.folder, self.folder, self.folder, 1, self.said.append)
        self.follower.clock = lambda: 1000 * time.monotonic()  # so that lives are long
        self.follower.bring_up = self.bring_up  # type: ignore[method-assign]
        self.inside = Inside(Wires(), Patience(5.0, 10.0), time.monotonic)
        read, grade = (lambda _: [QUESTION]), (lambda *_: True)
        self.probing = Probing(self.follower, Meters(), self.inside, read, grade, time.monotonic, 0.01)

    def engine(self) -> Engine:
        at = port.unused()
        words = [sys.executable, "-m", "tests.serve.paced", *map(str, (at, 2, 5, 0.01))]
        child = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True)
        self.engines.append(Engine(child, f"http://127.0.0.1:{at}", "m", self.folder / "scratch"))
        until_up(f"http://127.0.0.1:{at}/")
        return self.engines[-1]

    def bring_up(self, release: Release) -> Served:
        return Served(release, self.system, [self.engine()], Turns(2, 9, 9.0))

    async def until(self, true: Callable[[], bool]) -> None:
        """Follow the registry and ask, until this is so."""
        asking = asyncio.create_task(self.probing.probe())
        async with asyncio.timeout(30):
            while not true():
                await self.follower.look()
                await asyncio.sleep(0.02)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(registry, "current", lambda _: RELEASE)
    monkeypatch.setattr(probing, "PATIENCE", Patience(0.5, math.inf))
    system = System.open(models.system(tmp_path / "release" / "plain", ROOT, ROWS))
    system.settings["sections"] = 0
    made = World(tmp_path, system)
    yield made
    for one in made.engines:
        one.stop()


def test_one_that_is_stopped_is_killed_and_another_answers(world: World) -> None:
    async def run() -> str:
        await world.until(lambda: world.follower.phase == "serving")
        (hung,) = world.engines
        os.killpg(hung.child.pid, signal.SIGSTOP)
        await world.until(lambda: len(world.engines) == 2 and world.follower.phase == "serving")
        assert hung.child.wait(5) == -signal.SIGKILL
        assert world.follower.served
        said = await world.inside.ask(world.follower.served, "k", "When is the pump oiled?")
        world.inside.wires.close()
        return said.text

    assert asyncio.run(run()).startswith("the pump is oiled")
    assert "an engine of v0.1.0 did not answer 3 times in a row, and was killed" in world.said


def test_one_that_answers_somebody_in_between_is_not(world: World) -> None:
    """A question may be too much for a release that answers all others."""

    async def run() -> None:
        await world.until(lambda: world.follower.phase == "serving")
        (engine,) = world.engines
        served = world.follower.served
        assert served
        for _ in range(2 * probing.UNANSWERED):
            engine.unanswered += probing.UNANSWERED - 1
            world.probing._relieved(served)
            assert engine.alive
            await world.inside.ask(served, "k", "When is the pump oiled?")
        world.inside.wires.close()

    asyncio.run(run())
