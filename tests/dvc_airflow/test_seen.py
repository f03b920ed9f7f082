"""What an operator sees of a night in a real Airflow: links, lineage, that it is late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from dvc_airflow.settings import run_name
from tests.faults.real import SLOW, Real, make, running, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]
PAGE = "https://git.example.org/mine/commit"
DVC_YAML = """\
stages:
  slow:
    cmd: python slow.py {marks} out.txt && sleep 4 && python metric.py
    deps: [slow.py, metric.py, seed.txt]
    outs: [out.txt]
    metrics: [{{m.json: {{cache: false}}}}]
  after: {{cmd: cp out.txt end.txt, deps: [out.txt], outs: [end.txt]}}
"""
METRIC = "import json, pathlib; json.dump({'loss': int(pathlib.Path('seed.txt').read_text())}, open('m.json', 'w'))\n"
OPTIONS = """,
    web="https://git.example.org/mine/commit/{commit}",
    late_after=timedelta(seconds=3),
    on_late="python tell.py {run}",
    env={"WHO": "a person"},
"""
TELL = """\
import os, sys

with open(".dvc/tmp/late", "a") as told:
    told.write(" ".join([sys.argv[1], os.environ["WHO"], os.environ["DVC_AIRFLOW_RUN"]]) + "\\n")
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("seen")
    files = {"slow.py": SLOW, "metric.py": METRIC, "tell.py": TELL, "seed.txt": "3"}
    files["dvc.yaml"] = DVC_YAML.format(marks=folder / "marks")
    transport = json.dumps({"type": "file", "log_file_path": str(folder / "lineage.jsonl"), "append": True})
    made = make(
        folder, files, OPTIONS, AIRFLOW__OPENLINEAGE__TRANSPORT=transport, AIRFLOW__OPENLINEAGE__NAMESPACE="test"
    )
    made.enough()
    with running(made):
        yield made


@pytest.fixture(scope="module")
def nights(airflow: Real) -> list[str]:
    """Two nights, of which the second has another metric."""
    first = airflow.trigger()
    assert airflow.ended(first) == "success", airflow.told(first)
    airflow.toy.commit({"seed.txt": "2"})
    second = airflow.trigger()
    assert airflow.ended(second) == "success", airflow.told(second)
    return [first, second]


def links(real: Real, run: str, task: str) -> dict[str, Any]:
    found: dict[str, Any] = real.request("GET", f"dags/toy/dagRuns/{run}/taskInstances/{task}/links")["extra_links"]
    return found


def test_tasks_link_to_their_commit_and_to_what_changed(airflow: Real, nights: list[str]) -> None:
    (before, pinned), git = ("HEAD~1", "HEAD"), airflow.toy.git
    tip, old = git("rev-parse", "dvc-airflow"), git("rev-parse", "dvc-airflow~1")
    before, pinned = git("rev-parse", before), git("rev-parse", pinned)
    compare = PAGE.replace("commit", "compare")
    assert links(airflow, nights[0], "slow") == {"Commit": f"{PAGE}/{before}", "Changes": None}
    assert links(airflow, nights[1], "slow") == {"Commit": f"{PAGE}/{pinned}", "Changes": f"{compare}/{old}...{pinned}"}
    assert links(airflow, nights[1], "publish") == {"Commit": f"{PAGE}/{tip}", "Changes": f"{compare}/{old}...{tip}"}
    assert links(airflow, nights[1], "end") == {}


def test_a_late_night_is_told_and_goes_on(airflow: Real, nights: list[str]) -> None:
    place, names = airflow.toy.root / ".dvc" / "tmp" / "late", [run_name(run) for run in nights]
    until(lambda: len(place.read_text().splitlines()) == len(names), 30)
    assert place.read_text() == "".join(f"{name} a person {name}\n" for name in names)


def test_what_changed_of_the_metrics_is_in_the_record(airflow: Real, nights: list[str]) -> None:
    first, second = (airflow.night(run)["changes"] for run in nights)
    assert first == [{"stage": "slow", "metric": "m.json: loss", "before": None, "now": 3}]
    assert second == [{"stage": "slow", "metric": "m.json: loss", "before": 3, "now": 2}]


def test_openlineage_is_told_what_a_stage_read_and_made(airflow: Real, nights: list[str]) -> None:
    place, root = airflow.folder / "lineage.jsonl", airflow.toy.root

    def told() -> list[dict[str, Any]]:
        events = [json.loads(line) for line in place.read_text().splitlines()]
        return [one for one in events if one["job"]["name"] == "toy.after" and one["eventType"] == "COMPLETE"]

    until(lambda: len(told()) == 2, 30)
    one = told()[-1]
    (read,), (made,) = one["inputs"], one["outputs"]
    assert (read["namespace"], read["name"]) == ("file", str(root / "out.txt"))
    assert (made["namespace"], made["name"]) == ("file", str(root / "end.txt"))
    assert read["facets"]["version"]["datasetVersion"] == made["facets"]["version"]["datasetVersion"]
    assert made["outputFacets"]["outputStatistics"]["size"] == 1
    where = one["job"]["facets"]["sourceCodeLocation"]
    assert (where["version"], where["path"]) == (airflow.toy.git("rev-parse", "HEAD"), "dvc.yaml")
    assert one["job"]["facets"]["sourceCode"]["sourceCode"] == "cp out.txt end.txt"
    assert "cp out.txt end.txt" in one["job"]["facets"]["documentation"]["description"]
