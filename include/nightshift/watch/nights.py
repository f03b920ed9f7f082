"""What is promised of nights, and what went wrong with them, from their records and the schedule alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from nightshift import night, storage
from nightshift.slo import Alert

VALIDATED = "validate-corpus"  # the stage that lets tonight's data through
LATE = "late"  # a file beside night.json
WELL = ("ran", "cached", "unchanged")


@dataclass(frozen=True)
class Ended:
    """A night that ended, at `at` seconds since 1970.

    Args:
        run: its name.
        at: when it ended.
        published: whether it has a verdict that was written down.
        validated: whether its data passed.
        wrong: what went wrong, in a sentence; None for nothing.
        frozen: why its release was held back; None where it was not.
    """

    run: str
    at: float
    published: bool
    validated: bool
    wrong: str | None
    frozen: str | None


def ended(state: Path | str) -> list[Ended]:
    """Every night that is recorded, newest first."""
    return [_ended(record) for record in night.recorded(state)]


def _ended(record: dict[str, Any]) -> Ended:
    stage = record["stages"].get(VALIDATED) or {}
    wrong = (record.get("sentence") or "").rstrip(".") or None
    if not record.get("published"):
        wrong = str(night.broken(record)).rstrip(".")
    elif record.get("refused"):
        wrong = f"it was published here, and could not be pushed: {str(record['refused']).splitlines()[0]}"
    validated = stage.get("outcome") in WELL
    return Ended(record["run"], record["ended"], bool(record.get("published")), validated, wrong, record.get("frozen"))


def slots(schedule: str | None, zone: str, first: float, last: float) -> list[float]:
    """When nights were to begin after `first` and up to `last`, seconds since 1970."""
    if schedule is None:
        return []
    from croniter import croniter

    found: list[float] = []
    times = croniter(schedule, datetime.fromtimestamp(last + 1, ZoneInfo(zone)))
    while (at := times.get_prev(float)) > first:
        found.append(at)
    return found[::-1]


def on_time(due: Iterable[float], nights: Sequence[Ended], within: float, now: float) -> tuple[int, int]:
    """(nights with a verdict within `within` seconds, nights that were due and had that long)."""
    told = [at for at in due if at + within <= now]
    return sum(any(one.published and at <= one.at <= at + within for one in nights) for at in told), len(told)


def freshness(nights: Sequence[Ended], limit: float, window: float, now: float) -> tuple[int, int]:
    """(minutes in which the newest validated data was at most `limit` seconds old, minutes since the first night).

    Of the last `window` seconds.
    """
    validated = sorted(one.at for one in nights if one.validated)
    begin = max(min((one.at for one in nights), default=now), now - window)
    covered, reached = 0.0, begin
    for at in validated:
        start, end = max(at, reached), min(at + limit, now)
        covered += max(0.0, end - start)
        reached = max(reached, end)
    return int(covered // 60), int((now - begin) // 60)


def mark(state: Path | str, run: str) -> None:
    """Note that a night runs longer than it may, by its name; until a night is recorded that is told."""
    storage.write(f"{state}/runs/{run}/{LATE}", b"")


def late(state: Path | str, nights: Sequence[Ended]) -> list[str]:
    """The nights that were marked since one was recorded: they run one after another."""
    last = max((one.at for one in nights), default=0.0)
    marks = [one for one in storage.held(f"{state}/runs") if one.name.endswith(f"/{LATE}") and one.written > last]
    return sorted(one.name.removesuffix(f"/{LATE}") for one in marks)


def alerts(
    nights: Sequence[Ended], due: Sequence[float], within: float, now: float, running: Sequence[str] = ()
) -> list[Alert]:
    """What is wrong with the last night, and whether one is late; one that broke is told as that, and not as late.

    `running` are nights over their deadline: the one that the schedule misses is the same, and told once.
    """
    found = []
    missed = [at for at in due if at + within <= now]
    if missed and not any(one.at >= missed[-1] for one in nights):
        when = datetime.fromtimestamp(missed[-1], UTC)
        said = f"The night of {when:%Y-%m-%d %H:%M} UTC has no verdict after {within / 3600:.3g} hours"
        found.append(Alert(f"late {when:%Y-%m-%dT%H:%M}Z", "ticket", said))
    elif running:
        said = f"The night {running[-1]} runs longer than params.yaml: night.deadline_hours"
        found.append(Alert(f"late {running[-1]}", "ticket", said))
    if nights and (last := nights[0]).wrong:
        found.append(Alert(f"night {last.run}", "ticket", f"The night {last.run} went wrong: {last.wrong}"))
    elif nights and last.frozen:
        found.append(Alert(f"frozen {last.run}", "ticket", f"The release of {last.run} is held back: {last.frozen}"))
    return found
