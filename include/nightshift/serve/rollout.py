"""How a release comes to answer everybody, step by step, and what sends it back: a function of what was seen.

A strategy is a list of steps. At each, a share of the keys is answered by the candidate (a key by the same release as
long as the step lasts), or none and its requests are mirrored. A step is passed by enough requests of its own or, where
there is no traffic, by enough questions whose right answers are known, asked of both releases side by side. The first
thing out of bounds sends the candidate back: its engine dies, it errs, it is slower, it answers wrongly. Nothing here
reads a clock or asks anything, so that a minute of it is tested in a millisecond.

Slowness, to the first token and from there on, is by medians of at least TIMED answers of each side: on a machine
that also trains, a 95th percentile of so few is the machine's, and a release that is three times slower moves the
median too. Times are not compared where everybody was left to the candidate at last: many answers at a time wait and
take longer each (sixteen on two cores six times as long, bench/engines.txt), and the stable release has few then.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from nightshift.registry import Release
from nightshift.serving import Rollouts

FELT_S = 0.02  # what comes only so much later is not felt, however many times as long it takes
TOKENS = 100  # of an answer, by whose time that of a token is felt
TIMED = 8  # answers of each side before their times are compared
REMEMBERED = 200  # times of a side that are compared
Verdict = Literal["wait", "advance", "promote"]


@dataclass(frozen=True)
class Step:
    """A share of the keys, percent; at 0 requests may be mirrored."""

    share: int
    mirror: bool = False

    def __str__(self) -> str:
        return f"{self.share} %" if self.share else "shadow" if self.mirror else "questions"


STRATEGIES: dict[str, tuple[Step, ...]] = {
    "canary": (Step(5), Step(25), Step(100)),
    "shadow": (Step(0, mirror=True), Step(100)),
    "blue-green": (Step(0), Step(100)),
    "immediate": (Step(100),),
}


@dataclass
class Seen:
    """What was seen of one release since the step began.

    Args:
        requests: of clients, of which `bad` were not answered whole.
        asked: questions with known answers, of which `right` were answered so, and `failed` not at all.
        first_s: seconds to the first token.
        token_s: seconds between two tokens, an answer's mean.
    """

    requests: int = 0
    bad: int = 0
    asked: int = 0
    right: int = 0
    failed: int = 0
    first_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    token_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def request(self, good: bool, first_s: float | None, token_s: float | None = None) -> None:
        """A client's request ended."""
        self.requests += 1
        self.bad += not good
        if good:
            self._timed(first_s, token_s)

    def question(self, right: bool | None, first_s: float | None, token_s: float | None = None) -> None:
        """A question with a known answer was asked; None where no answer came."""
        self.asked += 1
        self.right += bool(right)
        self.failed += right is None
        self._timed(first_s, token_s)

    def _timed(self, first_s: float | None, token_s: float | None) -> None:
        for known, seconds in ((self.first_s, first_s), (self.token_s, token_s)):
            if seconds:  # what came all at once says nothing of a token
                known.append(seconds)


@dataclass
class Rollout:
    """One candidate on its way.

    Args:
        release: the candidate.
        rules: serve.rollout.
        samples: how many times the requests and questions of `rules` a step needs.
    """

    release: Release
    rules: Rollouts
    begun: float
    samples: int = 1
    place: int = 0
    candidate: Seen = field(default_factory=Seen)
    stable: Seen = field(default_factory=Seen)

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps of the strategy."""
        return STRATEGIES[self.rules.strategy]

    @property
    def step(self) -> Step:
        """The step that it is at."""
        return self.steps[self.place]

    def takes(self, key: str) -> bool:
        """Whether a key is answered by the candidate: the same keys at every step, and more of them."""
        drawn = hashlib.sha256(f"{self.release.digest}\x1f{key}".encode()).digest()
        return int.from_bytes(drawn[:4], "big") % 100 < self.step.share

    def wrong(self, alive: bool) -> str | None:
        """What is out of bounds, in words; None while nothing is."""
        seen, rules = self.candidate, self.rules
        if not alive:
            return "its engine died"
        failed, tried = seen.bad + seen.failed, seen.requests + seen.asked
        if failed >= rules.failures and failed > rules.failing * tried:
            return f"{failed} of {tried} requests were not answered whole"
        if seen.asked >= rules.questions_before and seen.right < rules.right * (seen.asked - seen.failed):
            return f"{seen.right} of {seen.asked - seen.failed} questions with known answers were answered rightly"
        return self._slower()

    def _slower(self) -> str | None:
        """What takes too long, in words; None while nothing does."""
        if self.place and self.step.share == 100:
            return None
        ours, theirs = self.candidate, self.stable
        compared = (
            ("its first token takes", 1, ours.first_s, theirs.first_s),
            (f"{TOKENS} more tokens take", TOKENS, ours.token_s, theirs.token_s),
        )
        for what, times, mine, others in compared:
            if min(len(mine), len(others)) < TIMED:
                continue
            long, usual = times * median(mine), times * median(others)
            if long > self.rules.slower * usual and long - usual > FELT_S:
                return f"{what} {long:.2f} s, {long / usual:.1f} times as long as the stable release's"
        return None

    @property
    def passed(self) -> str:
        """On what a step is passed, in words."""
        seen = self.candidate
        return f"{seen.requests} requests and {seen.asked} questions, {seen.bad + seen.failed} of them not answered"

    def verdict(self, now: float) -> Verdict:
        """Whether to go on, where nothing is wrong."""
        enough = self.samples
        traffic = self.candidate.requests >= self.rules.requests * enough
        asked = self.candidate.asked >= self.rules.questions * enough
        if now - self.begun < self.rules.hold_s or not (traffic or asked):
            return "wait"
        return "promote" if self.place == len(self.steps) - 1 else "advance"

    def advance(self, now: float) -> None:
        """Go to the next step, and look anew."""
        self.place += 1
        self.begun, self.candidate, self.stable = now, Seen(), Seen()
