"""Ask releases what is known: the questions that a rollout and the correctness objective are judged by.

A question with a known answer goes the way of a client's, through retrieval, prompt, queue and engine, under a key of
its own, so that it waits its fair turn behind clients. While a candidate is tried it and the stable release are asked
the same one after the other, so that a busy machine slows both; else the stable release is asked one every fifteen
seconds. Questions come from the release itself, which was released with the answers that it gave. One that has none
(it answered too little to the judge) is asked about titles of its index: then health alone is judged, by whether and
how fast an answer comes. Whether the stable release answers is an event of availability, so that an outage is seen
while nobody asks; an engine of its that runs and does not answer is killed, so that another one is started instead.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path

from nightshift.counts import TURNS
from nightshift.golden import Golden
from nightshift.serve.follow import Follower
from nightshift.serve.inside import Inside
from nightshift.serve.meters import Meters
from nightshift.serve.pieces import Patience
from nightshift.serve.refused import Refused
from nightshift.serve.served import Served

EVERY_S = 15.0  # a question to the stable release; an answer that has not begun when the next is due, has failed
BETWEEN_S = 0.2  # two of a rollout
KEY = "questions"  # whose turn they take
UNKNOWN = ""  # the wanted answer of a question whose right answer nobody knows
TITLES = 20
# an answer of a candidate that begins later has failed: three in a row take less than half a minute
FIRST_TOKEN_S = 8.0
LONGER = 3  # times as long as the stable release's last answer one of a candidate may take, or FIRST_TOKEN_S
PATIENCE = Patience(EVERY_S, math.inf)  # with the stable release
UNANSWERED = 3  # in a row, by clients too, and an engine is killed
log = logging.getLogger("nightshift.serve")


@dataclass
class Probing:
    """Asks the releases of one follower.

    Args:
        inside: asks them.
        read: the questions of a release's folder.
        grade: whether text and sections answer a question rightly.
        every_s: between two questions to the stable release, seconds.
        sleep: waits, seconds.
    """

    follower: Follower
    meters: Meters
    inside: Inside
    read: Callable[[Path], Sequence[Golden]]
    grade: Callable[[Golden, str, Sequence[str]], bool]
    clock: Callable[[], float]
    every_s: float = EVERY_S
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _questions: dict[str, Iterator[Golden]] = field(default_factory=dict)
    _unknown: set[str] = field(default_factory=set)  # digests whose right answers nobody knows
    _took_s: float = 0.0  # that the stable release's last answer took

    async def probe(self) -> None:
        """Ask, for ever; whether the stable release answered is counted every so often, however often it was asked."""
        follower, due = self.follower, self.clock()
        while True:
            rollout, candidate, stable = follower.rollout, follower.candidate, follower.served
            if counts := self.clock() >= due:
                due = self.clock() + self.every_s
            if rollout and candidate and stable:
                answered = await self._both(candidate, stable)
            elif stable and stable.alive:
                answered = await self._one(stable)
            else:
                answered = False if follower.down else None
            if counts and answered is not None:
                for sli in ("availability", TURNS):
                    self.meters.event(sli, stable.release.digest if stable else "", answered)
            await self.sleep(BETWEEN_S)
            await self._pause(due)

    async def _pause(self, due: float) -> None:
        """Wait until the next question is due, but not when a candidate comes up."""
        while (left := due - self.clock()) > 0 and not self.follower.candidate:
            await self.sleep(min(left, 1.0))

    async def _one(self, stable: Served) -> bool | None:
        """Whether the release that serves answered one question; None where it could not be asked."""
        try:
            known = self._next(stable)
        except Exception:  # its folder cannot be read now: no event
            log.exception("%s cannot be asked what is known", stable.release.version)
            return None
        right, *_ = await self._asked(stable, known, PATIENCE)
        self._relieved(stable)
        if right is not None and stable.release.digest not in self._unknown:
            self.meters.event("correctness", stable.release.digest, right)
        return right is not None

    async def _both(self, candidate: Served, stable: Served) -> bool | None:
        """One question of the candidate's to both; whether the stable release answered, None where it was not asked.

        What the step saw is noted where it still is that step.
        """
        ours, theirs = candidate.seen, stable.seen
        try:
            known = self._next(candidate)
        except Exception:  # whatever is wrong with its questions, it is the candidate's
            log.exception("%s cannot be asked what is known", candidate.release.version)
            ours.question(None, None)
            return None
        patience = Patience(FIRST_TOKEN_S, max(FIRST_TOKEN_S, LONGER * self._took_s))
        ours.question(*await self._asked(candidate, known, patience))
        right, *seconds = await self._asked(stable, known, PATIENCE)
        theirs.question(right, *seconds)
        self._relieved(stable)
        return right is not None

    def _relieved(self, stable: Served) -> None:
        """Kill engines that run and do not answer: who follows the registry starts others."""
        for one in stable.engines:
            if one.alive and one.unanswered >= UNANSWERED:
                one.kill()
                times, version = one.unanswered, stable.release.version
                self.follower.say(f"an engine of {version} did not answer {times} times in a row, and was killed")

    def _next(self, served: Served) -> Golden:
        """The release's next question."""
        digest = served.release.digest
        if digest not in self._questions:
            known = list(self.read(served.system.folder.parent))
            self._unknown |= set() if known else {digest}
            self._questions[digest] = cycle(known or _titles(served))
        return next(self._questions[digest])

    async def _asked(
        self, served: Served, known: Golden, patience: Patience
    ) -> tuple[bool | None, float | None, float | None]:
        """Whether it was answered rightly, None where it was not answered; seconds to the first token, and a token."""
        try:
            said = await hasty(self.inside, patience).ask(served, KEY, known.question)
        except Refused:
            return None, None, None
        except Exception:  # whatever is wrong with a release, it did not answer
            log.exception("%s was asked what is known, and broke", served.release.version)
            return None, None, None
        if served is self.follower.served:
            self._took_s = said.took_s
        right = known.wanted == UNKNOWN or self.grade(known, said.text, said.sections)
        return right, said.first_s, said.token_s


def hasty(inside: Inside, patience: Patience) -> Inside:
    """Asks as this does, and waits no longer than this either."""
    own = inside.patience
    first_s, total_s = min(own.first_token_s, patience.first_token_s), min(own.total_s, patience.total_s)
    return replace(inside, patience=Patience(first_s, total_s))


def _titles(served: Served) -> list[Golden]:
    """Questions about the first titles of a release's index, in the order of ids, whose answers are not known."""
    titles = served.system.index.sections["title"].head(TITLES).to_list() if served.system.settings["sections"] else []
    asked = [f"What is {title.rpartition(' > ')[2]}?" for title in titles] or ["What can you tell me?"]
    return [Golden(str(number), question, "", UNKNOWN, "", False) for number, question in enumerate(asked)]
