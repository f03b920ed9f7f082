"""Whether what is asked and answered is still what it was: histograms without a text, and how far they lie apart.

Kept of a question are the length and the words' hashes into 32 buckets, of an answer its length, and how it ended. The
distance is the population stability index against the 28 days before; over 0.2 is a shift by convention, and it must
also be more than chance gives: between samples of n and m from one distribution over b bins PSI / (1/n + 1/m) is
chi-squared with b - 1 degrees of freedom (Yurdakul & Naranjo 2020). n and m are questions, also where words are
counted, since the words of a question come together. Bins with less than 2 % of the reference count as one.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from nightshift import stats
from nightshift.counts import Counts

Outcome = Literal["answered", "abstained", "blocked", "failed"]
OUTCOMES: dict[Outcome, int] = {"answered": 0, "abstained": 1, "blocked": 2, "failed": 3}
OF_QUESTIONS = ("question", "words")  # the same whoever answers; what is answered is compared release by release
OF_ANSWERS = ("answer", "outcome")
BUCKETS = 32
LONGEST = 15  # bucket of 2**14 words and more
DAY, REFERENCE = 1440, 28 * 1440  # minutes
FEWEST = 100  # questions on either side
RARE = 0.02
SURE = 0.999
_WORD = re.compile(r"\w{2,}")


@dataclass(frozen=True)
class Shift:
    """How far one day lies from the 28 before it.

    Args:
        what: question, words, answer or outcome.
        release: whose answers; None for what is asked of all.
        distance: population stability index; None where either side is too small to tell.
        bound: what chance passes once in a thousand times.
        questions: of the day, and of the days before.
    """

    what: str
    release: str | None
    distance: float | None
    bound: float
    questions: tuple[int, int]

    def beyond(self, threshold: float) -> bool:
        """Whether it is a shift."""
        return self.distance is not None and self.distance > max(threshold, self.bound)


def seen(release: str, question: str, answer: str, outcome: Outcome) -> dict[tuple[str, str, int], int]:
    """What is counted of one question and its answer: for Counts.see."""
    counted: Counter[tuple[str, str, int]] = Counter()
    counted[release, "question", _length(question)] += 1
    counted[release, "outcome", OUTCOMES[outcome]] += 1
    if outcome == "answered":
        counted[release, "answer", _length(answer)] += 1
    for word in set(_WORD.findall(question.lower())):
        counted[release, "words", zlib.crc32(word.encode()) % BUCKETS] += 1
    return dict(counted)


def shifts(counts: Counts, last: int) -> list[Shift]:
    """The day that ends with minute `last` against the 28 before it."""
    first = last - DAY
    return _between(counts.seen(first + 60, last), counts.seen(first - REFERENCE + 60, first))


def days(counts: Counts, last: int, threshold: float) -> tuple[int, int]:
    """Of the last 28 days, those without a shift and those that tell anything: each against the other 27."""
    whole = Counter(counts.seen(last - REFERENCE + 60, last))
    good = told = 0
    for day in range(28):
        end = last - day * DAY
        own = counts.seen(end - DAY + 60, end)
        rest = whole - Counter(own)
        found = [one for one in _between(own, rest) if one.distance is not None]
        told += bool(found)
        good += bool(found) and not any(one.beyond(threshold) for one in found)
    return good, told


def _between(day: Mapping[tuple[str, str, int], int], before: Mapping[tuple[str, str, int], int]) -> list[Shift]:
    found = [
        _shift(what, None, _of(day, what), _of(before, what), _asked(day), _asked(before)) for what in OF_QUESTIONS
    ]
    for release in sorted({release for release, *_ in day}):
        own, earlier = _only(day, release), _only(before, release)
        found += [
            _shift(what, release, _of(own, what), _of(earlier, what), _asked(own), _asked(earlier))
            for what in OF_ANSWERS
        ]
    return found


def _shift(what: str, release: str | None, day: Counter[int], before: Counter[int], n: int, m: int) -> Shift:
    if min(n, m) < FEWEST or not day or not before:
        return Shift(what, release, None, 0.0, (n, m))
    common = [one for one, count in before.items() if count / before.total() >= RARE]
    expected, actual = (_shares(one, common) for one in (before, day))
    bound = stats.by_chance(len(expected), n, m, SURE)
    return Shift(what, release, stats.stability(expected, actual), bound, (n, m))


def _shares(counted: Counter[int], common: Iterable[int]) -> list[float]:
    """Shares of the common buckets, and of all others together."""
    shares = [counted[one] / counted.total() for one in common]
    return [*shares, max(0.0, 1 - sum(shares))]


def _of(counted: Mapping[tuple[str, str, int], int], what: str) -> Counter[int]:
    """Bucket → count of one kind, over releases."""
    found: Counter[int] = Counter()
    for (_, kind, bucket), count in counted.items():
        if kind == what:
            found[bucket] += count
    return found


def _only(counted: Mapping[tuple[str, str, int], int], release: str) -> dict[tuple[str, str, int], int]:
    return {key: count for key, count in counted.items() if key[0] == release}


def _asked(counted: Mapping[tuple[str, str, int], int]) -> int:
    """How many questions."""
    return _of(counted, "outcome").total()


def _length(text: str) -> int:
    """Bucket of a text's number of words: 0, 1, 2 to 3, 4 to 7, …"""
    return min(len(text.split()).bit_length(), LONGEST)
