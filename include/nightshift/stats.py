"""How sure one can be of a difference: paired intervals, exact bounds, items still needed.

The interval of a paired difference is Student's over the items' differences, which holds for the thirty items and more
that a policy asks for. Where all differences are equal it has no width and proves nothing: then the exact binomial
bound for an event that was never seen (Clopper & Pearson 1934) says how often it could still happen. Whether one side
wins more pairs than chance gives it is the exact sign test's to say, for any number of pairs. A share of events has
Wilson's interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

CONFIDENCE = 0.95
POWER = 0.8  # the usual chance to see an effect that is there


@dataclass(frozen=True)
class Interval:
    """Mean difference over `items` pairs, with its 95 % interval."""

    mean: float
    low: float
    high: float
    items: int


def paired(differences: Sequence[float], binary: bool, confidence: float = CONFIDENCE) -> Interval:
    """The interval of a mean difference. Raises ValueError for none.

    Args:
        differences: candidate minus reference, item by item.
        binary: whether each side is 0 or 1, so that a difference is a change of outcome.
        confidence: that the interval holds the mean.
    """
    size = len(differences)
    if size == 0:
        raise ValueError("no pairs to compare")
    mean = fmean(differences)
    if len(set(differences)) == 1:
        unseen = never(size) if binary else 0.0
        return Interval(mean, mean - unseen, mean + unseen, size)
    half = quantile_t((1 + confidence) / 2, size - 1) * stdev(differences) / math.sqrt(size)
    return Interval(mean, mean - half, mean + half, size)


def never(trials: int) -> float:
    """Largest probability of an event that `trials` trials did not show, at 95 % two-sided confidence."""
    return 1 - ((1 - CONFIDENCE) / 2) ** (1 / trials)


def sign_test(wins: int, losses: int) -> float:
    """One-sided p of the exact paired test: how often chance alone gives the candidate this many wins or more.

    Of pairs with binary outcomes only those that differ say anything, and without an effect each is a fair coin:
    p = sum of C(n, k) / 2**n over k from `wins` to n = wins + losses (McNemar 1947, exact as in Liddell 1983). It holds
    where all differences are equal, and no differing pair is p = 1.
    """
    differing = wins + losses
    return sum(math.comb(differing, more) for more in range(wins, differing + 1)) / 2**differing


def smallest_effect(differences: Sequence[float]) -> float:
    """The effect that this many pairs show with 80 % power at 95 % confidence; infinite for fewer than two."""
    if len(differences) < 2:
        return math.inf
    return (_normal((1 + CONFIDENCE) / 2) + _normal(POWER)) * stdev(differences) / math.sqrt(len(differences))


def items_needed(differences: Sequence[float], effect: float) -> int:
    """Pairs that would show `effect` with 80 % power at 95 % confidence, from the spread of these."""
    spread = stdev(differences) if len(differences) > 1 else 1.0
    return max(len(differences), math.ceil(((_normal((1 + CONFIDENCE) / 2) + _normal(POWER)) * spread / effect) ** 2))


def quantile_t(probability: float, freedom: int) -> float:
    """Quantile of Student's t (scipy's, which the lock holds)."""
    from scipy.stats import t

    return float(t.ppf(probability, freedom))


def stability(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Population stability index of two distributions over the same bins; below 0.1 is stable by convention.

    PSI = sum((a - e) ln(a / e)); empty bins count as 1e-4.
    """
    parts = [(max(e, 1e-4), max(a, 1e-4)) for e, a in zip(expected, actual, strict=True)]
    return sum((a - e) * math.log(a / e) for e, a in parts)


def by_chance(bins: int, one: int, other: int, confidence: float) -> float:
    """The PSI that two samples of these sizes from one distribution stay below with this confidence.

    PSI / (1/one + 1/other) is chi-squared with bins - 1 degrees of freedom (Yurdakul & Naranjo 2020).
    """
    from scipy.stats import chi2

    return float(chi2.ppf(confidence, max(1, bins - 1))) * (1 / one + 1 / other)


def share(good: int, valid: int) -> Interval:
    """A share with its 95 % interval (Wilson 1927), which holds near 0 and 1 and for few events too.

    Raises ValueError for no events.
    """
    if valid < 1:
        raise ValueError("no events to take a share of")
    z, mean = _normal((1 + CONFIDENCE) / 2), good / valid
    middle = (mean + z * z / (2 * valid)) / (1 + z * z / valid)
    half = z / (1 + z * z / valid) * math.sqrt(mean * (1 - mean) / valid + z * z / (4 * valid * valid))
    return Interval(mean, max(0.0, middle - half), min(1.0, middle + half), valid)


def _normal(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
