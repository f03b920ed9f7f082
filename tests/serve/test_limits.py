"""A key gets what it may ask and no more, what it did not use comes back, and nobody waits behind one who asks much."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from nightshift.serve.limits import REMEMBERED, Account, Guesses, Limiter, Taken, narrower
from nightshift.serve.refused import Refused
from nightshift.serve.turns import Turns
from nightshift.serving import KeyLimits

LIMITS = KeyLimits(concurrency=2, requests_a_minute=6, tokens_a_minute=600)


def take(limiter: Limiter, account: Account, tokens: int) -> Taken:
    taken = limiter.take(account)
    try:
        limiter.more(taken, tokens)
    except Refused:
        taken.give_back(0)
        raise
    return taken


def test_a_minutes_requests_may_come_at_once_and_then_one_every_ten_seconds() -> None:
    limiter = Limiter(LIMITS)
    for _ in range(6):
        take(limiter, limiter.account("a", None, 0.0), 1).give_back(1)
    with pytest.raises(Refused, match="its requests of this minute") as refused:
        take(limiter, limiter.account("a", None, 1.0), 1)
    assert (refused.value.status, refused.value.headers["retry-after"]) == (429, "9")
    assert str(refused.value).endswith("try again in 9 s.")
    assert refused.value.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(Refused, match=r"try again in 1 s\.") as soon:
        take(limiter, limiter.account("a", None, 9.8), 1)
    assert soon.value.headers["retry-after"] == "1"
    take(limiter, limiter.account("a", None, 10.5), 1)
    take(limiter, limiter.account("b", None, 1.0), 1)  # another's account is its own


def test_tokens_that_were_not_used_come_back() -> None:
    limiter = Limiter(LIMITS)
    account = limiter.account("a", None, 0.0)
    taken = take(limiter, account, 500)
    with pytest.raises(Refused, match="its tokens of this minute"):
        take(limiter, account, 200)
    taken.give_back(100)
    taken.give_back(100)  # once is enough
    assert account.tokens.left == 500
    assert account.running == 0
    with pytest.raises(Refused, match="may use 600 a minute"):
        take(limiter, account, 601)


def test_what_was_taken_is_what_was_used_and_what_came_back() -> None:
    drawn = random.Random(3)
    limiter = Limiter(KeyLimits(concurrency=5, requests_a_minute=10_000, tokens_a_minute=1_000_000))
    account, open_, used = limiter.account("a", None, 0.0), [], 0
    for _ in range(2000):
        if len(open_) < 5 and drawn.random() < 0.6:
            open_.append(take(limiter, account, drawn.randint(1, 300)))
        elif open_:
            taken = open_.pop(drawn.randrange(len(open_)))
            spent = drawn.randint(0, taken.tokens)
            used += spent
            taken.give_back(spent)
    assert account.tokens.left == 1_000_000 - used - sum(taken.tokens for taken in open_)
    assert account.running == len(open_)


def test_a_keys_own_limits_are_never_wider() -> None:
    own = KeyLimits(concurrency=1, requests_a_minute=100, tokens_a_minute=10)
    assert narrower(own, LIMITS) == KeyLimits(concurrency=1, requests_a_minute=6, tokens_a_minute=10)
    limiter = Limiter(LIMITS)
    take(limiter, limiter.account("a", own, 0.0), 1)
    with pytest.raises(Refused) as refused:
        take(limiter, limiter.account("a", own, 0.0), 1)
    assert refused.value.code == "concurrency_limit"


def test_a_key_whose_limits_change_keeps_what_is_under_way() -> None:
    """Else what ends after the change frees nothing, and the key is locked out for good."""
    limiter, wide = Limiter(LIMITS), KeyLimits(concurrency=1, requests_a_minute=6, tokens_a_minute=600)
    taken = take(limiter, limiter.account("a", None, 0.0), 100)
    with pytest.raises(Refused, match="under way"):
        limiter.take(limiter.account("a", wide, 0.0))
    taken.give_back(100)
    assert limiter.account("a", wide, 0.0).running == 0
    take(limiter, limiter.account("a", wide, 0.0), 1)


def test_accounts_are_bounded() -> None:
    limiter = Limiter(LIMITS)
    for number in range(REMEMBERED + 50):
        limiter.account(str(number), None, 0.0)
    assert len(limiter.accounts) == REMEMBERED


def test_who_guesses_keys_waits() -> None:
    guesses = Guesses(10)
    for _ in range(10):
        guesses.check("a", 0.0)
        guesses.wrong("a", 0.0)
    with pytest.raises(Refused, match="wrong keys") as refused:
        guesses.check("a", 1.0)
    assert refused.value.status == 429
    guesses.check("b", 1.0)
    guesses.check("a", 7.0)


def served(turns: Turns, asked: list[tuple[str, float]], steps: int) -> list[str]:
    """Whose requests were served in the first `steps` steps of an engine, of those asked at once in this order."""
    order: list[str] = []

    async def one(key: str, cost: float) -> None:
        async with turns.turn(key, cost):
            order.append(key)
            await asyncio.sleep(0)

    async def all_() -> None:
        tasks = [asyncio.create_task(one(*each)) for each in asked]
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(all_())
    return order[:steps]


def test_one_who_asks_much_does_not_make_another_wait() -> None:
    asked = [("greedy", 100.0)] * 30 + [("modest", 100.0)] * 10
    first = Counter(served(Turns(1, 64, 60.0), asked, 20))
    assert first["modest"] >= 9
    assert first["greedy"] <= 12


def test_a_full_queue_sheds_the_last_of_who_has_most_waiting() -> None:
    turns = Turns(1, 4, 60.0)
    order = served(turns, [("greedy", 1.0)] * 6 + [("modest", 1.0)], 10)
    assert Counter(order) == {"greedy": 4, "modest": 1}
    assert turns.shed == 2


def test_who_would_be_shed_is_told_before_any_work_is_done() -> None:
    async def run() -> None:
        turns = Turns(1, 2, 60.0)
        async with turns.turn("greedy", 1.0):
            waiting = [asyncio.create_task(turns._take("greedy", 1.0)) for _ in range(2)]
            await asyncio.sleep(0)
            turns.room("modest")
            with pytest.raises(Refused, match="More is asked"):
                turns.room("greedy")
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            turns.room("greedy")

    asyncio.run(run())


def test_one_that_waited_too_long_is_told_when_to_come_again() -> None:
    async def run() -> Refused:
        turns = Turns(1, 4, 0.05)
        async with turns.turn("a", 1.0):
            with pytest.raises(Refused) as refused:
                async with turns.turn("b", 1.0):
                    raise AssertionError("its turn never comes")
        assert (turns.running, turns.waiting) == (0, 0)
        return refused.value

    said = asyncio.run(run())
    assert (said.status, said.code, "retry-after" in said.headers) == (503, "server_overloaded", True)


def test_who_leaves_while_waiting_gives_the_turn_on() -> None:
    async def run() -> None:
        turns = Turns(1, 4, 60.0)

        async def hold() -> None:
            async with turns.turn("b", 1.0):
                await asyncio.sleep(60)

        async with turns.turn("a", 1.0):
            left = asyncio.create_task(hold())
            await asyncio.sleep(0)
        left.cancel()  # in the very step in which its turn came
        await asyncio.gather(left, return_exceptions=True)
        async with asyncio.timeout(5), turns.turn("c", 1.0):
            assert turns.running == 1
        assert turns.running == 0

    asyncio.run(run())


def test_a_turn_that_comes_as_its_time_is_over_is_given_on() -> None:
    """The deadline passes in the very step in which the turn comes: the turn must not be lost for good."""

    async def run() -> None:
        turns, loop = Turns(1, 4, 0.05), asyncio.get_running_loop()
        await turns._take("a", 1.0)
        late = asyncio.create_task(turns._take("b", 1.0))
        await asyncio.sleep(0)

        def ended() -> None:
            turns.running -= 1
            turns._next()
            assert turns.running == 1  # b's turn came, and b does not know yet

        loop.call_later(0.02, ended)
        ends = loop.time() + 0.1
        while loop.time() < ends:  # a busy loop: both are due at once, the turn before the deadline
            pass
        with pytest.raises(Refused, match="More is asked"):
            await late
        assert turns.running == 0
        async with asyncio.timeout(5), turns.turn("c", 1.0):
            assert turns.running == 1

    asyncio.run(run())


def test_more_engines_take_more() -> None:
    async def run() -> None:
        turns = Turns(1, 4, 60.0)
        async with turns.turn("a", 1.0):
            other = asyncio.create_task(turns._take("b", 1.0))
            await asyncio.sleep(0)
            assert not other.done()
            turns.resize(2)
            await other
            assert turns.running == 2

    asyncio.run(run())
