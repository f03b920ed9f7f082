"""What a night's metrics are, beside what they were: `dvc metrics diff` of two nights, from what the night holds.

What a stage's metrics were stands in the commit that its newest entry came with. A local repository has no page that
shows it: so it is said in the log of publish, and in night.json.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dvc_engine.pipeline import wire
from dvc_engine.pipeline.project import Project, Stage
from dvc_engine.stage.outcome import Night, Result
from dvc_engine.store import params
from dvc_engine.store.commit import Commit, parsed

MOST = 200  # metrics that are told; all stand in the commit
COLUMNS = ("metric", "before", "tonight", "difference")


@dataclass(frozen=True)
class Change:
    """A metric that is not what it was; `before` or `now` is None where there is none."""

    stage: str
    metric: str
    before: Any
    now: Any

    @property
    def difference(self) -> float | None:
        """By how much; None for what are no two numbers."""
        two = (self.before, self.now)
        return self.now - self.before if all(type(one) in (int, float) for one in two) else None


def changed(night: Night, project: Project, results: Mapping[str, Result]) -> list[Change]:
    """What differs of the metrics that are no objects of DVC's cache, in the order in which stages run."""
    found: list[Change] = []
    for name in project.order:
        if name in results and results[name].outcome != "unchanged":
            came = night.came(name)
            found += _of(project.stages[name], night.at(came) if came else None, results[name])
    return found[:MOST]


def _of(stage: Stage, before: Commit | None, result: Result) -> Iterator[Change]:
    for out in (one for one in stage.outs if one.kind == "metrics" and one.path in result.files):
        was = _values(out.path, before.content(out.path) if before else None)
        now = _values(out.path, result.files[out.path].encode())
        for metric in {**was, **now}:
            if was.get(metric) != now.get(metric):
                yield Change(
                    stage.name, f"{out.path}: {metric}" if metric else out.path, was.get(metric), now.get(metric)
                )


def _values(path: str, content: bytes | None) -> dict[str, Any]:
    """Dotted key → value; empty for what is none, or no data."""
    if content is None:
        return {}
    said = parsed(path, content)
    found = params.leaves(said) if isinstance(said, dict) else {}
    return {name: _json(value) for name, value in found.items()}


def _json(value: Any) -> Any:
    """A value as Airflow carries it: no infinity, no date, no integer of 65 bits."""
    return value if wire.carried(value) and not isinstance(value, list | dict) else str(value)


def table(changes: Sequence[Change]) -> str:
    """A line a metric."""
    rows = [COLUMNS, *((one.metric, _text(one.before), _text(one.now), _text(one.difference, "+")) for one in changes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _text(value: Any, sign: str = "") -> str:
    if type(value) in (int, float):
        return f"{value:{sign}.6g}"
    return "" if value is None else str(value)
