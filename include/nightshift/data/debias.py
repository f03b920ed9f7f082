"""Measure how groups and attributes go together, and weigh the training rows against it.

Reads the training rows; writes them with a weight each. A row speaks of a group when it holds one of its terms and none
of another's. Counts come first: with too few rows that speak of a group nothing is measured and every weight is 1.
Association is the log odds ratio of group and attribute with its 95 % interval (Woolf 1955, a half added to every
count); weights are those of reweighing (Kamiran & Calders 2012): what is seen too often together weighs less.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from nightshift import commit, documents, stage
from nightshift.sections import Debias
from nightshift.stage import Metrics, Work

NONE = "none"


def spoken_of(texts: Sequence[str], terms: Mapping[str, Sequence[str]]) -> list[str]:
    """For every text the one name whose terms it holds; 'none' where there are none or several."""
    looks = {name: re.compile(rf"\b(?:{'|'.join(map(re.escape, words))})\b", re.I) for name, words in terms.items()}
    named = [[name for name, look in looks.items() if look.search(text)] for text in texts]
    return [names[0] if len(names) == 1 else NONE for names in named]


def weights(groups: Sequence[str], attributes: Sequence[str], most: float) -> list[float]:
    """Reweighing, P(group) P(attribute) / P(group, attribute), between 1/most and most, with a mean of 1."""
    rows = [pair for pair in zip(groups, attributes, strict=True) if pair[0] != NONE]
    total, both = len(rows), Counter(rows)
    of_group, of_attribute = Counter(group for group, _ in rows), Counter(attribute for _, attribute in rows)

    def weight(group: str, attribute: str) -> float:
        if group == NONE:
            return 1.0
        raw = of_group[group] * of_attribute[attribute] / (total * both[group, attribute])
        return min(most, max(1 / most, raw))

    raw = [weight(*pair) for pair in zip(groups, attributes, strict=True)]
    mean = sum(raw) / len(raw)
    return [one / mean for one in raw]


def association(
    groups: Sequence[str], attributes: Sequence[str], each: Sequence[float], group: str, attribute: str
) -> dict[str, float]:
    """Log odds ratio of a group against the other groups for one attribute, with its 95 % interval."""
    cells = {(one, other): 0.5 for one in (True, False) for other in (True, False)}
    for one, other, weight in zip(groups, attributes, each, strict=True):
        if one != NONE:
            cells[one == group, other == attribute] += weight
    ratio = math.log(cells[True, True] * cells[False, False] / (cells[True, False] * cells[False, True]))
    half = 1.96 * math.sqrt(sum(1 / count for count in cells.values()))
    return {"log_odds": ratio, "low": ratio - half, "high": ratio + half}


def run(train: Path, out: Path, params: Debias, work: Work) -> Metrics:
    """Weigh the training rows."""
    table = documents.read(train)
    texts = [f"{title}\n{body}" for title, body in table.select("title", "body").iter_rows()]
    groups, attributes = spoken_of(texts, params.groups), spoken_of(texts, params.attributes)
    mentions = {name: groups.count(name) for name in params.groups}
    measured = bool(mentions) and min(mentions.values()) >= params.min_mentions
    even = [1.0] * len(table)
    given = weights(groups, attributes, params.max_weight) if measured else even
    rows = pl.DataFrame({"id": table["id"], "weight": pl.Series(given, dtype=pl.Float64())}).sort("id")
    with commit.folder(out) as draft:
        documents.store(draft / "rows.parquet", table.with_columns(parent=pl.col("id")))
        documents.store(draft / "ledger.parquet", pl.DataFrame(schema=documents.LEDGER))
        documents.store(draft / "weights.parquet", rows)
    metrics: dict[str, Any] = {"sections": len(table), "mentions": mentions}
    if not measured:
        return metrics | {"association": "too few to measure"}
    named = [(group, attribute) for group in params.groups for attribute in params.attributes]
    return metrics | {
        "association": {f"{g}/{a}": association(groups, attributes, even, g, a) for g, a in named},
        "association_weighted": {f"{g}/{a}": association(groups, attributes, given, g, a) for g, a in named},
        "weights": {"smallest": min(given), "largest": max(given)},
    }


if __name__ == "__main__":
    stage.main(run)
