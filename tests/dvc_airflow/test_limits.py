"""A stage that takes longer than it may, and one that cannot begin: told, and tried as often as asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse
from airflow.sdk.execution_time.timeout import timeout

from dvc_airflow import secrets
from dvc_airflow.settings import Settings
from dvc_engine.git import GitError
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.test_attempt import _gone
from tests.dvc_airflow.test_operator import RUN, Task, pinned, published

Make = Callable[..., Toy]
SLOW = """\
stages:
  slow:
    cmd: echo $$ > {mark}; exec sleep 1000
    outs: [out.txt]
    meta: {{airflow: {{execution_timeout: 60, retries: 1, env: {{TOKEN: 'airflow://{kind}/TOKN'}}}}}}
"""


def task(made: Toy, tried: int) -> tuple[Any, Task]:
    """The stage's task, and what it sees of Airflow at its try."""
    from dvc_airflow import DvcDag

    ti = pinned(made)
    ti.said.pop(("slow", "result"))
    ti.own, ti.try_number, ti.max_tries = "slow", tried, 4
    return DvcDag("toy", made.root).get_task("slow"), ti


@pytest.mark.spawned
def test_a_stage_that_takes_too_long_is_tried_as_often_as_asked(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "pid"
    made = toy(SLOW.format(mark=mark, kind="variables"))
    monkeypatch.setattr(secrets, "secret", lambda value: value)
    slow, ti = task(made, 2)  # of 1 + 1, and Airflow has three more
    with pytest.raises(AirflowFailException), timeout(3):
        slow.execute({"ti": ti, "run_id": RUN})
    told = ti.said["slow", "result"]
    assert (told["outcome"], told["attempts"]) == ("cancelled", 2)
    assert "it took longer than its execution_timeout, 0:01:00" in told["sentence"]
    assert 3 <= told["seconds"] < 60
    _gone([int(mark.read_text())])


@pytest.mark.parametrize(("kind", "one"), [("variables", "variable"), ("connections", "connection")])
def test_a_variable_that_airflow_does_not_have_is_refused_by_its_name(
    kind: str, one: str, toy: Make, tmp_path: Path
) -> None:
    slow, ti = task(toy(SLOW.format(mark=tmp_path / "pid", kind=kind)), 1)
    with pytest.raises(AirflowFailException, match=f"TOKEN is airflow://{kind}/TOKN: Airflow has no such {one}"):
        slow.execute({"ti": ti, "run_id": RUN})
    assert ti.said["slow", "result"]["outcome"] == "refused"


def test_what_airflow_cannot_tell_of_now_may_be_there_another_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: str) -> None:
        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 503}))

    monkeypatch.setattr(secrets.Variable, "get", fails)
    with pytest.raises(AirflowRuntimeError):
        secrets.secret("airflow://variables/TOKEN")


def test_a_worker_without_a_checkout_tries_again(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Settings) -> None:
        raise GitError("git clone: no route to host")

    slow, ti = task(toy(SLOW.format(mark=tmp_path / "pid", kind="variables")), 1)
    monkeypatch.setattr(secrets, "secret", lambda value: value)
    monkeypatch.setattr(Settings, "repository", property(none))
    with pytest.raises(AirflowException, match="slow: storage: git clone: no route to host") as said:
        slow.execute({"ti": ti, "run_id": RUN})
    assert not isinstance(said.value, AirflowFailException)
    assert json.loads(json.dumps(ti.said["slow", "result"]))["outcome"] == "storage"


def away(made: Toy, folder: Path, **options: Any) -> tuple[Any, Task]:
    """A DAG whose remote does not answer, and what its tasks see of a published night."""
    from dvc_airflow import DvcDag

    ours = {"remote": str(folder / "away"), "checkout": folder / "own", "after": {"deploy": "true"}}
    ti = published(made, released=True)
    ti.said["deploy", "return_value"] = {}
    return DvcDag("toy", made.root, **ours, **options), ti


@pytest.mark.parametrize("name", ["publish", "deploy", "end"])
def test_so_does_one_that_publishes_and_leaves_nothing_in_the_way(name: str, toy: Make, tmp_path: Path) -> None:
    dag, ti = away(toy(), tmp_path)
    ti.own = name
    with pytest.raises(AirflowException, match=r"git clone --quiet .*does not exist") as said:
        dag.get_task(name).execute({"ti": ti, "run_id": RUN})
    assert not isinstance(said.value, AirflowFailException)
    assert (str(said.value), (tmp_path / "own").exists()) == (ti.said[name, "sentence"], False)


def test_a_night_is_recorded_elsewhere_without_a_checkout(toy: Make, tmp_path: Path) -> None:
    dag, ti = away(toy(), tmp_path, record=tmp_path / "records")
    dag.get_task("end").execute({"ti": ti, "run_id": RUN})
    assert json.loads(next((tmp_path / "records").rglob("night.json")).read_text())["published"] == "c" * 40
