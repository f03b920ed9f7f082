"""How many engines of a release should be warm: what the week expects of the hour, and what is asked right now.

    load of a rate   = requests a second × seconds an answer            Little 1961, L = λW: answers under way
    P(wait)          = C(servers, load), Erlang's formula C (1917), by the recursion of B: B(n) = aB / (n + aB)
    P(wait > t)      = C × exp(-(servers - load) × t / seconds)         Gans, Koole and Mandelbaum 2003, M/M/N
    for the profile  the fewest engines at whose slots P(wait > t) is within the objective
    for the reaction (load of the last minute + what waits, worked off within a minute) / slots / 0.7

The profile is a plan, so it is made for the objective: the formula holds for Poisson arrivals at a steady rate and
exponential times, and is on the safe side for the less varied times of answers. The rate that an hour is planned for is
high among those that were counted in it (QUANTILE), since weeks differ by more than chance. The reaction is for what no
week showed, and for a profile that is not there yet: from one minute's sample it asks for a utilisation and no more.
The larger of both counts. Fewer engines are wanted only when nothing asked for more for a while, as Kubernetes'
autoscaler has it (its stabilisation window): an engine takes long to start and costs little to keep for some minutes.

Nothing here reads a clock or counts anything: the gateway and bench/traffic.py call the same functions.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

from nightshift.deployment import DAYS
from nightshift.hours import BUSY_ENGINE, HOURS
from nightshift.openslo import Objective
from nightshift.serving import Warm

WINDOW_S = 60.0  # what the reaction looks at, and within how long it works off what waits
QUARTER = 15  # minutes
COUNTED = 4  # quarters of an hour of the week that must have been seen before they count: one such hour
QUANTILE = 0.9  # of the quarters seen of an hour of the week
Why = Literal["least", "profile", "reaction", "most"]
# a quarter of an hour, minutes since 1970 // 15 → (requests, minutes in which they were counted)
Quarters = Mapping[int, tuple[int, int]]


def erlang_c(servers: int, load: float) -> float:
    """The share of requests that wait at all, with `load` answers under way on the average; 1 where it never ends."""
    if load >= servers:
        return 1.0
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def late(servers: int, load: float, service_s: float, wait_s: float) -> float:
    """The share of requests that wait for longer than `wait_s`."""
    return erlang_c(servers, load) * math.exp(-max(0.0, servers - load) * wait_s / service_s)


@dataclass(frozen=True)
class Rules:
    """Between which bounds, and how well.

    Args:
        least, most: engines.
        quiet_s: how long nothing must have asked for an engine before it goes.
        wait_s: for its turn, that a request may wait; `late` is the share that may wait longer.
    """

    least: int
    most: int
    quiet_s: float
    wait_s: float
    late: float

    @classmethod
    def of(cls, warm: Warm, promised: Mapping[str, Objective]) -> Rules:
        """serve.warm, and the objective of the first token: half of its time is for waiting, half for the engine.

        Without that objective one in twenty may wait for longer than a second.
        """
        first = promised.get("first_token")
        wait_s, late = (first.threshold / 2, first.budget) if first and first.threshold else (1.0, 0.05)
        return cls(warm.least, warm.most, warm.quiet_s, wait_s, late)


@dataclass(frozen=True)
class Engines:
    """What an engine is like.

    Args:
        slots: answers at a time.
        service_s: seconds an answer, from its turn to its end.
        lead_s: from the start of an engine until it answers.
    """

    slots: int
    service_s: float
    lead_s: float


@dataclass(frozen=True)
class Load:
    """What was asked in the last minute.

    Args:
        rate: requests a second.
        running: answers under way, on the average.
        waiting: requests that wait now.
    """

    rate: float
    running: float
    waiting: int


@dataclass(frozen=True)
class Decision:
    """How many engines, and what asked for them; `said` is that in words."""

    engines: int
    why: Why
    said: str


@dataclass
class Lately:
    """The last minute of a queue, from what it was at every look."""

    _looks: deque[tuple[float, int, int]] = field(default_factory=deque)

    def note(self, now: float, asked: int, running: int, waiting: int) -> Load:
        """It was like this `now`, seconds of a clock that only grows; `asked` counts all requests so far."""
        self._looks.append((now, asked, running))
        while self._looks[0][0] < now - WINDOW_S:
            self._looks.popleft()
        mean = sum(one for _, _, one in self._looks) / len(self._looks)
        return Load((asked - self._looks[0][1]) / WINDOW_S, mean, waiting)


@dataclass(frozen=True)
class Profile:
    """Requests a second that each hour of the week is planned for, from Monday at midnight."""

    rates: tuple[float, ...]
    zone: ZoneInfo

    @classmethod
    def of(cls, quarters: Quarters, expected: Sequence[float], zone: ZoneInfo) -> Profile:
        """From what was counted; an hour of the week that was not is as it is `expected`, requests an hour."""
        seen: list[list[float]] = [[] for _ in range(HOURS)]
        for quarter, (requests, minutes) in quarters.items():
            if minutes:
                seen[hour_of(quarter * QUARTER * 60, zone)].append(requests / minutes / 60)
        rates = [_high(one) if len(one) >= COUNTED else asked / 3600 for one, asked in zip(seen, expected, strict=True)]
        return cls(tuple(rates), zone)

    def busiest(self, at: float, ahead_s: float) -> tuple[float, int]:
        """The highest rate from `at`, seconds since 1970, until `ahead_s` later; and the hour that has it."""
        steps = [*(at + 3600 * number for number in range(math.ceil(ahead_s / 3600))), at + ahead_s]
        return max((self.rates[hour], hour) for hour in {hour_of(one, self.zone) for one in steps})


@dataclass
class Scaling:
    """Decides, look by look."""

    rules: Rules
    profile: Profile
    _wants: deque[tuple[float, Decision]] = field(default_factory=deque)  # that later ones do not outdo

    def decide(self, now: float, at: float, load: Load, engines: Engines) -> Decision:
        """How many engines should be warm.

        Args:
            now: seconds of a clock that only grows, and `at`, seconds since 1970.
        """
        wanted = self._wanted(at, load, engines)
        while self._wants and self._wants[-1][1].engines <= wanted.engines:
            self._wants.pop()
        self._wants.append((now, wanted))
        while self._wants[0][0] < now - self.rules.quiet_s:
            self._wants.popleft()
        return self._wants[0][1]

    def _wanted(self, at: float, load: Load, engines: Engines) -> Decision:
        """What this moment alone asks for, within the bounds."""
        rules, (rate, hour) = self.rules, self.profile.busiest(at, engines.lead_s)
        planned, reacted = needed(rate, engines, rules), answering(load, engines)
        if max(planned, reacted) <= rules.least:
            return Decision(rules.least, "least", f"no fewer than {rules.least} are kept")
        if planned >= reacted:
            named = f"{DAYS[hour // 24].capitalize()} {hour % 24:02}:00"
            found = Decision(planned, "profile", f"the week's profile has {rate:.3g} requests a second at {named}")
        else:
            said = f"{load.running:.1f} answers under way and {load.waiting} requests waiting"
            found = Decision(reacted, "reaction", f"{said}, {load.rate:.3g} a second came in the last minute")
        if found.engines > rules.most:
            return Decision(rules.most, "most", f"{found.said}, and no more than {rules.most} may be warm")
        return found


def needed(rate: float, engines: Engines, rules: Rules) -> int:
    """The fewest engines that keep waiting within the objective at so many requests a second; at most one too many."""
    load, number = rate * engines.service_s, 1
    while number <= rules.most and late(number * engines.slots, load, engines.service_s, rules.wait_s) > rules.late:
        number += 1
    return number


def answering(load: Load, engines: Engines) -> int:
    """Engines that answer what came in the last minute, and what waits within another, with room to spare."""
    under_way = max(load.rate * engines.service_s, load.running)
    backlog = load.waiting * engines.service_s / WINDOW_S
    return max(1, math.ceil((under_way + backlog) / engines.slots / BUSY_ENGINE))


def hour_of(at: float, zone: ZoneInfo) -> int:
    """The hour of the week of seconds since 1970: 0 to 167, from Monday at midnight."""
    local = datetime.fromtimestamp(at, zone)
    return local.weekday() * 24 + local.hour


def _high(rates: list[float]) -> float:
    """The QUANTILE of some rates, by the nearest rank."""
    return sorted(rates)[math.ceil(QUANTILE * len(rates)) - 1]
