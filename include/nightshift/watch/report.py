"""One report: how every release does, health beside accuracy, and what is promised of nights.

From the counts, the histograms, the feedback and the records of nights; written to NIGHTSHIFT_STATE/watch/report.json.
Shares have Wilson's 95 % interval. It holds no text of a question, an answer or a correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nightshift import drift, feedback, invariants, openslo, registry, rollouts, slo, stats
from nightshift.counts import Counts
from nightshift.drift import Shift
from nightshift.openslo import Objective
from nightshift.rollouts import Entry
from nightshift.sections import Night
from nightshift.slo import Alert, Standing
from nightshift.watch import nights
from nightshift.watch.alerts import merged
from nightshift.watch.nights import Ended

FILE = Path("watch") / "report.json"
DAY, WINDOW = 1440, 28 * 1440  # minutes
LONGEST = max(burn.long for burn in slo.BURNS) + DAY  # of a window, and of silence before which it stands still
NONE = (0, 0)
Sums = Mapping[tuple[str, str], tuple[int, int]]  # (objective, release) → (good, valid)


@dataclass(frozen=True)
class Looked:
    """All that a report and the alerts are made from, read once."""

    now: int  # seconds since 1970
    objectives: Mapping[str, Objective]
    month: Sums  # of the last 28 days
    day: Sums  # of the last of them
    standing: Standing
    burning: Sequence[Alert]
    broken: Mapping[str, str]
    shifts: Sequence[Shift]
    drift_days: tuple[int, int]
    ended: Sequence[Ended]
    due: Sequence[float]
    late: Sequence[str]
    feedback: Mapping[str, tuple[int, int]]  # release → (good, all)
    versions: Mapping[str, str]  # digest → version
    serving: str | None
    candidate: Entry | None

    @property
    def minute(self) -> int:
        """Minutes since 1970."""
        return self.now // 60

    @property
    def alerts(self) -> list[Alert]:
        """Everything that is wrong now."""
        found = [*self.burning, *nights.alerts(self.ended, self.due, self.within, self.now, self.late)]
        found += [Alert(f"invariant {name}", "page", f"{name} broke: {what}") for name, what in self.broken.items()]
        if (back := self.candidate) is not None and back.sent_back:
            said = f"{back.version} went back at {back.step}: {back.told.rstrip('.')}"
            found.append(Alert(f"back {back.digest[:12]} {back.time:.0f}", "ticket", said))
        threshold = self.objectives["drift"].threshold or 0.0
        if beyond := [one for one in self.shifts if one.beyond(threshold)]:
            said = ", ".join(f"{one.what} by {one.distance:.2f}" for one in beyond)
            found.append(Alert("accuracy", "ticket", f"What is asked or answered has shifted: {said}"))
        return found

    @property
    def within(self) -> float:
        """Seconds that a night may take to its verdict."""
        return self.objectives["night_on_time"].threshold or 0.0


def look(root: Path, home: Path, state: Path | str, night: Night, since: float, now: int) -> Looked:
    """Read everything. Nights that were due before `since` (seconds since 1970) are nobody's. Raises ParamsError."""
    minute, counts = now // 60, Counts(home)
    objectives = openslo.promised(root)
    begin = max(since, now - WINDOW * 60)
    serving = registry.current(root)
    standing = slo.standing(home, root, minute)
    windows = slo.series(counts, minute, LONGEST + (standing.silent or 0))  # they end when it was heard last
    recorded = nights.ended(state)
    return Looked(
        now=now,
        objectives=objectives,
        month=counts.sums(minute - WINDOW + 1, minute),
        day=counts.sums(minute - DAY + 1, minute),
        standing=standing,
        burning=slo.alerts(objectives.values(), windows, minute, standing.silent),
        broken=invariants.broken(home, root),
        shifts=drift.shifts(counts, minute),
        drift_days=drift.days(counts, minute, objectives["drift"].threshold or 0.0),
        ended=recorded,
        due=nights.slots(night.schedule, night.timezone, begin, now),
        late=nights.late(state, recorded),
        feedback=feedback.counted(home, now - WINDOW * 60),
        versions={one.digest: one.version for one in registry.releases(root)},
        serving=serving.digest if serving else None,
        candidate=next(reversed(rollouts.read(home)), None),
    )


def made(seen: Looked) -> dict[str, Any]:
    """The report."""
    fresh = seen.objectives["freshness"]
    pipeline = {
        "night_on_time": nights.on_time(seen.due, seen.ended, seen.within, seen.now),
        "freshness": nights.freshness(seen.ended, fresh.threshold or 0.0, fresh.window * 60, seen.now),
    }
    return {
        "time": seen.now,
        "serving": seen.serving,
        "version": seen.versions.get(seen.serving or ""),
        "silent_minutes": seen.standing.silent,
        "candidate": _candidate(seen.candidate) if seen.candidate else None,
        "alerts": [asdict(one) for one in merged(seen.alerts).values()],
        "releases": {digest: _release(seen, digest) for digest in _releases(seen)},
        "asked": [_shift(one, seen) for one in seen.shifts if one.release is None],
        "objectives": {
            name: _objective(seen, one, {"drift": seen.drift_days, **pipeline}.get(name))
            for name, one in seen.objectives.items()
        },
        "last_night": asdict(seen.ended[0]) if seen.ended else None,
    }


def _releases(seen: Looked) -> list[str]:
    """Those that answered, were rated or serve, the one that serves first."""
    known = {release for _, release in seen.month} | set(seen.feedback) | ({seen.serving} if seen.serving else set())
    return sorted(known - {""}, key=lambda digest: (digest != seen.serving, digest))


def _candidate(last: Entry) -> dict[str, Any]:
    """What happened to the candidate that was tried last, and where it stands."""
    return {"version": last.version, "step": last.step, "outcome": last.outcome, "time": last.time, "why": last.told}


def _release(seen: Looked, digest: str) -> dict[str, Any]:
    """Health and accuracy of one release over 28 days, and over the last of them."""
    said: dict[str, Any] = {"version": seen.versions.get(digest), "serves": digest == seen.serving}
    for category in ("health", "accuracy", "privacy"):
        names = [one.name for one in openslo.counted(seen.objectives.values()) if one.category == category]
        said[category] = {
            name: {
                "month": share(*seen.month.get((name, digest), NONE)),
                "day": share(*seen.day.get((name, digest), NONE)),
            }
            for name in names
        }
    said["feedback"] = share(*seen.feedback.get(digest, NONE))
    said["drift"] = [_shift(one, seen) for one in seen.shifts if one.release == digest]
    return said


def _objective(seen: Looked, one: Objective, own: tuple[int, int] | None) -> dict[str, Any]:
    """How a promise is kept, over all releases; `own` are the events of one that the endpoint does not count."""
    events = [pair for (name, _), pair in seen.month.items() if name == one.name] if own is None else [own]
    kept = share(sum(good for good, _ in events), sum(valid for _, valid in events))
    said = {"category": one.category, "target": one.target, "threshold": one.threshold}
    return said | {"kept": kept, "budget_left": seen.standing.budgets.get(one.name)}


def share(good: int, valid: int) -> dict[str, Any] | None:
    """A share with its interval and what it is of; None for no events."""
    if not valid:
        return None
    found = stats.share(good, valid)
    return {"good": good, "valid": valid, "share": found.mean, "low": found.low, "high": found.high}


def _shift(one: Shift, seen: Looked) -> dict[str, Any]:
    threshold = seen.objectives["drift"].threshold or 0.0
    said = {"what": one.what, "distance": one.distance, "bound": max(threshold, one.bound)}
    return said | {"questions": one.questions[0], "reference": one.questions[1], "shifted": one.beyond(threshold)}
