"""Write down what the objectives count, minute by minute, where whoever deploys and whoever watches reads it.

Requests note good and valid events (meters.py) and, of an answer, its words; every few seconds a thread scores those
(grounded in its sections? personal data that it was not asked with? how long, how ended?), forgets the words, and adds
the counts. So nobody waits for it, and between two writes nothing is lost but what happened in them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from nightshift import drift, mask, score
from nightshift.counts import Counts
from nightshift.drift import Outcome
from nightshift.errors import NightshiftError
from nightshift.mask import Found
from nightshift.otlp import yielding
from nightshift.serve.meters import Meters
from nightshift.serve.promises import Promises

EVERY_S = 5.0
MOST = 10_000  # answers that wait to be scored; the oldest is lost
log = logging.getLogger("nightshift.serve")


@dataclass(frozen=True)
class Answered:
    """A choice of an answer that left, until it is scored.

    Args:
        sections: bodies that it was answered from; () where none were shown.
        drifts: whether it stands for its question, where it is looked whether what is asked and answered shifts.
    """

    release: str
    question: str
    answer: str
    outcome: Outcome
    sections: tuple[str, ...] = ()
    drifts: bool = True


@dataclass
class Counting:
    """What one endpoint counts.

    Args:
        grounded: share of an answer's words from which it counts as grounded; None counts none.
        promises: looks at each answer for what must never be in one.
        wall: seconds since 1970.
    """

    counts: Counts
    meters: Meters
    wall: Callable[[], float]
    grounded: float | None = None
    promises: Promises | None = None
    answers: deque[Answered] = field(default_factory=lambda: deque(maxlen=MOST))
    _over: bool = False
    _ending: Lock = field(default_factory=Lock)

    @property
    def minute(self) -> int:
        """The minute that it is."""
        return int(self.wall()) // 60

    async def count(self) -> None:
        """Write it down every few seconds, for ever, and that the endpoint is meant to run: a file may be lost."""
        while True:
            try:
                await asyncio.to_thread(self._kept, self._begin)
                await asyncio.to_thread(self.flush)
            except Exception:  # a bug too must not end what counts
                log.exception("nothing was counted this time")
            await asyncio.sleep(EVERY_S)

    def stop(self) -> None:
        """Write down the last, and that it was stopped on purpose."""
        try:
            self.flush()
        except Exception:  # then it was stopped on purpose all the same
            log.exception("the last answers were not counted")
        self._kept(self._end)

    def _begin(self) -> None:
        with self._ending:  # a thread that was under way as all ended must not begin it again
            if not self._over:
                self.counts.begin(self.minute)

    def _end(self) -> None:
        with self._ending:
            self._over = True
            self.counts.end(self.minute)

    def flush(self) -> None:
        """Score what left, and add what was counted. A store that cannot be written loses it, and says so."""
        seen: Counter[tuple[str, str, int]] = Counter()
        left = [self.answers.popleft() for _ in range(len(self.answers))]
        for one in yielding(left):
            seen.update(self._scored(one))
        taken = self.meters.take()
        self._kept(lambda: self._add(taken, seen))

    def _add(self, taken: Mapping[tuple[str, str], tuple[int, int]], seen: Mapping[tuple[str, str, int], int]) -> None:
        self.counts.add(self.minute, taken)
        if seen:
            self.counts.see(self.minute, seen)

    def _scored(self, one: Answered) -> dict[tuple[str, str, int], int]:
        """Note what its objectives say of an answer; what is counted of it for drift."""
        if one.outcome == "answered":
            personal = mask.find(one.answer)
            self.meters.event("privacy", one.release, not personal or _given(one, personal))
            if self.promises is not None:
                self.promises.answer(one.release, one.question, one.answer, one.sections, personal)
            if one.sections and self.grounded is not None:
                enough = score.grounded(one.answer, one.sections) >= self.grounded
                self.meters.event("grounded", one.release, enough)
        return drift.seen(one.release, one.question, one.answer, one.outcome) if one.drifts else {}

    def _kept(self, write: Callable[[], None]) -> None:
        try:
            write()
        except NightshiftError as error:
            log.error("%s", error)


def _given(one: Answered, personal: Sequence[Found]) -> bool:
    """Whether all the personal data of an answer stands in its question or in its sections."""
    given = {text[hit.start : hit.end] for text in (one.question, *one.sections) for hit in mask.find(text)}
    return given.issuperset(one.answer[hit.start : hit.end] for hit in personal)
