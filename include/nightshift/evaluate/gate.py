"""Decide what may be released: a function of the judged rows and the policy, and of nothing else.

One list, and the first that passes is released: the winner, when it is not inferior to the incumbent on any critical
metric and better on one that counts; the refresh, when it is not inferior; with nothing in production plain, as the
baseline, when it is safe. What is missing, not a number, too few or of other items is never a GO, and the smallest
effect that could have been seen is stated. The verdict of the night is the winner's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from nightshift import commit, stage, stats
from nightshift.evaluate.policy import Check, Comparison, Policy
from nightshift.stage import Metrics, Work

GO, NO_GO, INCONCLUSIVE = "GO", "NO-GO", "INCONCLUSIVE"
Values = Mapping[str, float]  # item → value of one metric
Rows = Mapping[tuple[str, str], Values]  # (metric, book) → values


@dataclass
class Entry:
    """What was asked of one candidate, and what came of it."""

    candidate: str
    asked: str
    verdict: str = GO
    reasons: list[str] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)

    def lower(self, verdict: str, reason: str) -> None:
        """Add a reason; NO-GO outweighs INCONCLUSIVE, which outweighs GO."""
        order = [GO, INCONCLUSIVE, NO_GO]
        self.verdict = max(self.verdict, verdict, key=order.index)
        self.reasons.append(reason)


def compare(
    entry: Entry, rule: Comparison, candidate: Rows, reference: Rows, confidence: float = stats.CONFIDENCE
) -> bool:
    """Hold one metric of both against its rule; returns whether the candidate is better for certain.

    `confidence` is that of a gain that counts: 95 % that none of them passes by chance (Bonferroni).
    """
    ours, theirs = (rows.get((rule.metric, rule.book), {}) for rows in (candidate, reference))
    problem = _unusable(rule.min_items, ours, theirs)
    if problem:
        if rule.tier == "critical":
            entry.lower(INCONCLUSIVE, f"{rule.name}: {problem}.")
        return False
    sign = 1 if rule.better == "higher" else -1
    gains = [sign * (ours[item] - theirs[item]) for item in sorted(ours)]
    level = confidence if rule.tier == "supporting" else stats.CONFIDENCE
    found = stats.paired(gains, rule.kind == "binary", level)
    gained = found if level == confidence else stats.paired(gains, rule.kind == "binary", confidence)
    seen, needed = stats.smallest_effect(gains), stats.items_needed(gains, rule.margin)
    entry.metrics.append(
        {
            "metric": rule.metric,
            "book": rule.book,
            "tier": rule.tier,
            "gain": round(found.mean, 6),
            "interval": [round(found.low, 6), round(found.high, 6)],
            "items": found.items,
            "smallest_effect": round(seen, 6),
            "items_needed": needed,
        }
    )
    if rule.tier == "critical":
        if found.high < -rule.margin:
            entry.lower(NO_GO, f"{rule.name} is worse by {-found.mean:.3g}; at most {rule.margin:g} is allowed.")
        elif found.low < -rule.margin:
            entry.lower(
                INCONCLUSIVE,
                f"{rule.name} may be worse by {-found.low:.3g}, and at most {rule.margin:g} is allowed; "
                f"{found.items} items do not tell, about {needed} would.",
            )
    return rule.counts and gained.low > 0


def hold(entry: Entry, rule: Check, candidate: Rows) -> None:
    """Hold one of the candidate's own means against its bounds."""
    values = candidate.get((rule.metric, rule.book), {})
    problem = _unusable(rule.min_items, values)
    if problem:
        entry.lower(INCONCLUSIVE, f"{rule.name}: {problem}.")
        return
    mean = math.fsum(values.values()) / len(values)
    entry.metrics.append({"metric": rule.metric, "book": rule.book, "mean": round(mean, 6), "items": len(values)})
    if rule.least is not None and mean < rule.least:
        entry.lower(NO_GO, f"{rule.name} is {mean:.3g}; at least {rule.least:g} is asked.")
    if rule.most is not None and mean > rule.most:
        entry.lower(NO_GO, f"{rule.name} is {mean:.3g}; at most {rule.most:g} is allowed.")


def better(candidate: str, rows: Rows, reference: Rows, against: str, policy: Policy) -> Entry:
    """Not inferior on any critical metric, and better on at least one that counts."""
    entry = Entry(candidate, f"not worse than {against} where it matters, and better somewhere")
    ways = sum(rule.counts for rule in policy.comparisons)
    level = 1 - (1 - stats.CONFIDENCE) / ways
    improved = [rule.name for rule in policy.comparisons if compare(entry, rule, rows, reference, level)]
    for check in policy.checks:
        hold(entry, check, rows)
    if improved:
        entry.reasons.append(f"Better than {against} on {', '.join(improved)}.")
    else:
        entry.lower(*_no_gain(entry, against, policy))
    return entry


def not_worse(candidate: str, rows: Rows, reference: Rows, against: str, policy: Policy) -> Entry:
    """Not inferior on any critical metric."""
    entry = Entry(candidate, f"not worse than {against} where it matters")
    for rule in policy.comparisons:
        compare(entry, rule, rows, reference)
    for check in policy.checks:
        hold(entry, check, rows)
    if entry.verdict == GO:
        entry.reasons.append(f"Not worse than {against}, with tonight's documents.")
    return entry


def baseline(rows: Rows, policy: Policy) -> Entry:
    """Safe and private; nothing else is asked of the first release of all."""
    entry = Entry("plain", "safe and private, as the baseline")
    for rule in policy.checks:
        measured = bool(rows.get((rule.metric, rule.book)))
        if rule.baseline == "required" or (rule.baseline == "measured" and measured):
            hold(entry, rule, rows)
    if entry.verdict == GO:
        entry.reasons.append("Nothing was in production: the plain system is the baseline.")
    return entry


def decide(roles: Mapping[str, str | None], rows: Mapping[str, Rows], policy: Policy) -> dict[str, Any]:
    """Verdict, entries, and what is released.

    Args:
        roles: winner, refresh, plain, incumbent → digest or None.
        rows: digest → its rows.
    """
    incumbent = roles["incumbent"]
    against, reference = ("the release in production", incumbent) if incumbent else ("plain", roles["plain"])
    entries = [_winner(roles, rows, reference, against, policy)]
    if incumbent and roles["refresh"]:
        entries.append(not_worse("refresh", rows[roles["refresh"]], rows[incumbent], against, policy))
    if not incumbent and roles["plain"]:
        entries.append(baseline(rows[roles["plain"]], policy))
    passed = next((entry.candidate for entry in entries if entry.verdict == GO), None)
    return {"verdict": entries[0].verdict, "releases": passed, "entries": [vars(entry) for entry in entries]}


def run(judged: Path, policy: Path, out: Path, work: Work) -> Metrics:
    """Decide. Raises ParamsError for a policy that cannot be used."""
    said = json.loads((commit.check(judged) / "judged.json").read_text(encoding="utf-8"))
    rows = {
        digest: by_metric(pl.read_parquet(judged / f"{digest}.parquet"))
        for digest in set(said["roles"].values()) - {None}
    }
    decided = decide(said["roles"], rows, Policy.read(policy))
    about = {"policy": commit.sha256(policy), "items": said["items"], "judged_against": said["roles"]["incumbent"]}
    commit.file(out, commit.dumps(decided | about))
    reasons = {entry["candidate"]: entry["reasons"] for entry in decided["entries"]}
    return {"verdict": decided["verdict"], "releases": decided["releases"], "reasons": reasons}


def by_metric(table: pl.DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    """(metric, book) → item → value."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for item, metric, book, value in table.select("item", "metric", "book", "value").iter_rows():
        found.setdefault((metric, book), {})[item] = value
    return found


def _winner(
    roles: Mapping[str, str | None], rows: Mapping[str, Rows], reference: str | None, against: str, policy: Policy
) -> Entry:
    digest = roles["winner"]
    entry = Entry("winner", f"better than {against}")
    if digest is None or reference is None:
        entry.lower(
            INCONCLUSIVE,
            "None of tonight's systems was picked." if digest is None else "There is nothing to compare with.",
        )
    elif digest == reference:
        entry.lower(NO_GO, f"None of tonight's systems did better than {against} on the validation side.")
    else:
        return better("winner", rows[digest], rows[reference], against, policy)
    return entry


def _unusable(least: int, *sides: Values) -> str:
    """Why these values decide nothing; "" when they do."""
    if not all(sides):
        return "it was not measured"
    if any(set(side) != set(sides[0]) for side in sides):
        return "the two were asked different items"
    if not all(math.isfinite(value) for side in sides for value in side.values()):
        return "a value is not a number"
    if len(sides[0]) < least:
        return f"{len(sides[0])} items are too few, at least {least} are needed"
    return ""


def _no_gain(entry: Entry, against: str, policy: Policy) -> tuple[str, str]:
    """NO-GO where a gain worth having would have been seen, else INCONCLUSIVE with the items that would show it."""
    effects = {(rule.metric, rule.book): rule.effect for rule in policy.comparisons if rule.counts}
    measured = [one for one in entry.metrics if (one["metric"], one["book"]) in effects and "gain" in one]
    blind = [one for one in measured if one["smallest_effect"] > effects[one["metric"], one["book"]]]
    if measured and not blind:
        return NO_GO, f"It is not better than {against} on any metric that counts, and a gain would have been seen."
    if not measured:
        return INCONCLUSIVE, f"Whether it is better than {against} was not measured."
    told = ", ".join(f"{one['metric']} from {one['smallest_effect']:.2g}" for one in blind)
    return INCONCLUSIVE, f"No gain over {against} was seen; gains that could have been: {told}."


if __name__ == "__main__":
    stage.main(run)
