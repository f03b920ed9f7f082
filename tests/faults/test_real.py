"""In a real Airflow, what ends beside a stage: scheduler, API server, its task; and what a person does to it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from dvc_engine.pipeline import lock
from tests.faults.real import ENDED, SLOW, Real, make, running, until

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
HERE_S, ANYWHERE_S = 10.0, 120.0  # within which nothing of an attempt that ended may run: on its host, on any
AWAY_S = 120.0  # of the API server
DVC_YAML = """\
stages:
  slow: {{cmd: python slow.py {marks} out.txt, deps: [slow.py, seed.txt], outs: [out.txt]}}
  after: {{cmd: cp out.txt end.txt, deps: [out.txt], outs: [end.txt]}}
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("real")
    files = {"slow.py": SLOW, "seed.txt": "0", "dvc.yaml": DVC_YAML.format(marks=folder / "marks")}
    with running(make(folder, files)) as made:
        yield made


@pytest.fixture
def night(airflow: Real) -> tuple[Real, str, int]:
    """A night in the middle of its slow stage, in which everything is to be done anew; and how many were before."""
    before = airflow.nights()
    airflow.enough(False)
    airflow.toy.commit({"seed.txt": str(time.time())})
    run = airflow.trigger()
    airflow.in_the_middle(run)
    return airflow, run, before


def gone(processes: list[psutil.Process], within_s: float) -> None:
    """Wait until none of these runs."""

    def left() -> list[psutil.Process]:
        return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]

    assert len(processes) >= 3
    until(lambda: not left(), within_s, lambda: str([one.cmdline() for one in left()]))


def ends_well(real: Real, run: str, before: int, again: bool = True) -> None:
    """The slow stage runs, again or still; the night ends well, in one commit, and nothing of it is left."""
    real.in_the_middle(run)
    assert (int(real.tasks(run)["slow"]["try_number"]) > 1) is again
    real.enough()
    assert real.ended(run) == "success", real.told(run)
    assert real.nights() == before + 1
    stages = real.night(run)["stages"]
    assert {name: one["outcome"] for name, one in stages.items()} == {"slow": "ran", "after": "ran"}
    assert (stages["slow"]["attempts"] > 1) is again
    assert real.stage() == []
    assert real.toy.git("for-each-ref", "refs/dvc-airflow") == ""


def test_a_task_that_gets_sigterm_from_outside_runs_again(night: tuple[Real, str, int]) -> None:
    """As on a host that is shut down."""
    real, run, before = night
    was = real.stage()
    os.kill(real.task().pid, signal.SIGTERM)
    gone(was, HERE_S)
    ends_well(real, run, before)


def test_a_task_that_is_killed_runs_again(night: tuple[Real, str, int]) -> None:
    real, run, before = night
    was = real.stage()
    real.task().kill()
    gone(was, HERE_S)
    ends_well(real, run, before)


def test_a_stage_whose_worker_is_killed_ends_too_and_runs_again(night: tuple[Real, str, int]) -> None:
    """Its task is alive, and nobody hears of it any more."""
    real, run, before = night
    was, task = real.stage(), real.task()
    worker = task.parent()
    assert worker is not None
    worker.kill()
    gone([*was, task], HERE_S)
    ends_well(real, run, before)


def test_a_running_stage_that_is_cleared_runs_again(night: tuple[Real, str, int]) -> None:
    real, run, before = night
    was = real.stage()
    asked = {"dry_run": False, "dag_run_id": run, "task_ids": ["slow"], "only_failed": False, "only_running": False}
    real.request("POST", "dags/toy/clearTaskInstances", asked)
    gone(was, HERE_S)
    ends_well(real, run, before)


def test_a_running_stage_that_a_person_fails_is_not_run_again_until_it_is_cleared(night: tuple[Real, str, int]) -> None:
    real, run, before = night
    was = real.stage()
    real.request("PATCH", f"dags/toy/dagRuns/{run}/taskInstances/slow", {"new_state": "failed"})
    gone(was, HERE_S)
    assert real.ended(run) == "failed"
    assert real.nights() == before
    real.request("POST", "dags/toy/clearTaskInstances", {"dry_run": False, "dag_run_id": run, "only_failed": True})
    ends_well(real, run, before)


def test_a_stage_outlives_the_scheduler_or_runs_again(night: tuple[Real, str, int]) -> None:
    """The one that is started then takes a stage over only by running it again: no executor of one host can adopt."""
    real, run, before = night
    was = real.stage()
    real.kill("scheduler")
    real.in_the_middle(run)
    assert all(one.is_running() for one in was)
    real.start("scheduler")
    gone(was, ANYWHERE_S)
    ends_well(real, run, before)


def test_an_api_server_that_hangs_for_two_minutes_costs_no_night(night: tuple[Real, str, int]) -> None:
    real, run, before = night
    was = real.stage()
    real.signal("api-server", signal.SIGSTOP)
    time.sleep(AWAY_S)
    real.signal("api-server", signal.SIGCONT)
    gone(was, HERE_S)
    ends_well(real, run, before)


def test_an_api_server_that_is_killed_for_two_minutes_costs_no_night(night: tuple[Real, str, int]) -> None:
    real, run, before = night
    was = real.stage()
    real.signal("api-server", signal.SIGKILL)
    time.sleep(AWAY_S)
    real.start("api-server")
    gone(was, 2 * HERE_S)  # it takes that long to answer
    ends_well(real, run, before)


def test_what_ends_while_the_api_server_is_away_is_not_done_again(night: tuple[Real, str, int]) -> None:
    real, run, before = night
    real.signal("api-server", signal.SIGKILL)
    real.enough()
    until(lambda: not real.stage(), 30)
    time.sleep(AWAY_S)
    real.start("api-server")
    steps = real.steps()
    assert real.ended(run) == "success", real.told(run)
    assert (real.steps(), real.nights()) == (steps, before + 1)
    assert {name: one["outcome"] for name, one in real.night(run)["stages"].items()} == {
        "slow": "cached",
        "after": "ran",
    }


def test_a_night_that_ended_well_and_is_cleared_is_what_it_then_becomes(airflow: Real) -> None:
    """Of tasks that do not begin again Airflow keeps what they said the first time."""
    real, pipeline = airflow, (airflow.toy.root / "dvc.yaml").read_text()
    real.enough()
    real.toy.commit({"seed.txt": str(time.time())})
    run = real.trigger()
    assert real.ended(run) == "success", real.told(run)
    cleared = {"dry_run": False, "dag_run_id": run, "only_failed": False}
    changed = {"seed.txt": str(time.time()), "dvc.yaml": pipeline.replace("cp out.txt end.txt", "exit 3")}
    for files, state, outcomes in (
        (changed, "failed", {"slow": "ran", "after": "failed"}),
        ({"dvc.yaml": pipeline}, "success", {"slow": "unchanged", "after": "ran"}),
    ):
        real.toy.commit(files)
        real.request("POST", "dags/toy/clearTaskInstances", cleared | {"reset_dag_runs": True})
        until(lambda: real.state(run) not in ENDED, 30)
        assert real.ended(run) == state, real.told(run)
        said = real.night(run)
        assert {name: one["outcome"] for name, one in said["stages"].items()} == outcomes
        assert said["published"] == (real.toy.git("rev-parse", "dvc-airflow") if state == "success" else None)


def test_a_night_waits_for_a_stage_that_was_cleared_and_publishes_nothing_of_what_it_had_made(airflow: Real) -> None:
    real, before, again = airflow, airflow.nights(), airflow.marks / "again"
    pipeline, slow = (real.toy.root / "dvc.yaml").read_text(), f"python slow.py {real.marks}"
    changed = pipeline.replace("cp out.txt end.txt", f"{slow} end.txt")
    changed = changed.replace(f"{slow} out.txt", f"test ! -e {again} || sleep 10; date +%s%N > out.txt")
    changed = changed.replace("outs: [out.txt]", "outs: [out.txt], always_changed: true")
    real.enough(False)
    real.toy.commit({"dvc.yaml": changed})
    run = real.trigger()
    real.in_the_middle(run)
    again.touch()
    asked = {"dry_run": False, "dag_run_id": run, "only_failed": False, "only_running": False}
    real.request("POST", "dags/toy/clearTaskInstances", asked | {"task_ids": ["slow"]})
    real.enough()
    assert real.ended(run) == "failed", real.told(run)
    assert "after read an earlier result of slow" in real.night(run)["sentence"]
    assert real.nights() == before
    cleared = {"task_ids": ["after"], "include_downstream": True, "reset_dag_runs": True}
    real.request("POST", "dags/toy/clearTaskInstances", asked | cleared)
    until(lambda: real.state(run) not in ENDED, 30)
    assert real.ended(run) == "success", real.told(run)
    assert real.night(run)["published"] == real.toy.git("rev-parse", "dvc-airflow")
    held = lock.parse(real.toy.git("show", "dvc-airflow:dvc.lock"))
    assert held["after"]["deps"][0]["md5"] == held["slow"]["outs"][0]["md5"]
    real.toy.commit({"dvc.yaml": pipeline})
