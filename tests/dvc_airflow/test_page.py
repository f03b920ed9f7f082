"""docs/dvc-on-airflow.md, followed to the letter with a real Airflow, which runs three projects."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from dvc_engine.git import git
from nightshift import port
from tests.dvc_airflow.conftest import DVC_YAML, Toy, repository

ROOT = Path(__file__).resolve().parents[2]
PARAMS = "total: {by: 1}\n"
BELOW = {
    "dvc.yaml": "stages:\n  read: {cmd: cat got ../beside > x, deps: [got, ../beside], outs: [x]}\n"
    "  end:\n    cmd: 'echo \"{}\" > m.json'\n    deps: [x]\n    metrics: [{m.json: {cache: false}}]\n"
}
DAG_BELOW = """\
from pathlib import Path

from dvc_airflow import DvcDag

below = DvcDag("below", Path.home() / "mono" / "part", schedule="@once")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with three repositories and the page's DAGs, in which all of its blocks ran."""
    page, home = (ROOT / "docs" / "dvc-on-airflow.md").read_text(), tmp_path_factory.mktemp("home")
    # between two and half past four Airflow would begin today's night too
    later = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"
    assert page.count("0 2 * * *") == 1
    page = page.replace("0 2 * * *", later)
    for name in ("project", "models"):
        Toy(repository(home / name, {"dvc.yaml": DVC_YAML, "params.yaml": PARAMS, "seed.txt": "7"})).commit({})
    part = repository(home / "mono", BELOW, "part")
    (home / "mono" / "beside").write_text("8")
    (home / "source").write_text("7")
    with Repo(str(part)) as repo:
        repo.imp_url(str(home / "source"), str(part / "got"))
    text = (part / "got.dvc").read_text()
    Toy(part).commit({"got.dvc": f"{text}meta:\n  airflow: {{update: true}}\n"})
    # as `pip install ./plugins`, without what it rests on
    install = [
        str(Path(sys.executable).parent / "uv"),
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-build-isolation",
    ]
    subprocess.run([*install, "--target", str(home / "site"), str(ROOT / "plugins")], check=True)
    (home / "airflow" / "dags").mkdir(parents=True)
    for path, block in re.findall(r"```python (dags/\S+)\n(.*?)```", page, flags=re.S):
        (home / "airflow" / path).write_text(block)
    (home / "airflow" / "dags" / "below.py").write_text(DAG_BELOW)
    (home / "airflow" / "dags" / "reader.py").write_text(f"import json\n{ASKS}")
    log, script = home / "blocks.log", "\n".join(re.findall(r"```sh run\n(.*?)```", page, flags=re.S))
    with log.open("w") as out:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=home, env=environment(home), stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        assert shell.wait(timeout=240) == 0, log.read_text() + (home / "airflow.log").read_text()[-3000:]
        yield home
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        time.sleep(3)
        os.killpg(shell.pid, signal.SIGKILL)


def environment(home: Path) -> Mapping[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "DVC_", "NIGHTSHIFT"))}
    address = port.unused()
    ours = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(home / "site"),
        "AIRFLOW__API__PORT": str(address),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{address}/execution/",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port.unused()),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "2",  # of the page's own tasks, where its API server is slow to start
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.25",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    }
    return kept | ours


ASKS = """\
from pathlib import Path

from airflow.sdk import DAG, Asset, task

with DAG("reader", schedule=Asset("dvc://mine/total.txt")):

    @task
    def read(triggering_asset_events=None):
        (event,) = [one for events in triggering_asset_events.values() for one in events]
        Path.home().joinpath("event.json").write_text(json.dumps(event.extra))

    read()
"""


def night(project: Path, within_s: float = 120) -> dict[str, Any]:
    """night.json of the only night of a project, once it is there."""
    deadline = time.monotonic() + within_s
    while not (found := list((project / ".dvc" / "tmp" / "runs").rglob("night.json"))):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    said: dict[str, Any] = json.loads(found[0].read_text())
    return said


def outcomes(said: Mapping[str, Any]) -> dict[str, str]:
    return {name: one["outcome"] for name, one in said["stages"].items()}


def test_the_pages_night_is_a_commit_on_its_branch(home: Path) -> None:
    project = home / "project"
    assert '"edges": [["numbers", "total"]' in (home / "blocks.log").read_text()
    held = git(project, "show", "dvc-airflow:dvc.lock")
    assert re.findall(r"(?m)^  (\S+):$", held) == ["numbers", "total", "each@a", "each@b"]
    assert git(project, "show", "dvc-airflow:total.json") == '{"total": 6}'
    assert git(project, "status", "--porcelain") == ""


def test_airflow_was_told_which_installation_it_is(home: Path) -> None:
    with closing(sqlite3.connect(f"file:{home}/airflow/airflow.db?mode=ro", uri=True)) as held:
        assert held.execute("select key from variable").fetchall() == [("dvc_airflow_installation",)]


def test_an_out_that_changed_is_an_asset_event_that_starts_another_dag(home: Path) -> None:
    deadline = time.monotonic() + 60
    while not (home / "event.json").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.5)
    said = json.loads((home / "event.json").read_text())
    held = git(home / "project", "show", "dvc-airflow:dvc.lock")
    md5 = re.search(r"path: total.txt\n      hash: md5\n      md5: (\w+)", held)
    assert md5 is not None
    assert (said["md5"], said["size"], said["outcome"]) == (md5[1], 1, "ran")
    assert said["commit"] == git(home / "project", "rev-parse", "main")


def test_a_group_ran_a_part_of_a_project_with_the_dags_params(home: Path) -> None:
    models = home / "models"
    said = night(models)
    assert (outcomes(said), said["selected"]) == ({"numbers": "ran", "total": "ran"}, ["numbers", "total"])
    (commit,) = git(models, "for-each-ref", "--format=%(objectname)", "refs/dvc-airflow/unpublished").split()
    assert git(models, "show", f"{commit}:params.yaml") == "total: {by: 3}"
    assert git(models, "branch", "--list", "dvc-airflow") == ""


def test_a_project_below_the_top_fetched_what_it_imports(home: Path) -> None:
    said = night(home / "mono" / "part")
    assert (outcomes(said), said["sentence"]) == ({"got.dvc": "unchanged", "read": "ran", "end": "ran"}, None)
    assert git(home / "mono", "show", "dvc-airflow-part:part/m.json") == "{}"
    assert git(home / "mono", "show", "dvc-airflow-part:beside") == "8"
