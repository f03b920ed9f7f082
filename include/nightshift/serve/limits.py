"""How much a key may ask, and how often an address may guess: token buckets, in this process's memory.

A bucket holds a minute's worth and fills evenly. Tokens of an answer are taken whole before it is written, since nobody
knows its length, and what was not used is given back, so that what was taken is what was used (tested). Time is an
argument: seconds of a clock that only grows.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from nightshift.serve.refused import Refused
from nightshift.serving import KeyLimits

MINUTE_S = 60.0
REMEMBERED = 10_000  # keys and addresses whose buckets are kept; the one that was quiet longest is full again anyway


@dataclass
class Bucket:
    """Fills evenly to what a minute allows."""

    a_minute: float
    left: float
    at: float

    def fill(self, now: float) -> None:
        """What came in since it was looked at."""
        self.left = min(self.a_minute, self.left + (now - self.at) * self.a_minute / MINUTE_S)
        self.at = now

    def wait_s(self, wanted: float) -> float:
        """After how many seconds it holds this much."""
        return max(0.0, (min(wanted, self.a_minute) - self.left) * MINUTE_S / self.a_minute)


@dataclass
class Account:
    """What one key has left."""

    limits: KeyLimits
    requests: Bucket
    tokens: Bucket
    running: int = 0

    def headers(self) -> dict[str, str]:
        """OpenAI's headers about what is left; `reset` is when the bucket is full again."""
        said = {}
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            said[f"x-ratelimit-limit-{name}"] = str(int(bucket.a_minute))
            said[f"x-ratelimit-remaining-{name}"] = str(max(0, int(bucket.left)))
            said[f"x-ratelimit-reset-{name}"] = f"{bucket.wait_s(bucket.a_minute):.0f}s"
        return said


@dataclass
class Taken:
    """What a request took from its account; give it back once, with what it used."""

    account: Account
    tokens: int = 0
    given: bool = False

    def give_back(self, used: int) -> None:
        """End the request, which used so many tokens."""
        if not self.given:
            self.given = True
            self.account.running -= 1
            self.account.tokens.left = min(self.account.tokens.a_minute, self.account.tokens.left + self.tokens - used)


@dataclass
class Limiter:
    """The accounts of all keys."""

    default: KeyLimits
    accounts: OrderedDict[str, Account] = field(default_factory=OrderedDict)

    def account(self, key: str, own: KeyLimits | None, now: float) -> Account:
        """The account of a key, filled up to now; a key's own limits hold where they are narrower."""
        found = self.accounts.get(key)
        limits = narrower(own, self.default)
        requests, tokens = (Bucket(one, one, now) for one in (limits.requests_a_minute, limits.tokens_a_minute))
        if found is None:
            found = self.accounts[key] = Account(limits, requests, tokens)
            self._forget()
        elif found.limits != limits:  # the same account: what is under way gives back to it
            found.limits, found.requests, found.tokens = limits, requests, tokens
        self.accounts.move_to_end(key)
        found.requests.fill(now)
        found.tokens.fill(now)
        return found

    def take(self, account: Account) -> Taken:
        """Take one request. Raises Refused when none is left."""
        most = account.limits.concurrency
        if account.running >= most:
            message = f"This key has {most} requests under way, as many as it may."
            raise Refused("concurrency_limit", message, again_s=1, headers=account.headers())
        _left(account, account.requests, "requests", 1)
        account.requests.left -= 1
        account.running += 1
        return Taken(account)

    def more(self, taken: Taken, tokens: int) -> None:
        """Take tokens for a request, before they are used. Raises Refused when they are not left."""
        account = taken.account
        most = account.limits.tokens_a_minute
        if tokens > most:
            message = f"This asks for {tokens} tokens, and the key may use {most} a minute."
            raise Refused("rate_limit_exceeded", message, again_s=MINUTE_S, headers=account.headers())
        _left(account, account.tokens, "tokens", tokens)
        account.tokens.left -= tokens
        taken.tokens += tokens

    def _forget(self) -> None:
        if len(self.accounts) <= REMEMBERED:
            return
        idle = [key for key, one in self.accounts.items() if not one.running]
        for key in idle[: len(self.accounts) - REMEMBERED]:
            del self.accounts[key]


@dataclass
class Guesses:
    """Wrong keys by address: past so many a minute a wrong one is not even looked at; a right one is let in."""

    a_minute: int
    buckets: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)

    def check(self, address: str, now: float) -> None:
        """Raises Refused for an address that guessed too often."""
        bucket = self.buckets.get(address)
        if bucket is None:
            return
        bucket.fill(now)
        if bucket.left < 1:
            wait = bucket.wait_s(1)
            raise Refused("rate_limit_exceeded", "Too many wrong keys came from this address.", again_s=wait)

    def wrong(self, address: str, now: float) -> None:
        """Count a wrong key."""
        bucket = self.buckets.setdefault(address, Bucket(self.a_minute, self.a_minute, now))
        self.buckets.move_to_end(address)
        bucket.fill(now)
        bucket.left -= 1
        while len(self.buckets) > REMEMBERED:
            self.buckets.popitem(last=False)


def _left(account: Account, bucket: Bucket, what: str, wanted: float) -> None:
    """Raises Refused when a bucket does not hold this much."""
    if bucket.left < wanted:
        wait = bucket.wait_s(wanted)
        message = f"This key has used its {what} of this minute; try again in {math.ceil(wait)} s."
        raise Refused("rate_limit_exceeded", message, again_s=wait, headers=account.headers())


def narrower(own: KeyLimits | None, default: KeyLimits) -> KeyLimits:
    """The smaller of each limit."""
    if own is None:
        return default
    each = {name: min(getattr(own, name), getattr(default, name)) for name in KeyLimits.model_fields}
    return KeyLimits(**each)
