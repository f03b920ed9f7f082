"""A candidate goes on by what was seen of it, and back by the first thing that is out of bounds."""

from __future__ import annotations

import random

import pytest

from nightshift import params
from nightshift.registry import Release
from nightshift.serve.rollout import STRATEGIES, Rollout
from nightshift.serving import Rollouts
from tests.conftest import ROOT

RULES = params.load(ROOT / "params.yaml", Rollouts)
RELEASE = Release("v0.2.0", "c" * 40, "e" * 64)


def rollout(**changed: object) -> Rollout:
    return Rollout(RELEASE, RULES.model_copy(update=changed), 0.0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_step_is_passed_by_questions_where_nobody_asks(strategy: str) -> None:
    one, now, passed = rollout(strategy=strategy), 0.0, []
    while True:
        assert one.verdict(now) == "wait"
        for _ in range(RULES.questions):
            one.candidate.question(True, 0.2)
            one.stable.question(True, 0.2)
        assert one.verdict(now) == "wait"  # it holds for a while
        now += RULES.hold_s
        passed.append(str(one.step))
        assert one.wrong(alive=True) is None
        if one.verdict(now) == "promote":
            break
        assert one.verdict(now) == "advance"
        one.advance(now)
    assert passed == [str(step) for step in STRATEGIES[strategy]]
    assert passed[-1] == "100 %"


def test_a_step_is_passed_by_requests_alone() -> None:
    one = rollout()
    for _ in range(RULES.requests):
        assert one.verdict(100.0) == "wait"
        one.candidate.request(True, 0.2)
    assert one.verdict(100.0) == "advance"
    one.samples = 2
    assert one.verdict(100.0) == "wait"


def test_at_each_step_its_share_of_the_keys_and_no_key_goes_back_and_forth() -> None:
    one = rollout()
    keys = [f"key{number}" for number in range(5000)]
    taken: set[str] = set()
    for step in one.steps:
        now = {key for key in keys if one.takes(key)}
        assert abs(len(now) / len(keys) - step.share / 100) < 0.02
        assert taken <= now
        taken = now
        if step.share < 100:
            one.advance(0.0)


def test_one_that_errs_goes_back_after_three() -> None:
    one = rollout()
    for _ in range(2):
        one.candidate.request(False, None)
        assert one.wrong(alive=True) is None
    one.candidate.question(None, None)
    assert one.wrong(alive=True) == "3 of 3 requests were not answered whole"


def test_a_few_errors_among_many_are_no_reason() -> None:
    one = rollout()
    for number in range(400):
        one.candidate.request(number % 100 != 0, 0.2)
    assert one.wrong(alive=True) is None


def test_one_that_answers_garbage_well_formed_goes_back() -> None:
    one = rollout()
    for _ in range(4):
        one.candidate.question(False, 0.2)
        assert one.wrong(alive=True) is None
    one.candidate.question(False, 0.2)
    assert one.wrong(alive=True) == "0 of 5 questions with known answers were answered rightly"


def test_a_difference_that_nobody_feels_sends_nothing_back() -> None:
    one = rollout()
    for _ in range(20):
        one.stable.request(True, 0.006)
        one.candidate.request(True, 0.018)
    assert one.wrong(alive=True) is None


def test_one_that_is_three_times_slower_goes_back_and_one_as_fast_on_a_noisy_machine_does_not() -> None:
    drawn = random.Random(5)
    one, slow = rollout(), rollout()
    for _ in range(8):
        for each, factor in ((one, 1.0), (slow, 3.0)):
            each.stable.question(True, drawn.lognormvariate(-1.5, 0.3))
            each.candidate.question(True, factor * drawn.lognormvariate(-1.5, 0.3))
    assert one.wrong(alive=True) is None
    said = slow.wrong(alive=True)
    assert said and "times as long as the stable release's" in said


@pytest.mark.parametrize("usual", [0.1, 0.005])
def test_one_whose_tokens_are_three_times_slower_goes_back_and_one_that_says_all_at_once_does_not(usual: float) -> None:
    one, slow, sudden = rollout(), rollout(), rollout()
    for _ in range(8):
        for each, token_s in ((one, 1.2 * usual), (slow, 3 * usual), (sudden, 0.0)):
            each.stable.request(True, 0.2, usual if each is not sudden else 0.0)
            each.candidate.question(True, 0.2, token_s)
    assert one.wrong(alive=True) is None
    said = f"100 more tokens take {300 * usual:.2f} s, 3.0 times as long as the stable release's"
    assert slow.wrong(alive=True) == said
    assert sudden.wrong(alive=True) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("slow", [(0.2, 0.15), (0.6, 0.05)], ids=["tokens", "first token"])
def test_one_that_answers_everybody_at_last_may_take_longer_than_one_that_few_ask(
    strategy: str, slow: tuple[float, float]
) -> None:
    one = rollout(strategy=strategy)
    for step in one.steps:
        for _ in range(8):
            one.stable.request(True, 0.2, 0.05)
            one.candidate.request(True, *slow)
        assert (one.wrong(alive=True) is None) == (step.share == 100 and strategy != "immediate")
        if step != one.steps[-1]:
            one.advance(0.0)


def test_a_dead_engine_sends_it_back_whatever_was_seen() -> None:
    assert rollout().wrong(alive=False) == "its engine died"
