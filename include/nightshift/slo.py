"""Burn rates, error budgets, and what a spent budget holds back: functions of counts and of a minute that is given.

burn(w) = bad(w) / valid(w) / budget, budget = 1 - target. An alert burns over a long and a short window at once: the
long one says that it matters, the short one that it goes on (Google's SRE workbook, chapter 5, with its 30-day factors
scaled to the window of the objective: share of the budget x window / long window). The workbook's four rows see a burn
of 5 after half a day; what is promised is six hours, so that there is a fifth. Fewer than thirty valid events in the
long window tell nothing.

Silence is a fault: while nothing was heard for ten minutes of an endpoint that is meant to run, the windows stand
still where it was heard last, so that no alert clears and no budget recovers for want of data.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, field_validator, model_validator

from nightshift import invariants, openslo
from nightshift.counts import AHEAD, Counts, Row
from nightshift.openslo import Objective
from nightshift.params import Strict, whole

POLICY = Path("include") / "policies" / "budget.yaml"
FEWEST = 30  # valid events below which a window tells nothing
SILENT = 10  # minutes without a sign of life that are a fault
Severity = Literal["page", "ticket"]
Change = Literal[
    "model", "documents", "parameters", "schema", "dependencies", "configuration", "fix",
    "rollback", "security", "emergency",
]  # fmt: skip


BY_ROLE: Mapping[str, Change] = {"refresh": "documents"}  # what a release of this role changes; others, the model


@dataclass(frozen=True)
class Burn:
    """One row of the alert table: `share` of the budget gone within `long` minutes, and going on for `short`."""

    severity: Severity
    share: float
    long: int
    short: int

    def factor(self, window: int) -> float:
        """Burn rate from which it counts, for an objective over `window` minutes: 14.4 at 30 days for the first."""
        return self.share * window / self.long


BURNS = (
    Burn("page", 0.02, 60, 5),
    Burn("page", 0.05, 6 * 60, 30),
    Burn("ticket", 0.025, 6 * 60, 30),  # ours: a burn of 5 is seen after 3.4 h instead of 13.4
    Burn("ticket", 0.10, 24 * 60, 2 * 60),
    Burn("ticket", 0.10, 3 * 24 * 60, 6 * 60),
)


class Series:
    """Counts of every objective, summed over releases, that tell what any window held in the time of a bisection."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._minutes: dict[str, list[int]] = defaultdict(list)
        self._good: dict[str, list[int]] = defaultdict(lambda: [0])
        self._valid: dict[str, list[int]] = defaultdict(lambda: [0])
        for row in sorted(rows, key=lambda one: one.minute):
            self._minutes[row.sli].append(row.minute)
            self._good[row.sli].append(self._good[row.sli][-1] + row.good)
            self._valid[row.sli].append(self._valid[row.sli][-1] + row.valid)

    def within(self, name: str, last: int, minutes: int) -> tuple[int, int]:
        """(good, valid) of the `minutes` that end with `last`."""
        begin, end = (bisect_right(self._minutes[name], minute) for minute in (last - minutes, last))
        good, valid = self._good[name], self._valid[name]
        return good[end] - good[begin], valid[end] - valid[begin]

    def any(self, name: str) -> bool:
        """Whether there was any event."""
        return bool(self._minutes[name])


@dataclass(frozen=True)
class Alert:
    """Something that is wrong now, in a sentence without its full stop.

    `id` is the same as long as it goes on, and names its kind: health, accuracy, …
    """

    id: str
    severity: Severity
    sentence: str


def burning(objective: Objective, series: Series, now: int) -> tuple[Burn, float] | None:
    """The first row of the table that holds, and the burn rate over its long window; None when all is well."""
    for burn in BURNS if series.any(objective.name) else ():
        rates = []
        for minutes, fewest in ((burn.long, FEWEST), (burn.short, 1)):
            good, valid = series.within(objective.name, now, minutes)
            rates.append((valid - good) / valid / objective.budget if valid >= fewest else 0.0)
        if min(rates) > burn.factor(objective.window):
            return burn, rates[0]
    return None


def alerts(objectives: Iterable[Objective], series: Series, now: int, silent: int | None) -> list[Alert]:
    """What is wrong at minute `now`: one alert for each category whose budget burns, and one for silence.

    A fault shows in several indicators of a category at once; it is one fault. `silent`: minutes without a sign of
    life; None where the endpoint is not meant to run.
    """
    found: list[Alert] = []
    if silent is not None and silent >= SILENT:
        found.append(Alert("silence", "page", f"Nothing was heard of the endpoint for {silent} minutes"))
    by_category: dict[str, list[tuple[Burn, float, Objective]]] = defaultdict(list)
    for one in openslo.counted(objectives):
        if burns := burning(one, series, now - (silent or 0)):
            by_category[one.category].append((*burns, one))
    for category, burns_ in by_category.items():
        severity: Severity = "page" if any(burn.severity == "page" for burn, _, _ in burns_) else "ticket"
        said = "; ".join(f"{one.name} burns {rate:.3g} times its budget ({_long(burn)})" for burn, rate, one in burns_)
        found.append(Alert(category, severity, said))
    return found


def remaining(objective: Objective, good: int, valid: int, minutes: int) -> float | None:
    """Share of the error budget that is left; below 0 when overspent, None for too few events.

    1 - bad / (budget x valid), of a window of which the last `minutes` are known. Where these are not all of it the
    rest counts as if it had been as busy and without a fault: else the first error of the first hour would spend the
    budget of four weeks.
    """
    if valid < FEWEST:
        return None
    return 1 - (valid - good) / (objective.budget * valid * objective.window / minutes)


@dataclass(frozen=True)
class Standing:
    """All that decides whether something may be deployed.

    Args:
        budgets: objective → what is left of its budget, None for too few events.
        quality: those of the objectives that hold back changes of quality alone.
        silent: minutes since the endpoint was heard; None where it is not meant to run.
        broken: invariants that are broken and hold back what is new.
    """

    budgets: Mapping[str, float | None]
    quality: frozenset[str] = frozenset()
    silent: int | None = None
    broken: Sequence[str] = ()

    def worst(self, quality: bool) -> tuple[str, float] | None:
        """The objective with the least left, of quality or of the others; None where none tells."""
        told = [(left, name) for name, left in self.budgets.items() if left is not None]
        found = [one for one in told if (one[1] in self.quality) == quality]
        return min(found)[::-1] if found else None


class Level(Strict):
    """What is held back while more than `above` of a budget is left."""

    above: float | None = Field(le=1, description="Share of the budget; null for the last, which always holds")
    samples: int = Field(ge=1, description="Multiplies what a step of a canary needs")
    holds_back: list[Change]


class Policy(Strict):
    """include/policies/budget.yaml."""

    always: list[Change] = Field(description="Never held back")
    quality: list[Change] = Field(description="Held back by budgets of quality")
    levels: list[Level] = Field(min_length=1, description="The first that holds, from much to little")

    @field_validator("levels")
    @classmethod
    def _descends(cls, value: list[Level]) -> list[Level]:
        bounds = [level.above for level in value]
        if bounds[-1] is not None or None in bounds[:-1] or sorted(bounds[:-1], reverse=True) != bounds[:-1]:  # type: ignore[type-var]
            raise ValueError("levels go from much to little, and the last, and no other, is `above: null`")
        return value

    @model_validator(mode="after")
    def _frees(self) -> Policy:
        held = {change for level in self.levels for change in level.holds_back}
        if "rollback" not in self.always or held & set(self.always):
            raise ValueError("rollback is always let through, and nothing of `always` is ever held back")
        return self

    @classmethod
    def read(cls, root: Path) -> Policy:
        """The policy of a project. Raises ParamsError with file and line."""
        return whole(root / POLICY, cls)

    def level(self, left: float | None) -> Level:
        """The level that holds with so much left; what cannot be told is not spent."""
        return next(one for one in self.levels if one.above is None or left is None or left > one.above)


@dataclass(frozen=True)
class Decision:
    """Whether a change may be deployed, why not, and by how much a canary's samples multiply."""

    allowed: bool
    reason: str = ""
    samples: int = 1


def may_deploy(change: Change, standing: Standing, policy: Policy) -> Decision:
    """What the policy says about one kind of change, as things stand."""
    if change in policy.always:
        return Decision(True)
    if standing.broken:
        return Decision(False, f"an invariant is broken ({', '.join(standing.broken)}); it takes a postmortem")
    if standing.silent is not None and standing.silent >= SILENT:
        return Decision(False, f"nothing was heard of the endpoint for {standing.silent} minutes")
    samples = 1
    for quality in (False, True):
        worst = standing.worst(quality)
        level = policy.level(worst[1] if worst else None)
        samples = max(samples, level.samples)
        if worst and change in level.holds_back and (not quality or change in policy.quality):
            name, left = worst
            return Decision(
                False, f"of the error budget of {name} {left:.0%} is left, and {change} has to wait", samples
            )
    return Decision(True, samples=samples)


def may_release(role: str, home: Path, root: Path, now: int) -> Decision:
    """What the policy of a project says about a release of this role, at minute `now`. Raises ParamsError."""
    return may_deploy(BY_ROLE.get(role, "model"), standing(home, root, now), Policy.read(root))


def silence(counts: Counts, now: int) -> int | None:
    """Minutes since an endpoint that is meant to run was heard; None where it is not."""
    since = counts.since(now)
    return None if since is None else max(0, now - max(counts.heard(now) or since, since))


def series(counts: Counts, now: int, minutes: int) -> Series:
    """The counts of the last `minutes`; what a clock that is a little ahead wrote counts as now."""
    rows = counts.between(now - minutes + 1, now + AHEAD)
    return Series(Row(min(row.minute, now), row.sli, row.release, row.good, row.valid) for row in rows)


def standing(home: Path, root: Path, now: int) -> Standing:
    """How things stand at minute `now`, by the counts of a home and the objectives of a project. Raises ParamsError."""
    counts = Counts(home)
    objectives = openslo.counted(openslo.promised(root).values())
    silent = silence(counts, now)
    at = now - (silent or 0)
    left: dict[str, float | None] = {}
    for window in {one.window for one in objectives}:
        totals = counts.totals(at - window + 1, at + AHEAD)
        for one in (one for one in objectives if one.window == window):
            good, valid, begin = totals.get(one.name, (0, 0, at))
            left[one.name] = remaining(one, good, valid, max(1, at - begin + 1))
    quality = frozenset(one.name for one in objectives if one.category == "accuracy")
    return Standing(left, quality, silent, invariants.holding(home, root))


def _long(burn: Burn) -> str:
    hours = burn.long // 60
    return f"over {hours} h" if hours < 24 else f"over {hours // 24} d"


CHANGES: tuple[Change, ...] = get_args(Change)
