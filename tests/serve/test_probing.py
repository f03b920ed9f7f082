"""What is known is asked of what serves and of what is tried, side by side; what nobody knows tells health alone."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nightshift import golden, params, port
from nightshift.counts import TURNS
from nightshift.golden import Golden
from nightshift.registry import Release
from nightshift.serve import probing
from nightshift.serve.pieces import Patience
from nightshift.serve.probing import Probing
from nightshift.serve.rollout import Rollout
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serving import Rollouts
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import ROWS, Endpoint, Script, _app, _chunk, _running, endpoint

RELEASE = Release("v0.2.0", "c" * 40, "e" * 64)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Endpoint]:
    system = models.system(tmp_path / "release" / "plain", ROOT, ROWS)
    with endpoint(tmp_path / "served", system, slots=2) as one:
        one.follower.candidate = Served(RELEASE, one.served.system, one.served.engines, Turns(2, 9, 9.0))
        one.follower.rollout = Rollout(RELEASE, params.load(ROOT / "params.yaml", Rollouts), 0.0)
        yield one


def probed(one: Endpoint, questions: int, failed: int = 0) -> Rollout:
    """Probe until both were asked so many, and the candidate did not answer so many."""
    rollout, candidate = one.follower.rollout, one.follower.candidate
    assert rollout and candidate
    candidate.seen, one.served.seen = rollout.candidate, rollout.stable
    gateway = one.gateway
    asking = Probing(one.follower, one.front.meters, gateway.inside, golden.read, golden.grade, time.monotonic, 0.01)

    async def run() -> None:
        task = asyncio.create_task(asking.probe())
        async with asyncio.timeout(20):
            while (rollout.stable.asked < questions or rollout.candidate.failed < failed) and not task.done():
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await gateway.close()

    asyncio.run(run())
    return rollout


def known(one: Endpoint, said: str) -> None:
    """The release knows one answer."""
    asked = Golden("g", "When is the pump oiled?", "x", said, said, False)
    (one.served.system.folder.parent / golden.FILE).write_text(json.dumps([asked.as_json()]))


def test_an_answer_that_is_known_is_right_and_another_is_wrong(running: Endpoint) -> None:
    hits = running.served.system.sections("When is the pump oiled?")
    echoed = running.served.system.messages("When is the pump oiled?", hits)[-1]["content"]
    known(running, echoed)
    seen = probed(running, 2)
    assert seen.candidate.right == seen.candidate.asked >= 2
    assert seen.candidate.failed == 0 and len(seen.candidate.first_s) == len(seen.stable.first_s) >= 2


def test_garbage_is_wrong(running: Endpoint) -> None:
    known(running, "Every Tuesday, by nobody.")
    seen = probed(running, 2)
    assert (seen.candidate.right, seen.candidate.failed) == (0, 0)


def test_an_engine_that_gives_no_answer_has_failed(running: Endpoint) -> None:
    asked = Golden("g", "REFUSE", "x", "a", "a", False)
    (running.served.system.folder.parent / golden.FILE).write_text(json.dumps([asked.as_json()]))
    seen = probed(running, 2)
    assert seen.candidate.failed == seen.candidate.asked >= 2


def test_a_candidate_whose_questions_cannot_be_read_has_failed(running: Endpoint) -> None:
    folder = running.served.system.folder.parent
    other = folder / "other" / "plain"
    other.mkdir(parents=True)
    (other.parent / golden.FILE).write_text("[{")
    candidate = running.follower.candidate
    assert candidate
    candidate.system = replace(candidate.system, folder=other)
    seen = probed(running, 0, failed=3)
    assert seen.candidate.failed == seen.candidate.asked >= 3


def test_a_candidate_that_breaks_before_it_is_asked_has_failed(running: Endpoint) -> None:
    candidate = running.follower.candidate
    assert candidate
    candidate.system = replace(candidate.system, settings={"sections": True})  # lacks what an answer needs
    known(running, "Every Monday.")
    seen = probed(running, 2)
    assert seen.candidate.failed == seen.candidate.asked >= 2
    assert seen.stable.failed == 0


def test_what_goes_wrong_once_does_not_end_the_questions(running: Endpoint) -> None:
    running.follower.candidate = running.follower.rollout = None
    read, wrong = golden.read, [OSError("once")]

    def reads(folder: Path) -> Sequence[Golden]:
        if wrong:
            raise wrong.pop()
        return read(folder)

    known(running, "Every Monday.")
    meters = running.front.meters
    asking = Probing(running.follower, meters, running.gateway.inside, reads, golden.grade, time.monotonic, 0.01)

    async def run() -> None:
        task = asyncio.create_task(asking.probe())
        async with asyncio.timeout(10):
            while not meters.events and not task.done():
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await running.gateway.close()

    asyncio.run(run())
    assert not wrong
    assert {sli for sli, _, _ in meters.events} == {"availability", "correctness", TURNS}


class Stalls(Script):
    """Says so many words, and then nothing more."""

    words = 0

    async def _words(self, said: str, chat: bool, count: int) -> Any:
        for word in ["the", "pump"][: self.words]:
            yield _chunk(chat, word, None, 0)
        await asyncio.sleep(60)


@pytest.mark.parametrize("words", [0, 2])
def test_a_candidate_that_hangs_or_stalls_midway_has_failed_within_half_a_minute(
    words: int, running: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = params.load(ROOT / "params.yaml", Rollouts)
    assert rules.failures * probing.FIRST_TOKEN_S < 30
    monkeypatch.setattr(probing, "FIRST_TOKEN_S", 0.5)
    known(running, "Every Monday.")
    stalls, candidate = Stalls(), running.follower.candidate
    stalls.words = words
    assert candidate
    with _running([(_app(stalls), port.unused(), None)]) as [url]:
        candidate.engines = [replace(candidate.engines[0], url=url)]
        seen = probed(running, 0, failed=rules.failures)
    assert seen.candidate.failed == seen.candidate.asked >= len(stalls.asked) - 1 > 0
    assert seen.stable.failed == 0


def test_a_candidate_may_take_as_long_as_the_stable_release_and_some_more(running: Endpoint) -> None:
    """What its machine makes slow it makes slow for both."""
    inside = running.gateway.inside
    assert probing.hasty(inside, Patience(8.0, 40.0)).patience == Patience(8.0, 40.0)
    assert probing.hasty(inside, Patience(900.0, math.inf)).patience == running.gateway.patience


def test_a_release_that_knows_nothing_is_asked_about_its_titles(running: Endpoint) -> None:
    seen = probed(running, 4)
    assert seen.candidate.right == seen.candidate.asked >= 4
    asked = [one["messages"][-1]["content"] for one in running.script.asked]
    assert any("What is Maintenance?" in one for one in asked)
