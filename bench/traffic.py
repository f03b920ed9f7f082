"""What a week of requests waits, and how long engines run for it: fixed numbers of engines, reaction, profile.

    python bench/traffic.py [--counts HOME] [--days 7] [--out bench/traffic.json]

Replays the week of bench/week.py (or, with --counts, the last one that a gateway counted in that NIGHTSHIFT_HOME) by
discrete-event simulation on a clock of its own: requests come at random within their minute, are given to the least
busy engine, wait in a queue as long and for as long as serve.limits has it, and are shed then. An answer's time is
log-normal. Every policy meets the same requests with the same times. It looks every two seconds, as the gateway does,
and asks what the gateway asks (scaling.py); an engine costs from its start until its last answer is out. All of it
twice, with engines that start in half a minute and in three. The policies:

    fixed, most             as many engines as may be warm, always
    fixed, mean             as many as profile and reaction have on the average, rounded up: no cheaper than they are
    reaction                the last minute alone
    profile and reaction    what the gateway does, after four weeks
    first week              the same before anything was counted: what params.yaml says of traffic, and reaction

Engines here are slower and fewer at a time than real ones may be: what is compared is the policies. It takes a minute.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from zoneinfo import ZoneInfo

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include")]

from bench.night import machine  # noqa: E402
from bench.week import Recorded, counted, recorded  # noqa: E402

from nightshift import hours, openslo, params  # noqa: E402
from nightshift.deployment import Busy, Traffic  # noqa: E402
from nightshift.scaling import QUARTER, Engines, Lately, Load, Profile, Quarters, Rules, Scaling  # noqa: E402
from nightshift.serve.loaded import LOOK_EVERY_S  # noqa: E402
from nightshift.serving import Limits, Warm  # noqa: E402

SEED = 4
KIND = Engines(slots=2, service_s=4.0, lead_s=30.0)
LEADS_S = (30.0, 180.0)  # from an engine's start to its first answer
SPREAD = 0.6  # standard deviation of an answer's time over its mean
WARM = Warm(least=1, most=8, quiet_s=600.0)
UTC = ZoneInfo("UTC")


class Policy(Protocol):
    """How many engines should be warm: `now` seconds after the week began, `at` seconds since 1970."""

    def __call__(self, now: float, at: float, load: Load) -> int:
        """The number."""


@dataclass
class Learning:
    """What the gateway does: scaling.py, and a profile that is made anew every quarter of an hour."""

    kind: Engines
    scaling: Scaling
    expected: Sequence[float]
    quarters: dict[int, tuple[int, int]]
    coming: Quarters  # of the week that is replayed: known when they are over
    _quarter: int = 0

    def __call__(self, now: float, at: float, load: Load) -> int:
        """The number."""
        quarter = int(at) // (QUARTER * 60)
        if quarter != self._quarter:
            self._quarter = quarter
            if (over := self.coming.get(quarter - 1)) is not None:
                self.quarters[quarter - 1] = over
            self.scaling.profile = Profile.of(self.quarters, self.expected, UTC)
        return self.scaling.decide(now, at, load, self.kind).engines


@dataclass(eq=False)
class Engine:
    """One that answers; `running` answers are under way."""

    began: float
    running: int = 0
    leaving: bool = False


@dataclass
class Replay:
    """One policy in one week.

    Args:
        queue: requests that wait, at most, and `wait_s` how long.
        waits: seconds, of requests that were answered.
        shed: requests that were not.
        engine_s: seconds that engines ran.
        most: engines that were warm at a time.
    """

    policy: Policy
    kind: Engines
    at: float
    queue: int
    wait_s: float
    waits: list[float] = field(default_factory=list)
    asked: int = 0
    shed: int = 0
    engine_s: float = 0.0
    most: int = 0
    _warm: list[Engine] = field(default_factory=list)
    _starting: int = 0
    _running: int = 0
    _waiting: deque[tuple[float, float]] = field(default_factory=deque)  # when it came, and its time
    _events: list[tuple[float, int, Engine]] = field(default_factory=list)  # an end of an answer, or of a start
    _number: int = 0

    def run(self, requests: Iterable[tuple[float, float]], engines: int, until: float) -> None:
        """Replay requests, each when it comes and how long its answer takes; then let what is under way end."""
        self._warm = [Engine(0.0) for _ in range(engines)]
        lately, look = Lately(), 0.0
        for came, takes in requests:
            while look <= came:
                self._until(look)
                self._look(look, lately)
                look += LOOK_EVERY_S
            self._until(came)
            self._ask(came, takes)
        self._until(math.inf)
        self.shed += len(self._waiting)
        self.engine_s += sum(max(0.0, until - one.began) for one in self._warm)

    def _ask(self, now: float, takes: float) -> None:
        """A request comes."""
        self.asked += 1
        self._expire(now)
        if not self._waiting and (engine := self._free()):
            self._answer(now, now, takes, engine)
        elif len(self._waiting) < self.queue:
            self._waiting.append((now, takes))
        else:
            self.shed += 1

    def _look(self, now: float, lately: Lately) -> None:
        """Have as many engines as the policy says."""
        self._expire(now)
        load = lately.note(now, self.asked, self._running, len(self._waiting))
        wanted = self.policy(now, self.at + now, load)
        for _ in range(wanted - len(self._warm) - self._starting):
            self._starting += 1
            self._push(now + self.kind.lead_s, Engine(now))
        while len(self._warm) > wanted:
            one = min(self._warm, key=lambda engine: engine.running)
            self._warm.remove(one)
            one.leaving = True
            self._stop(now, one)
        self.most = max(self.most, len(self._warm))

    def _until(self, now: float) -> None:
        """Let happen what happens until then."""
        while self._events and self._events[0][0] <= now:
            at, number, engine = heapq.heappop(self._events)
            if number < 0:
                self._starting -= 1
                self._warm.append(engine)
            else:
                engine.running -= 1
                self._running -= 1
                self._stop(at, engine)
            self._expire(at)
            while self._waiting and (free := self._free()):
                came, takes = self._waiting.popleft()
                self._answer(at, came, takes, free)

    def _answer(self, now: float, came: float, takes: float, engine: Engine) -> None:
        self.waits.append(now - came)
        engine.running += 1
        self._running += 1
        self._push(now + takes, engine, ends=True)

    def _push(self, at: float, engine: Engine, ends: bool = False) -> None:
        """An event; the sign of its number says which of both."""
        self._number += 1
        heapq.heappush(self._events, (at, self._number if ends else -self._number, engine))

    def _free(self) -> Engine | None:
        """The least busy engine that has room."""
        one = min(self._warm, key=lambda engine: engine.running, default=None)
        return one if one and one.running < self.kind.slots else None

    def _expire(self, now: float) -> None:
        """Who waited for too long is shed."""
        while self._waiting and self._waiting[0][0] + self.wait_s < now:
            self._waiting.popleft()
            self.shed += 1

    def _stop(self, now: float, engine: Engine) -> None:
        """An engine that leaves ends with its last answer."""
        if engine.leaving and not engine.running:
            self.engine_s += now - engine.began


def requests(minutes: Sequence[int]) -> Iterator[tuple[float, float]]:
    """Seconds after the begin at which each comes, in order, and how long its answer takes."""
    drawn = random.Random(SEED)
    spread = math.sqrt(math.log(1 + SPREAD**2))
    middle = math.log(KIND.service_s) - spread**2 / 2
    for minute, number in enumerate(minutes):
        for at in sorted(drawn.uniform(0, 60) for _ in range(number)):
            yield minute * 60 + at, drawn.lognormvariate(middle, spread)


def quarters(begin: int, minutes: Sequence[int]) -> Quarters:
    """What a gateway counts of these minutes."""
    places = range(0, len(minutes), QUARTER)
    return {(begin + one) // QUARTER: (sum(minutes[one : one + QUARTER]), QUARTER) for one in places}


def said(minutes: Sequence[int]) -> Traffic:
    """The week as somebody would put it into params.yaml: a round number a day, mostly from 8 to 18 on five days."""
    busy = Busy(days=["mon", "tue", "wed", "thu", "fri"], from_hour=8, to_hour=18, share=0.8)
    days = sorted(sum(minutes[one : one + 1440]) for one in range(0, len(minutes), 1440))
    middle = days[len(days) // 2]
    digits = 10 ** (len(str(middle)) - 1)
    return Traffic(
        users=100, requests_a_day=round(middle / digits) * digits, seconds_an_answer=KIND.service_s, busy=busy
    )


def compare(week: Recorded, kind: Engines, days: int = 7) -> list[dict[str, Any]]:
    """The policies over the first days of a week."""
    minutes = week.minutes[: days * 1440]
    rules = Rules.of(WARM, openslo.read(ROOT / openslo.FOLDER))
    limits = params.load(ROOT / params.FILE, Limits)
    bound = 2 * rules.wait_s
    expected = hours.week(said(week.minutes))
    coming = quarters(week.begin, minutes)

    def learning(before: Quarters) -> Learning:
        return Learning(kind, Scaling(rules, Profile.of(before, expected, UTC)), expected, dict(before), coming)

    def replayed(policy: Policy, engines: int) -> Replay:
        made = Replay(policy, kind, week.begin * 60, limits.queue, limits.queue_s)
        made.run(requests(minutes), engines, len(minutes) * 60)
        return made

    def fixed(number: int) -> Replay:
        return replayed(lambda now, at, load: number, number)

    reaction = Scaling(rules, Profile((0.0,) * hours.HOURS, UTC))
    ours = replayed(learning(week.before), rules.least)
    mean = math.ceil(ours.engine_s / len(minutes) / 60)
    found = {
        "fixed, most": fixed(rules.most),
        f"fixed, mean ({mean})": fixed(mean),
        "reaction": replayed(lambda now, at, load: reaction.decide(now, at, load, kind).engines, rules.least),
        "profile and reaction": ours,
        "first week": replayed(learning({}), rules.least),
    }
    return [{"starts_s": kind.lead_s} | row(name, one, bound) for name, one in found.items()]


def row(name: str, one: Replay, bound: float) -> dict[str, Any]:
    """The figures of one policy."""
    waits = sorted(one.waits)
    over = sum(wait > bound for wait in waits) + one.shed
    quantiles = {f"wait_p{p}_s": round(waits[min(len(waits) - 1, len(waits) * p // 100)], 2) for p in (50, 99)}
    return {
        "policy": name,
        "engine_hours": round(one.engine_s / 3600, 1),
        "requests": one.asked,
        "answered": len(waits),
        "shed": one.shed,
        "late": round(over / one.asked, 5),
        **quantiles,
        "most_engines": one.most,
    }


def table(rows: Sequence[dict[str, Any]], bound: float) -> Iterator[str]:
    """The figures, to be read."""
    over = f"over {bound:g} s or shed"
    for lead_s in dict.fromkeys(one["starts_s"] for one in rows):
        yield f"an engine starts in {lead_s:3g} s  engine-hours  {over:>19}  wait p50  wait p99    shed"
        for one in rows:
            if one["starts_s"] == lead_s:
                waits = f"{one['wait_p50_s']:6.2f} s  {one['wait_p99_s']:6.2f} s"
                yield f"{one['policy']:28} {one['engine_hours']:12,.1f} {one['late']:20.2%}  {waits}  {one['shed']:6,}"


def main() -> None:
    """Run it and write the figures."""
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    read.add_argument("--counts", type=Path, help="a NIGHTSHIFT_HOME whose last week is replayed instead")
    read.add_argument("--days", type=int, default=7, choices=range(1, 8))
    read.add_argument("--out", type=Path, default=ROOT / "bench" / "traffic.json")
    asked = read.parse_args()
    week, begun = counted(asked.counts) if asked.counts else recorded(), time.perf_counter()
    rows = [one for lead_s in LEADS_S for one in compare(week, replace(KIND, lead_s=lead_s), asked.days)]
    rules = Rules.of(WARM, openslo.read(ROOT / openslo.FOLDER))
    about = {
        "machine": machine(), "took_s": round(time.perf_counter() - begun, 1), "week": week.source,
        "rules": asdict(rules), "engine": asdict(KIND) | {"spread": SPREAD},
    }  # fmt: skip
    shown = "\n".join(table(rows, 2 * rules.wait_s)) + "\n"
    asked.out.write_text(json.dumps(about | {"rows": rows}, indent=2) + "\n", encoding="utf-8")
    asked.out.with_suffix(".txt").write_text(shown, encoding="utf-8")
    print(shown, end="")


if __name__ == "__main__":
    main()
