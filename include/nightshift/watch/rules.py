"""The alert table of slo.py as Prometheus has it: recording rules for each window, one alert an objective and severity.

The two must say the same: both are tried on the same traces. Prometheus counts by what it scrapes of /metrics, over all
releases; `increase` bears counters that begin anew. It alerts also where the metric itself is gone.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from nightshift import openslo
from nightshift.openslo import Objective
from nightshift.slo import BURNS, FEWEST, SILENT, Burn

HEAD = "# Made by `nightshift slo rules` from include/policies/slo; do not edit.\n"
ALERTS = "nightshift-alerts"
BUDGET_EVERY = "10m"  # a sum over four weeks need not be made each minute


def written(objectives: Iterable[Objective]) -> str:
    """The rule file."""
    counted = openslo.counted(objectives)
    windows = [rule for one in counted for rule in _windows(one)]
    alerts = [rule for one in counted for rule in _alerts(one)]
    groups = [
        {
            "name": ALERTS,
            "rules": [*windows, *alerts, _silent(counted), _broken()],
        },  # one group: alerts see this minute's windows
        {"name": "nightshift-budgets", "interval": BUDGET_EVERY, "rules": [_budget(one) for one in counted]},
    ]
    out = io.StringIO(HEAD)
    out.seek(0, io.SEEK_END)
    yaml = YAML()
    yaml.width = 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump({"groups": groups}, out)
    return out.getvalue()


def _windows(one: Objective) -> Iterable[dict[str, Any]]:
    """Share of bad events in every window of the table; how many there were in the long ones."""
    for minutes in sorted({minutes for burn in BURNS for minutes in (burn.long, burn.short)}):
        yield _record(one, f"nightshift:bad:ratio{_range(minutes)}", _bad(one, minutes))
    for minutes in sorted({burn.long for burn in BURNS}):
        yield _record(
            one, f"nightshift:valid:increase{_range(minutes)}", f"sum(increase({one.total}[{_range(minutes)}]))"
        )


def _alerts(one: Objective) -> Iterable[dict[str, Any]]:
    for severity in ("page", "ticket"):
        cases = [_case(one, burn) for burn in BURNS if burn.severity == severity]
        yield {
            "alert": "NightshiftBudgetBurns",
            "expr": LiteralScalarString("\nor\n".join(cases) + "\n"),
            "labels": {"sli": one.name, "category": one.category, "severity": severity},
            "annotations": {"summary": f"{one.name} burns its error budget", "description": one.description},
        }


def _case(one: Objective, burn: Burn) -> str:
    """One row of the table for one objective."""
    bound = f"{burn.factor(one.window) * one.budget:.6g}"
    own = f'{{sli="{one.name}"}}'
    long, short = (f"nightshift:bad:ratio{_range(minutes)}{own} > {bound}" for minutes in (burn.long, burn.short))
    return f"({long} and {short} and nightshift:valid:increase{_range(burn.long)}{own} >= {FEWEST})"


def _silent(counted: list[Objective]) -> dict[str, Any]:
    """Absent data is no health: the metric is gone, or was never there."""
    metric = counted[0].total.partition("{")[0]
    return {
        "alert": "NightshiftSilent",
        "expr": f"absent_over_time({metric}[{_range(SILENT)}])",
        "labels": {"category": "silence", "severity": "page"},
        "annotations": {"summary": f"nothing was heard of the endpoint for {SILENT} minutes"},
    }


def _broken() -> dict[str, Any]:
    """What must never happen did: there is no budget for it. The counter begins with its first event, which no
    `increase` sees."""
    return {
        "alert": "NightshiftInvariantBroken",
        "expr": "nightshift_broken_total > 0",
        "labels": {"category": "invariant", "severity": "page"},
        "annotations": {"summary": "{{ $labels.invariant }} broke: `nightshift slo show` says what that holds back"},
    }


def _budget(one: Objective) -> dict[str, Any]:
    left = f"1 - ({_bad(one, one.window)}) / {one.budget:.6g}"
    return _record(one, "nightshift:budget:remaining", left)


def _bad(one: Objective, minutes: int) -> str:
    window = _range(minutes)
    return f"1 - sum(increase({one.good}[{window}])) / sum(increase({one.total}[{window}]))"


def _record(one: Objective, name: str, expression: str) -> dict[str, Any]:
    return {"record": name, "expr": expression, "labels": {"sli": one.name}}


def _range(minutes: int) -> str:
    for unit, size in (("d", 1440), ("h", 60)):
        if minutes % size == 0:
            return f"{minutes // size}{unit}"
    return f"{minutes}m"
