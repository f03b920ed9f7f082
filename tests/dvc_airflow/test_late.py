"""A night that is late, and how often what is lost is tried again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dvc_airflow.settings import night
from dvc_engine.pipeline.project import ProjectError
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]
RUN = "manual__2026-01-01T00:00:00+00:00_x"


def tell(made: Toy, command: str, state: str = "running") -> str:
    """What the command that is run for a late night leaves."""
    from dvc_airflow import late

    context = {"dag_run": {"dag_run_id": RUN, "state": state}}
    late.tell(command, {"WHO": "{clone}"}, str(made.root), "", "", context)
    place = made.root / "told"
    return place.read_text() if place.is_file() else ""


TELL = "sh -c 'echo $WHO $0 > told' {run}"


def test_a_night_that_runs_is_told_by_its_name(toy: Make) -> None:
    made = toy()
    assert tell(made, TELL) == f"{made.root} manual-2026-01-01T00-00-00-00-00-x\n"


@pytest.mark.parametrize("state", ["failed", "success"])
def test_a_night_that_has_ended_is_not_late(state: str, toy: Make) -> None:
    assert tell(toy(), TELL, state) == ""


def test_a_command_that_fails_is_a_failed_callback(toy: Make) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        tell(toy(), f"{sys.executable} -c 'import sys; sys.exit(3)'")


def test_what_the_command_leaves_running_keeps_nobody_waiting(toy: Make) -> None:
    helper = int(tell(toy(), "sh -c 'sleep 10 & echo $! > told'"))
    assert ") Z " not in Path(f"/proc/{helper}/stat").read_text()
    os.kill(helper, signal.SIGKILL)


def test_a_worker_without_a_checkout_makes_one_for_it(toy: Make, tmp_path: Path) -> None:
    """Whichever worker has a free slot runs it."""
    from dvc_airflow import DvcDag, late

    made, place = toy(), tmp_path / "worker" / "toy"
    dag = DvcDag(
        "toy",
        made.root,
        remote=str(made.root),
        checkout=place,
        late_after=timedelta(hours=1),
        on_late="cp seed.txt told",
    )
    (alert,) = dag.deadline or []
    late.tell(**alert.callback.kwargs, context={"dag_run": {"dag_run_id": RUN, "state": "running"}})
    assert (place / "told").read_text() == (made.root / "seed.txt").read_text()


@pytest.mark.parametrize("given", [{"late_after": timedelta(hours=1)}, {"on_late": "true"}])
def test_a_deadline_without_a_command_is_refused(given: dict[str, Any], toy: Make) -> None:
    from dvc_airflow import DvcDag

    with pytest.raises(ProjectError, match="late_after and on_late go together"):
        DvcDag("toy", toy().root, **given)


@pytest.mark.parametrize(
    ("executors", "chosen"),
    [
        ("LocalExecutor", None),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", None),
        ("KubernetesExecutor, LocalExecutor", "LocalExecutor"),
        ("KubernetesExecutor,near:LocalExecutor", "near"),
    ],
)
def test_the_command_runs_on_an_executor_that_takes_callbacks(
    executors: str, chosen: str | None, toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc_airflow import late

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executors)
    settings = night(toy().root)[1]
    assert late.alert(timedelta(hours=1), "true", settings).callback.executor == chosen


def test_an_executor_that_a_callback_would_break_is_refused_where_the_dag_is_made(monkeypatch: Any, toy: Make) -> None:
    from airflow._shared.module_loading import import_string
    from airflow.executors.executor_loader import ExecutorLoader

    from dvc_airflow import DvcDag, late

    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "KubernetesExecutor")
    with pytest.raises(ProjectError, match="KubernetesExecutor cannot run on_late, LocalExecutor and CeleryExecutor"):
        DvcDag("toy", toy().root, late_after=timedelta(hours=1), on_late="true")
    able = {name: import_string(ExecutorLoader.executors[name]).supports_callbacks for name in ExecutorLoader.executors}
    assert {name for name, takes in able.items() if takes} == set(late.ABLE)


@pytest.mark.parametrize(
    ("tried", "most", "again"), [(1, 5, True), (2, 5, True), (3, 5, False), (4, 8, True), (1, 0, False), (1, 4, True)]
)
def test_attempts_that_could_not_begin_do_not_use_up_the_others(tried: int, most: int, again: bool) -> None:
    """Airflow's count goes on after a person has cleared a task: four attempts, and five more."""
    from airflow.sdk.exceptions import AirflowFailException

    from dvc_airflow import operator

    kind = operator.mendable(SimpleNamespace(try_number=tried, max_tries=most))
    assert issubclass(kind, AirflowFailException) is not again


def test_who_wants_no_retry_gets_none() -> None:
    from dvc_airflow import operator, render

    assert render.retried(0) == {"retries": 0}
    assert render.retried()["retries"] == render.RETRIES + operator.OUTAGE


def test_the_command_cannot_ask_airflows_supervisor(toy: Make) -> None:
    held = os.dup(0)
    ours, _theirs = socket.socketpair()
    os.dup2(ours.fileno(), 0)
    try:
        assert tell(toy(), "sh -c 'readlink /proc/self/fd/0 > told'") == f"{os.devnull}\n"
    finally:
        os.dup2(held, 0)
        os.close(held)
