"""A week of requests, minute by minute: the generated one in bench/week.csv, or what a gateway counted.

    python bench/week.py > bench/week.csv

The week is generated, no endpoint's: a seed, and a shape with what weeks of people at work have. Requests come mostly
from 8 to 18 on five days, with a dip at noon; a weekend has a fifth of a day's; nights have a few. A day is busier or
quieter than its shape by some 15 % (log-normal), each week has 3 % more than the one before, and six times in a week,
at any working hour, two to four times as many come for five to twenty minutes. Counts are Poisson's. Of five such weeks
the last is the recorded one (a line an hour, a number a minute, from Monday at midnight); the four before are what a
gateway would have counted by then.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include")]

from nightshift.counts import KEEP, TURNS, Counts  # noqa: E402
from nightshift.scaling import QUARTER, Quarters  # noqa: E402

FILE = Path(__file__).with_name("week.csv")
SEED, WEEKS, MINUTES = 20_261_130, 5, 7 * 24 * 60
BEGIN = 1_795_996_800 // 60  # minutes since 1970: 2026-11-30, a Monday at midnight, UTC
PEAK = 90.0  # requests a minute in the busiest hour of a middling day
# percent of PEAK in each hour of a working day
SHAPE = (2, 1, 1, 1, 1, 2, 5, 25, 65, 90, 100, 95, 60, 80, 95, 90, 80, 60, 30, 18, 12, 8, 5, 3)
WEEKEND, GROWTH, SPREAD, BURSTS = 0.2, 1.03, 0.15, 6


@dataclass(frozen=True)
class Recorded:
    """A week and what was counted before.

    Args:
        begin: its first minute, since 1970.
        minutes: requests of each of its minutes.
        before: of the weeks before, by quarters of an hour.
        source: where it is from, in words.
    """

    begin: int
    minutes: tuple[int, ...]
    before: Quarters
    source: str


def generated(seed: int = SEED) -> Iterator[tuple[int, ...]]:
    """WEEKS weeks, a number for each minute."""
    drawn = random.Random(seed)
    for week in range(WEEKS):
        rates = [PEAK * GROWTH**week * one for one in _shape(drawn)]
        for _ in range(BURSTS):
            at = drawn.randrange(5) * 1440 + drawn.randrange(8 * 60, 18 * 60)
            factor, length = drawn.uniform(2, 4), drawn.randrange(5, 21)
            rates[at : at + length] = [one * factor for one in rates[at : at + length]]
        yield tuple(_poisson(drawn, one) for one in rates)


def recorded() -> Recorded:
    """The week of bench/week.csv, after those that were generated before it."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    minutes = tuple(int(one) for line in lines for one in line.split(","))
    before: dict[int, tuple[int, int]] = {}
    for number, week in enumerate(list(generated())[:-1]):
        first = (BEGIN - (WEEKS - 1 - number) * MINUTES) // QUARTER
        before |= {
            first + place // QUARTER: (sum(week[place : place + QUARTER]), QUARTER)
            for place in range(0, MINUTES, QUARTER)
        }
    return Recorded(BEGIN, minutes, before, f"generated, seed {SEED}: bench/week.csv")


def counted(home: Path) -> Recorded:
    """The last seven whole days that the gateway of a NIGHTSHIFT_HOME counted, and the weeks before."""
    counts = Counts(home)
    last = counts.heard(2**40)
    if last is None:
        raise SystemExit(f"{counts.path}: no gateway counted anything there; name the NIGHTSHIFT_HOME of one that did.")
    begin = (last // 1440 - 7) * 1440
    minutes = [0] * MINUTES
    for row in counts.between(begin, begin + MINUTES - 1):
        if row.sli == TURNS:
            minutes[row.minute - begin] += row.valid
    before = counts.quarters(TURNS, begin - KEEP, begin - 1)
    return Recorded(begin, tuple(minutes), before, f"counted by the gateway of {home}")


def _shape(drawn: random.Random) -> list[float]:
    """The share of PEAK of every minute of a week; between the middles of two hours it goes straight."""
    found = []
    for day in range(7):
        factor = drawn.lognormvariate(0, SPREAD) * (1 if day < 5 else WEEKEND)
        for minute in range(1440):
            hour, part = divmod((minute - 30) / 60 % 24, 1)
            found.append(factor * (SHAPE[int(hour)] * (1 - part) + SHAPE[(int(hour) + 1) % 24] * part) / 100)
    return found


def _poisson(drawn: random.Random, mean: float) -> int:
    """How many fall into a minute: by multiplying uniform numbers (Knuth), of parts of at most 30."""
    found = 0
    while mean > 0:
        part = min(mean, 30.0)
        mean -= part
        limit, product = math.exp(-part), drawn.random()
        while product > limit:
            found += 1
            product *= drawn.random()
    return found


if __name__ == "__main__":
    *_, week = generated()
    for hour in range(0, MINUTES, 60):
        print(",".join(map(str, week[hour : hour + 60])))
