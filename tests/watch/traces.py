"""Thirteen synthetic traces that the burn-rate engine and Prometheus' rules are both tried with, and what comes of it.

A trace is a list of stretches: so many minutes with so many valid events a minute, of which so many bad. A check says
which severity is firing once a minute is over; None is nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nightshift.counts import Row

HOUR, DAY = 60, 1440
STEADY = 400  # valid events a minute; 2 bad of them are just what 99.5 % allows


@dataclass(frozen=True)
class Stretch:
    """`minutes` with `valid` events every `every` minutes, `bad` of them bad; None counts nothing at all."""

    minutes: int
    valid: int | None = STEADY
    bad: int = 0
    every: int = 1
    restarts: bool = False  # counters begin anew with it


@dataclass(frozen=True)
class Trace:
    """Stretches one after another, and what fires when: minute → severity."""

    stretches: tuple[Stretch, ...]
    checks: dict[int, str | None]
    sli: str = "availability"
    never: bool = False  # nothing may fire in any minute
    every: int = 5  # minutes between evaluations by Prometheus, whose judge takes seconds for a day by the minute

    @property
    def minutes(self) -> int:
        """Length."""
        return sum(one.minutes for one in self.stretches)

    def counted(self) -> Iterator[tuple[int, int, int] | None]:
        """(good, valid, restarts) of every minute; None for one of which nothing was heard."""
        for one in self.stretches:
            for minute in range(one.minutes):
                if one.valid is None:
                    yield None
                    continue
                due = minute % one.every == 0
                yield (one.valid - one.bad) * due, one.valid * due, int(one.restarts and minute == 0)

    def rows(self, first: int) -> list[Row]:
        """What the gateway would have counted from minute `first` on."""
        return [
            Row(first + place, self.sli, "a" * 64, one[0], one[1])
            for place, one in enumerate(self.counted())
            if one is not None and one[1]
        ]


T = DAY  # where the fault begins, after a day without any
QUIET = Stretch(T)
TRACES = {
    "no fault": Trace((QUIET, Stretch(2 * HOUR)), {T: None, T + 2 * HOUR: None}, never=True),
    # 4.3 minutes by the workbook; clears within the short window and two minutes
    "a total outage": Trace(
        (QUIET, Stretch(5, bad=STEADY), Stretch(20)), {T + 2: None, T + 5: "page", T + 5 + 7: None}, every=1
    ),
    "one in ten fails": Trace((QUIET, Stretch(45, bad=40), Stretch(20)), {T + 35: None, T + 45: "page", T + 55: None}),
    "a total outage that only the endpoint's own questions see": Trace(
        (Stretch(T, 4), Stretch(5, 4, bad=4), Stretch(20, 4)), {T + 2: None, T + 5: "page"}, every=1
    ),
    "a burn of 8": Trace((QUIET, Stretch(5 * HOUR, bad=16)), {T + HOUR: None, T + 255: "page"}),
    "a burn of 5": Trace(
        (QUIET, Stretch(4 * HOUR, bad=10), Stretch(40)),
        {T + 3 * HOUR: None, T + 4 * HOUR: "ticket", T + 4 * HOUR + 30: None},
    ),
    "a burn of 2": Trace((QUIET, Stretch(36 * HOUR, bad=4)), {T + 6 * HOUR: None, T + 36 * HOUR: "ticket"}),
    "half of what is allowed, for thirty days": Trace(
        (Stretch(30 * DAY, bad=1),), {30 * DAY: None}, never=True, every=30
    ),
    "a minute's outage": Trace((QUIET, Stretch(1, bad=STEADY), Stretch(2 * HOUR)), {T + 5: None}, never=True),
    # an hour's outage is four events: too few for a page, and enough of the day's hundred for a ticket
    "hardly any traffic": Trace(
        (Stretch(T, 1, every=15), Stretch(HOUR, 1, 1, every=15), Stretch(7 * HOUR, 1, every=15)),
        {T: None, T + HOUR: "ticket", T + 8 * HOUR: None},
    ),
    "silence": Trace((QUIET, Stretch(20, None)), {T: None, T + 5: None, T + 12: "page", T + 20: "page"}, every=1),
    "a restart": Trace((QUIET, Stretch(2 * HOUR, restarts=True)), {T + 5: None, T + 2 * HOUR: None}, never=True),
    "one answer with personal data": Trace(
        (Stretch(T, 10), Stretch(1, 10, 1), Stretch(40, 10)), {T: None, T + 5: "page", T + 35: "ticket"}, sli="privacy"
    ),
}
