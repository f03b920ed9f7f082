"""The dashboard asks only for metrics that the endpoint has, in words that Prometheus takes."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nightshift.serve.meters import Meters
from tests.watch.promtool import promtool


@pytest.fixture(scope="module")
def panels(pytestconfig: pytest.Config) -> list[dict[str, Any]]:
    path = pytestconfig.rootpath / "deploy" / "grafana" / "nightshift.json"
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    return found


def asked(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def exposed() -> dict[str, set[str]]:
    """Every series that the endpoint may expose, and its labels."""
    found: dict[str, set[str]] = {}
    for collector in Meters().registry._collector_to_names:  # a metric without a sample yet shows no labels otherwise
        labels, kind, name = set(collector._labelnames), collector._type, collector._name  # type: ignore[attr-defined]
        ends = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}[kind]
        found |= {name + end: labels | ({"le"} if end == "_bucket" else set()) for end in ends}
    return found


def test_every_metric_that_it_asks_for_exists_with_the_labels_that_it_groups_by(
    panels: list[dict[str, Any]], root: Path
) -> None:
    recorded = set(re.findall(r"record: (\S+)", (root / "deploy" / "prometheus" / "rules.yaml").read_text()))
    known = exposed()
    for expression in asked(panels):
        names = set(re.findall(r"nightshift[\w:]+", expression))
        assert names <= {*known, *recorded}, expression
        for name in names & set(known):
            grouped = re.search(r"by \(([^)]*)\)", expression)
            wanted = set(re.split(r",\s*", grouped[1])) if grouped else set()
            assert wanted <= known[name], expression


def test_every_counter_and_histogram_of_the_endpoint_is_shown(panels: list[dict[str, Any]]) -> None:
    said = " ".join(asked(panels))
    left = {name for name in exposed() if name.endswith(("_total", "_bucket")) and name not in said}
    assert left == {"nightshift_good_total", "nightshift_valid_total"}  # as recorded ratios


def test_prometheus_takes_every_question(panels: list[dict[str, Any]], tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{place}", "expr": expression.replace("$__rate_interval", "5m")}
        for place, expression in enumerate(asked(panels))
    ]
    path = tmp_path / "panels.json"
    path.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    ended = subprocess.run([promtool(), "check", "rules", str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_panels_have_numbers_of_their_own_and_do_not_lie_over_one_another(panels: list[dict[str, Any]]) -> None:
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
