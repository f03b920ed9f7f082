"""Thresholds of speed, proposed from what the endpoint measured: 1.2 times the 95th percentile.

Reads /metrics as it was saved after a stretch of load (and, with a second one from before it, what came between), so
that a machine's own numbers become its promise. The percentile is interpolated inside its bucket, as Prometheus does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from nightshift.errors import DataRefused
from nightshift.slo import FEWEST

SHARE, MARGIN = 0.95, 1.2
# histogram → objectives that its threshold is for, and how many times it
FOR = {
    "nightshift_first_token_seconds": {"first_token": 1, "first_token_tail": 3},
    "nightshift_token_gap_seconds": {"speed": 1},
}
Buckets = Mapping[float, float]  # upper bound → events up to it


@dataclass(frozen=True)
class Proposal:
    """A threshold in seconds for one objective, and the percentile and the number of events that it comes from."""

    objective: str
    threshold: float
    percentile: float
    events: int


def proposed(after: str, before: str = "") -> list[Proposal]:
    """Thresholds by what was measured between two readings of /metrics. Raises DataRefused for too few events."""
    found = []
    for histogram, objectives in FOR.items():
        late, early = read(after, histogram), read(before, histogram)
        buckets = {bound: count - early.get(bound, 0.0) for bound, count in late.items()}
        events = int(max(buckets.values(), default=0))
        if events < FEWEST:
            raise DataRefused(f"{histogram} holds {events} events, and {FEWEST} are needed", "", "load it for longer")
        percentile = quantile(buckets, SHARE)
        found += [Proposal(name, times * MARGIN * percentile, percentile, events) for name, times in objectives.items()]
    return found


def read(text: str, histogram: str) -> dict[float, float]:
    """Buckets of a histogram, summed over its other labels."""
    found: dict[float, float] = defaultdict(float)
    for sample in _samples(text):
        if sample.name == f"{histogram}_bucket":
            found[float(sample.labels["le"])] += sample.value
    return dict(found)


def quantile(buckets: Buckets, share: float) -> float:
    """The value that this share of events stays at or below. Raises DataRefused where it lies beyond the last bound."""
    bounds = sorted(buckets)
    rank = share * buckets[bounds[-1]]
    low = count = 0.0
    for bound in bounds:
        if buckets[bound] >= rank and not math.isinf(bound):
            inside = buckets[bound] - count
            return low + (bound - low) * ((rank - count) / inside if inside else 1.0)
        low, count = bound, buckets[bound]
    raise DataRefused(f"more than {1 - share:.0%} took longer than the last bound tells", "", "load it less")


def _samples(text: str) -> Iterator[Any]:
    for family in text_string_to_metric_families(text):
        yield from family.samples
