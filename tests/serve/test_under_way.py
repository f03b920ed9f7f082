"""What is under way is answered by the release that it began with, though that is taken away meanwhile."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from nightshift import params
from nightshift.engine import Engine
from nightshift.registry import Release, Standing
from nightshift.serve.follow import Follower
from nightshift.serve.rollout import Rollout
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serving import Rollouts
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import RELEASE, ROWS, endpoint

RULES = params.load(ROOT / "params.yaml", Rollouts).model_copy(update={"strategy": "immediate"})
OTHER = Release("v0.2.0", "c" * 40, "e" * 64)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.system(tmp_path_factory.mktemp("system") / "plain", ROOT, ROWS)


@dataclass
class Stopped:
    """An engine that says when it was stopped, and answers nobody from then on."""

    engine: Engine
    stopped: threading.Event = field(default_factory=threading.Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    @property
    def alive(self) -> bool:
        """Whether it was not stopped."""
        return not self.stopped.is_set()

    def stop(self) -> None:
        """Stop."""
        self.stopped.set()


@dataclass
class Waiting:
    """A release whose sections are found when it is let, beside the one that an endpoint has."""

    served: Served
    begun: threading.Event = field(default_factory=threading.Event)
    let: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def beside(cls, other: Served) -> Waiting:
        """With the other's engine and documents."""
        system = copy.copy(other.system)
        engine: Any = Stopped(other.engines[0])
        made = cls(Served(OTHER, system, [engine], Turns(2, 9, 9.0)))
        found = system.sections

        def sections(question: str, groups: Sequence[str] = ("public",)) -> Any:
            made.begun.set()
            assert made.let.wait(20)
            return found(question, groups)

        vars(system)["sections"] = sections
        return made

    @property
    def stopped(self) -> threading.Event:
        """That of its engine."""
        engine: Any = self.served.engines[0]
        return engine.stopped  # type: ignore[no-any-return]

    def tried(self, follower: Follower) -> None:
        """It is a candidate that answers everybody, and errs."""
        follower.rules, follower.candidate, self.served.side = RULES, self.served, "canary"
        rollout = follower.rollout = Rollout(OTHER, RULES, 0.0)
        for _ in range(RULES.failures):
            rollout.candidate.request(False, None)

    def in_production(self, follower: Follower) -> None:
        """It serves, and somebody went back from it by hand."""
        follower.served = self.served


@pytest.mark.parametrize("way", [Waiting.tried, Waiting.in_production], ids=["a candidate", "a rollback by hand"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_release_that_is_taken_back_answers_what_looks_for_its_sections(
    way: Any, stream: bool, tmp_path: Path, system: Path
) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    def around(app: Any) -> Any:
        async def noted(scope: Any, receive: Any, send: Any) -> None:
            loops.append(asyncio.get_running_loop())
            await app(scope, receive, send)

        return noted

    with endpoint(tmp_path, system, slots=2, around=around) as one:
        gone, follower = Waiting.beside(one.served), one.follower
        follower.loaded.up = {RELEASE.digest: one.served, OTHER.digest: gone.served}
        follower._asked = lambda: Standing(RELEASE)  # type: ignore[method-assign]
        way(gone, follower)
        said: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: said.append(one.ask("When is the pump oiled?", stream=stream)))
        asking.start()
        assert gone.begun.wait(20)
        asyncio.run_coroutine_threadsafe(follower.look(), loops[0]).result(20)
        assert follower.rollout is None and OTHER.digest not in follower.loaded.up  # it was taken back
        assert one.ask("When is the pump oiled?").json()["nightshift"]["version"] == RELEASE.version
        assert not gone.stopped.wait(0.3)
        gone.let.set()
        asking.join(20)
        assert said[0].status_code == 200
        assert said[0].headers["x-model-digest"] == OTHER.digest
        assert gone.stopped.wait(20)  # once its last answer is out
        assert gone.served.busy == 0
