"""In a real Airflow: a night that is refused is told at once, and an alert about the endpoint starts a night, once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nightshift.airflow import Airflow
from nightshift.counts import Counts
from nightshift.errors import NightBroke
from tests.night.project import Project, make
from tests.watch.sinks import Sink, webhook

ENDED = ("success", "failed")


@pytest.mark.parametrize(
    ("schedule", "retrains", "hours", "wanted"),
    [
        ('"0 2 * * *"', "false", "4.0", "CronTriggerTimetable []"),
        ('"0 2 * * *"', "true", "0.5", "AssetOrTimeSchedule ['nightshift://alert/']"),
        ("null", "true", "null", "AssetTriggeredTimetable ['nightshift://alert/']"),
        ("null", "false", "4.0", "NullTimetable []"),
    ],
)
def test_a_night_is_started_by_the_clock_by_alerts_or_by_hand(
    schedule: str, retrains: str, hours: str, wanted: str, tmp_path: Path
) -> None:
    project = make(tmp_path / "project", tmp_path / "home", AIRFLOW_HOME=str(tmp_path / "airflow"))
    path = project.folder / "params.yaml"
    text = path.read_text().replace('schedule: "0 2 * * *"', f"schedule: {schedule}")
    text = text.replace("deadline_hours: 4.0", f"deadline_hours: {hours}")
    path.write_text(text.replace("retrain_on_alert: false", f"retrain_on_alert: {retrains}"))
    code = (
        "import sys; sys.path[:0] = ['plugins', 'include', 'dags']\n"
        "from nightly import nightly\nfrom watch import watch\n"
        "when = nightly.timetable\nassets = getattr(getattr(when, 'asset_condition', None), 'objects', [])\n"
        "print(type(when).__name__, [one.uri for one in assets])\n"
        "print([*watch.task_ids], nightly.has_on_failure_callback)\n"
        "deadline = nightly.deadline and nightly.deadline[0]\n"
        "print(deadline and (deadline.interval.total_seconds(), deadline.callback.kwargs['command']))\n"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(
        command, cwd=project.folder, env=project.environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    late = "None" if hours == "null" else str((3600 * float(hours), "python -m nightshift.cli watch --late {run}"))
    assert ended.stdout.splitlines()[-3:] == [wanted, "['look', 'alert'] True", late]


@pytest.fixture(scope="module")
def hook() -> Iterator[Sink]:
    with webhook() as sink:
        yield sink


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, hook: Sink) -> Iterator[Project]:
    """A project that is up, and none of whose nights gets past the pin: a secret lies in it."""
    folder = tmp_path_factory.mktemp("watch")
    made = make(folder / "project", folder / "home")
    made.params('schedule: "0 2 * * *"', "schedule: null")
    made.params("retrain_on_alert: false", "retrain_on_alert: true")
    made.params("webhook: null", f'webhook: {{url: "http://127.0.0.1:{hook.port}/"}}')
    (made.folder / ".env").write_text("TOKEN=1")
    up = made.run("up")
    assert up.returncode == 0, up.stderr
    yield made
    assert made.run("down").returncode == 0


def until(holds: Callable[[], Any]) -> Any:
    """What holds in the end; a call that Airflow does not answer on a busy machine is made again."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with suppress(NightBroke):
            if found := holds():
                return found
        time.sleep(0.2)
    pytest.fail("it did not happen within five minutes")


def subjects(hook: Sink) -> list[str]:
    return [body["subject"].partition(" manual")[0].partition(" asset")[0] for _, body in hook.calls]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_night_that_is_refused_is_told_and_an_alert_starts_one_night(project: Project, hook: Sink) -> None:
    refused = project.run("nightly")
    assert refused.returncode == 20
    until(lambda: hook.calls)
    assert ".env looks like a secret" in hook.calls[0][1]["text"]

    airflow = Airflow(project.folder, project.environ)
    counts, minute = Counts(project.folder / "var"), int(time.time()) // 60
    counts.add(minute, {("availability", "a" * 64): (0, 4000)})
    assert looked(airflow) == {"look": "success", "alert": "success"}
    (event,) = until(lambda: events(airflow))
    assert event["extra"] == {"alerts": ["health"]}
    runs = until(lambda: [one for one in nights(airflow) if one["run_type"] == "asset_triggered"])
    assert len(runs) == 1
    until(lambda: nights(airflow)[0]["state"] in ENDED)
    until(lambda: len(hook.calls) >= 4)

    assert looked(airflow) == {"look": "success", "alert": "skipped"}
    assert len(until(lambda: events(airflow))) == 1
    assert len(until(lambda: nights(airflow))) == 2
    # the second night is told, and with it the first is over; the fault itself is told once
    night = "Nightshift: ticket: night"
    assert sorted(subjects(hook)) == sorted([night, "Nightshift: page: health", night, "Nightshift: resolved: night"])


def looked(airflow: Airflow) -> dict[str, str]:
    """Run the DAG once; task → state."""
    run = airflow.request("POST", "dags/watch/dagRuns", {"logical_date": None})["dag_run_id"]
    until(lambda: airflow.request("GET", f"dags/watch/dagRuns/{run}")["state"] in ENDED)
    tasks = until(lambda: airflow.request("GET", f"dags/watch/dagRuns/{run}/taskInstances")["task_instances"])
    return {one["task_id"]: one["state"] for one in tasks}


def events(airflow: Airflow) -> list[dict[str, Any]]:
    found = airflow.request("GET", "assets/events?limit=100")["asset_events"]
    return [one for one in found if "alerts" in (one["extra"] or {})]


def nights(airflow: Airflow) -> list[dict[str, Any]]:
    """Newest first."""
    runs: list[dict[str, Any]] = airflow.request("GET", "dags/nightly/dagRuns?order_by=-run_after")["dag_runs"]
    return runs
