"""What is under way is answered by the release that it began with, though that is taken away meanwhile; and in time."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from nightshift import params
from nightshift.engine import Engine
from nightshift.registry import Release, Standing
from nightshift.serve.follow import Follower
from nightshift.serve.rollout import Rollout
from nightshift.serve.served import Served
from nightshift.serve.server import drain_s
from nightshift.serve.turns import Turns
from nightshift.serving import Rollouts
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import RELEASE, ROWS, Endpoint, endpoint

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


LIMITS: dict[str, Any] = {"queue_s": 0.5, "first_token_s": 1.0, "total_s": 1.0}


def test_the_texts_of_a_request_have_one_deadline_together(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, **LIMITS) as one:
        body: dict[str, Any] = {"model": "nightshift", "prompt": ["SAY:SLOW b c d"] * 20, "max_tokens": 9}  # 0.2 s each
        assert one.post("/completions", body | {"prompt": body["prompt"][:2]}).status_code == 200
        for stream in (False, True):
            asked, begun = len(one.script.asked), time.monotonic()
            said = one.post("/completions", body | {"stream": stream})
            assert time.monotonic() - begun < 3  # all twenty would take four
            assert 3 <= len(one.script.asked) - asked < 10
            error = json.loads(said.text.splitlines()[-4][6:])["error"] if stream else said.json()["error"]
            assert said.status_code == (200 if stream else 400)
            assert (error["code"], error["param"]) == ("invalid_value", "prompt")
        until(lambda: one.served.busy == 0)
        assert (one.served.seen.requests, one.served.seen.bad) == (1, 0)  # the caller asked for too much
        assert events(one, "availability") == [True]
        assert one.served.engines[0].unanswered == 0  # nor is its engine one that does not answer
        said = one.post("/completions", body | {"prompt": ["SAY:one", "SAY:HANG"]})
        assert (said.status_code, said.json()["error"]["code"]) == (504, "engine_timeout")  # its engine hangs
        assert events(one, "availability") == [True, False]
        assert one.served.engines[0].unanswered == 1


def test_what_waited_has_its_time_at_the_engine_and_a_stop_waits_for_both(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, **LIMITS | {"queue_s": 3.0}) as one:
        said: list[httpx.Response] = []
        asking = [threading.Thread(target=lambda: said.append(one.ask("SAY:SLOW a b c d e"))) for _ in range(3)]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
        assert [answer.status_code for answer in said] == [200] * 3  # 0.3 s each, one after another
        limits = one.gateway.limits
        assert drain_s(limits) > limits.request_s == 4.0
        assert one.follower.loaded.drain_s == drain_s(limits)


def test_vectors_end_in_time_too(tmp_path: Path, system: Path) -> None:
    with endpoint(tmp_path, system, **LIMITS) as one:
        encoder = Slow()
        vars(one.served.system.index)["encoder"] = encoder
        said = one.post("/embeddings", {"model": "nightshift", "input": ["a"] * 256})
        assert (said.status_code, said.json()["error"]["code"]) == (504, "engine_timeout")
        assert 1 <= encoder.times < 8


@dataclass
class Slow:
    """Encodes a few texts in half a second."""

    width: int = 2
    times: int = 0

    def lengths(self, texts: list[str]) -> list[int]:
        """A token a text."""
        return [1 for _ in texts]

    def encode(self, texts: list[str], first_tokens: int) -> Any:
        """The same vector for all."""
        self.times += 1
        time.sleep(0.5)
        return np.ones((len(texts), self.width), np.float16)


def until(true: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def events(one: Endpoint, sli: str) -> list[bool]:
    """Whether each event of an objective was good, the good ones first, once nothing is under way."""
    until(lambda: not one.front.meters.in_flight._value.get())
    counted = one.front.meters.events
    return [good for good in (True, False) for _ in range(counted[sli, RELEASE.digest, good])]
