"""Prometheus' rules say on the same traces what the burn-rate engine says; the committed file is what is written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from nightshift import openslo
from nightshift.watch import rules
from tests.watch.promtool import promtool
from tests.watch.traces import TRACES, Trace

PROMETHEUS = "deploy/prometheus/prometheus.yml"
FIRING = 'ALERTS{alertstate="firing"}'


def series(trace: Trace) -> list[dict[str, str]]:
    """The counters as Prometheus would scrape them, once a minute, in promtool's notation."""
    totals = {"good": 0, "valid": 0}
    samples: dict[str, list[int | None]] = {"good": [0], "valid": [0]}
    for counted in trace.counted():
        for name, value in zip(("good", "valid"), counted or (0, 0), strict=False):
            totals[name] = (0 if counted and counted[2] else totals[name]) + value
            samples[name].append(totals[name] if counted else None)
    return [
        {"series": f'nightshift_{name}_total{{sli="{trace.sli}"}}', "values": noted(values)}
        for name, values in samples.items()
    ]


def noted(values: list[int | None]) -> str:
    """Samples as runs: 'start+stepxtimes', and '_xN' for none."""
    said, place = [], 0
    while place < len(values):
        end = place + 1
        start = values[place]
        if start is None:
            while end < len(values) and values[end] is None:
                end += 1
            said.append(f"_x{end - place}")
            place = end
            continue
        step = (values[end] or 0) - start if end < len(values) and values[end] is not None else 0
        while end < len(values) and values[end] is not None and values[end] == start + step * (end - place):
            end += 1
        said.append(f"{start}{step:+d}x{end - place - 1}")
        place = end
    return " ".join(said)


def checks(trace: Trace) -> list[dict[str, Any]]:
    """What must be firing when; a ticket beside a page is the same alert."""
    made = []
    for minute, severity in trace.checks.items():
        assert minute % trace.every == 0
        wanted = [{"labels": f'{{severity="{severity}"}}', "value": 1}] if severity else []
        expression = f'count by (severity) ({FIRING[:-1]},severity="page"}})'
        if severity != "page":
            expression = f"count by (severity) ({FIRING})"
        made.append({"expr": expression, "eval_time": f"{minute}m", "exp_samples": wanted})
    if trace.never:
        ever = f"count(count_over_time({FIRING}[{trace.minutes}m]))"
        made.append({"expr": ever, "eval_time": f"{trace.minutes}m", "exp_samples": []})
    return made


def test_the_committed_rules_are_what_the_command_writes(root: Path) -> None:
    wanted = rules.written(openslo.read(root / openslo.FOLDER).values())
    assert (root / "deploy" / "prometheus" / "rules.yaml").read_text() == wanted


def test_prometheus_takes_them_and_its_configuration(root: Path) -> None:
    for words in (["rules", "deploy/prometheus/rules.yaml"], ["config", "--syntax-only", PROMETHEUS]):
        command = [promtool(), "check", *words]
        ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "SUCCESS" in ended.stdout


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.long) if "thirty days" in one else one for one in TRACES]
)
def test_prometheus_fires_on_every_trace_as_the_engine_does(name: str, root: Path, tmp_path: Path) -> None:
    """With the rules of the trace's own objective alone: those of the others see nothing, and take time."""
    trace = TRACES[name]
    objective = openslo.read(root / openslo.FOLDER)[trace.sli]
    groups = YAML(typ="safe").load(rules.written([objective]))["groups"]  # four weeks are more than promtool holds
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [one for one in groups if one["name"] == rules.ALERTS]}))
    said = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": f"{trace.every}m",
        "tests": [{"interval": "1m", "input_series": series(trace), "promql_expr_test": checks(trace)}],
    }
    path = tmp_path / "trace.json"  # JSON is YAML
    path.write_text(json.dumps(said))
    ended = subprocess.run([promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_broken_invariant_is_a_page_at_once(root: Path, tmp_path: Path) -> None:
    """Its counter is not there before, so that no increase of it is seen."""
    groups = YAML(typ="safe").load(rules.written(openslo.read(root / openslo.FOLDER).values()))["groups"]
    (alert,) = (one for group in groups for one in group["rules"] if one.get("alert") == "NightshiftInvariantBroken")
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "x", "rules": [alert]}]}))
    firing = f'count by (severity) ({FIRING[:-1]},alertname="NightshiftInvariantBroken"}})'
    page = [{"labels": '{severity="page"}', "value": 1}]
    checked = [{"expr": firing, "eval_time": "4m", "exp_samples": []}]
    checked += [{"expr": firing, "eval_time": at, "exp_samples": page} for at in ("5m", "60m")]
    series = [{"series": 'nightshift_broken_total{invariant="canary"}', "values": "_x5 1x60"}]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": checked}]
    path = tmp_path / "broken.json"
    path.write_text(json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    ended = subprocess.run([promtool(), "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
