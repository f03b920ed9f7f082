"""The tasks of a night against an Airflow that is not there: what they ask of it, and what they leave in night.json."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, ParamValidationError
from structlog.testing import capture_logs

from dvc_airflow.pin import form
from dvc_airflow.settings import run_name
from dvc_engine.git import git
from dvc_engine.night import journal, publish
from dvc_engine.pipeline import kept, project, reading
from dvc_engine.pipeline.naming import task_id
from dvc_engine.stage.attempt import Attempt
from dvc_engine.stage.outcome import Result, numbers
from dvc_engine.store import lease, workspace, written
from dvc_engine.store.repository import Repository
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]
RUN = "manual__2026-01-01T00:00:00+00:00_x"
REFS = "refs/dvc-airflow"


@dataclass
class Task:
    """What a task sees of Airflow."""

    said: dict[tuple[str, str], Any] = field(default_factory=dict)  # task, key → XCom
    states: dict[str, str] = field(default_factory=dict)  # of this run's tasks
    runs: dict[str, str] = field(default_factory=dict)
    own: str = "task"
    try_number: int = 1
    max_tries: int = 5

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return self.said.get((task_ids, key))

    def xcom_push(self, key: str, value: Any) -> None:
        self.said[self.own, key] = value

    def get_dagrun_state(self, dag_id: str, run_id: str) -> str:
        return self.runs[run_id] if run_id in self.runs else self._nothing()

    def get_task_states(self, dag_id: str, run_ids: list[str]) -> dict[str, Any]:
        return dict.fromkeys(run_ids, self.states) if self.states else self._nothing()

    def get_dag(self, dag_id: str) -> Any:
        return type("Dag", (), {"tags": ["dvc-other"]})

    def _nothing(self) -> Any:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404}))


@pytest.fixture
def dag(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Toy, Any]:
    """A toy project, and its DAG with a deploy."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow.render import DvcDag

    made = toy()
    return made, DvcDag("toy", str(made.root), after={"deploy": "python deploy.py"}, headline={"total": "total.total"})


def ended(made: Toy, dag: Any, ti: Task) -> tuple[dict[str, Any], str]:
    """night.json as `end` writes it, and what it fails with."""
    from airflow.sdk.exceptions import AirflowFailException

    said = ""
    try:
        dag.get_task("end").execute({"ti": ti, "run_id": RUN})
    except AirflowFailException as error:
        said = str(error)
    (place,) = (made.root / ".dvc" / "tmp" / "runs").rglob("night.json")
    return json.loads(place.read_text()), said


def pinned(made: Toy) -> Task:
    night, known = made.night("HEAD"), reading.read(made.root)
    pin = {"night": night.dumps(), "project": project.dumps(known)}
    results = {
        (one.replace("@", "."), "result"): Result(one, "ran").as_json() | {"attempts": 1} for one in known.stages
    }
    return Task({("pin", "return_value"): pin, **results})


def published(made: Toy, **said: Any) -> Task:
    ti = pinned(made)
    done = publish.Published("c" * 40, new=True, refused=said.pop("refused", ""), said=said)
    ti.said["publish", "return_value"] = asdict(done)
    return ti


@pytest.mark.parametrize(
    ("stage", "task"),
    [
        ("train", "train"),
        ("train@a", "train.a"),
        ("train@a/b@1", "train.a_x2f_b_x40_1"),
        ("sub/dvc.yaml:train", "sub_x3a_train"),
        ("a/b.c/dvc.yaml:train@x", "a_x2f_b_x2e_c_x3a_train.x"),
    ],
)
def test_a_stage_has_a_task_id_of_its_own_that_airflow_takes(stage: str, task: str) -> None:
    from airflow.sdk import DAG, BaseOperator, TaskGroup

    group, _, item = task.partition(".")
    assert task_id(stage) == task
    with DAG("ids"):
        made = BaseOperator(task_id=item or group, task_group=TaskGroup(group) if item else None)
    assert made.task_id == task


def test_the_end_waits_for_every_stage(dag: Any) -> None:
    """Where one fails, publish is given up at once, and others still run: they are in the record, under the lease."""
    wanted = {"numbers", "total", "each.a", "each.b", "publish", "deploy"}
    assert dag[1].get_task("end").upstream_task_ids == wanted


def test_a_night_without_a_release_is_a_success_that_says_so(dag: Any) -> None:
    made, of = dag
    night, said = ended(made, of, published(made, released=None))
    assert said == ""
    assert (night["deployed"], night["why_not_deployed"]) == (None, "no release tonight")


def test_two_dags_of_a_project_have_a_record_each(dag: Any) -> None:
    """On one schedule their runs are called the same."""
    from airflow.sdk.exceptions import AirflowFailException

    from dvc_airflow.render import DvcDag

    made, mine = dag
    ended(made, mine, published(made, released=None))
    with pytest.raises(AirflowFailException):
        DvcDag("other", made.root).get_task("end").execute({"ti": Task(), "run_id": RUN})
    records = {one.parts[-3]: json.loads(one.read_text()) for one in (made.root / ".dvc/tmp/runs").rglob("night.json")}
    assert {name: one["published"] for name, one in records.items()} == {"toy": "c" * 40, "other": None}


@pytest.mark.parametrize(("run", "left"), [(RUN, True), ("another", False)])
def test_an_end_leaves_no_pin_but_that_of_another_night(run: str, left: bool, dag: Any, tmp_path: Path) -> None:
    """Which took the lease over, and may be called the same."""
    from dvc_airflow.render import DvcDag

    (made, _), bare = dag, tmp_path / "bare"
    made.git("init", "-q", "--bare", str(bare))
    made.git("remote", "add", "origin", str(bare))
    made.git("push", "-q", "origin", "HEAD:refs/heads/dvc-airflow")
    record, ti = Repository(made.root, "dvc-airflow", "refs/dvc-airflow", "origin"), published(made, released=None)
    record.pin(run_name(RUN), made.git("rev-parse", "HEAD"))
    lease.take(record, run, "elsewhere", time.time(), owner="another's")
    DvcDag("toy", made.root, remote="origin").get_task("end").execute({"ti": ti, "run_id": RUN})
    assert bool(git(bare, "for-each-ref", "refs/dvc-airflow/pinned")) == left


def test_a_deploy_that_failed_is_no_success(dag: Any) -> None:
    made, of = dag
    ti = published(made, released="a" * 64)
    ti.said["deploy", "sentence"] = "`python deploy.py` ended with 14"
    night, said = ended(made, of, ti)
    assert said == night["sentence"] == "`python deploy.py` ended with 14"
    assert (night["deployed"], night["why_not_deployed"]) == (None, "deploy failed")


def test_a_deploy_whose_worker_died_is_no_success(dag: Any) -> None:
    made, of = dag
    night, said = ended(made, of, published(made, released="a" * 64))
    assert said == night["sentence"] == "deploy did not end well and said nothing; read its log in Airflow"


def test_a_deploy_that_went_well_is_recorded(dag: Any) -> None:
    made, of = dag
    ti = published(made, released="a" * 64)
    ti.said["deploy", "return_value"] = {"deployed": "prod"}
    night, said = ended(made, of, ti)
    assert said == ""
    assert (night["deployed"], night["why_not_deployed"], night["sentence"]) == ("prod", None, None)


def test_no_command_says_what_was_measured(dag: Any) -> None:
    made, of = dag
    said: dict[str, Any] = {
        "stages": {},
        "run": "another",
        "published": "nothing",
        "sentence": "all is well",
        "total": 5,
    }
    ti = published(made, released="v1", **said)
    ti.said["deploy", "return_value"] = {**said, "deployed": "v1"}
    night, _ = ended(made, of, ti)
    assert (night["run"], night["published"], night["sentence"]) == (
        "manual-2026-01-01T00-00-00-00-00-x",
        "c" * 40,
        None,
    )
    assert (next(iter(night["stages"])), night["total"], night["deployed"]) == ("numbers", None, "v1")


def test_a_deploy_that_held_back_says_why(dag: Any) -> None:
    made, of = dag
    ti = published(made, released="a" * 64)
    ti.said["deploy", "return_value"] = {"deployed": None, "why_not_deployed": "frozen: the budget is spent"}
    before = time.time()
    night, said = ended(made, of, ti)
    assert said == ""
    assert (night["deployed"], night["why_not_deployed"]) == (None, "frozen: the budget is spent")
    assert before - 1 <= night["ended"] <= time.time() + 0.001  # it is rounded


def test_what_could_not_be_pushed_is_not_deployed(dag: Any) -> None:
    made, of = dag
    ti = published(made, released="a" * 64, refused="protected branch")
    assert of.get_task("released").python_callable(ti) is False
    night, said = ended(made, of, ti)
    assert said == ""
    assert night["why_not_deployed"] == "the push was refused: protected branch"
    assert of.get_task("released").python_callable(published(made, released="a" * 64)) is True


def test_a_night_waits_for_a_stage_that_was_cleared_and_runs_again(dag: Any) -> None:
    made, of = dag
    ti = pinned(made)
    for state in (None, "queued", "running", "up_for_retry"):
        ti.states = {"numbers": "success", "total": state}
        with pytest.raises(AirflowRescheduleException):
            of.get_task("publish").execute({"ti": ti, "run_id": RUN})
        assert ("task", "sentence") not in ti.said
    del ti.said["numbers", "result"]
    ti.states, ti.own = {"numbers": "running"}, "total"
    with pytest.raises(AirflowRescheduleException):
        of.get_task("total").execute({"ti": ti, "run_id": RUN})
    ti.states = {"numbers": "success"}
    with pytest.raises(AirflowFailException, match="it failed, or was marked as a success by hand"):
        of.get_task("total").execute({"ti": ti, "run_id": RUN})
    ti.states = {"pin": "queued"}
    del ti.said["pin", "return_value"]
    for task in ("total", "publish"):  # which has said nothing yet
        with pytest.raises(AirflowRescheduleException):
            of.get_task(task).execute({"ti": ti, "run_id": RUN})
    ti.states = {"publish": "running"}
    with pytest.raises(AirflowRescheduleException):
        of.get_task("deploy").execute({"ti": ti, "run_id": RUN})
    ti.states = {"publish": "failed"}
    with pytest.raises(AirflowFailException, match="publish has not said what it published"):
        of.get_task("deploy").execute({"ti": ti, "run_id": RUN})


def test_a_command_that_failed_does_not_wait_for_a_stage_that_was_cleared(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow.render import DvcDag

    made = toy("stages:\n  one: {cmd: echo 1 > a, outs: [a]}\n  two: {cmd: exit 3, deps: [a], outs: [b]}\n")
    ti = pinned(made)
    ti.said["one", "result"] = made.attempt("one", made.night("HEAD"), {}).run().as_json()
    ti.states, ti.own = {"one": "running"}, "two"
    with pytest.raises(AirflowFailException, match="its command ended with 3"):
        DvcDag("toy", made.root).get_task("two").execute({"ti": ti, "run_id": RUN})


def test_what_was_made_anew_since_a_person_let_it_out_is_not_published(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow.render import DvcDag

    stage = "{cmd: date +%s%N > a, outs: [a], always_changed: true, meta: {airflow: {approve: May it be}}}"
    made = toy(f"stages:\n  one: {stage}\n")
    of, ti = DvcDag("toy", made.root), pinned(made)
    said = ti.said["pin", "return_value"] | {"let_out": []}
    ti.said = {("pin", "return_value"): said}

    def run() -> None:
        ti.said["one", "result"] = made.attempt("one", made.night("HEAD"), {}).run().as_json() | {"attempts": 1}

    def task(name: str) -> Any:
        ti.own = name
        return of.get_task(name).execute({"ti": ti, "run_id": RUN})

    run()
    with pytest.raises(KeyError):  # it asks Airflow's person
        task("one-approve")
    run()
    with pytest.raises(AirflowFailException, match="one has made something else since a person let it out"):
        task("publish")
    ti.said["one", "result"]["outcome"] = "failed"
    with pytest.raises(AirflowFailException, match="one did not end well"):
        task("publish")
    run()
    with pytest.raises(KeyError):
        task("one-approve")
    ti.said["pin", "kept"] = {"one": ti.said.pop(("one", "result"))}
    with pytest.raises(KeyError):  # of what the pin has found
        task("one-approve")
    del ti.said["pin", "kept"]
    run()
    with pytest.raises(AirflowFailException, match="one has made something else since a person let it out"):
        task("publish")
    with pytest.raises(KeyError):
        task("one-approve")
    assert task("publish")["new"]


def test_the_end_asks_publish_for_results_and_a_stage_for_those_that_it_had_not(dag: Any) -> None:
    made, of = dag
    ti = pinned(made)
    del ti.said["each.b", "result"]
    ti.own = "publish"
    with pytest.raises(Exception, match=r"each@b did not end well"):
        of.get_task("publish").execute({"ti": ti, "run_id": RUN})
    for name in ("numbers", "total", "each.a"):
        del ti.said[name, "result"]
    ti.said["each.b", "result"] = Result("each@b", "failed", sentence="it ended with 3\nand more").as_json() | {
        "attempts": 3
    }
    night, why = ended(made, of, ti)
    assert why == "the night was not published: each@b: failed: it ended with 3"  # and not its last words
    said = {name: (one["outcome"], one["attempts"]) for name, one in night["stages"].items()}
    assert said == {"numbers": ("ran", 1), "total": ("ran", 1), "each@a": ("ran", 1), "each@b": ("failed", 3)}


def well_and_then_cleared(made: Toy, **states: str) -> Task:
    """What Airflow keeps of a night that ended well, and was cleared: until a task begins again, what it said."""
    ti = published(made, released=None)
    ti.said["publish", "results"] = {name: ti.said[task_id(name), "result"] for name in ("numbers", "total")}
    ti.states = {"pin": "success"} | {one.replace("_", "."): state for one, state in states.items()}
    return ti


NO_FURTHER = dict.fromkeys(("total", "each_a", "each_b", "publish"), "upstream_failed")


def test_a_night_that_is_cleared_and_fails_is_no_success(dag: Any) -> None:
    made, of = dag
    ti = well_and_then_cleared(made, numbers="failed", **NO_FURTHER)
    ti.said["numbers", "result"] = Result("numbers", "failed", sentence="it ended with 3").as_json() | {"attempts": 2}
    night, why = ended(made, of, ti)
    assert why == "the night was not published: numbers: failed: it ended with 3"
    assert (night["published"], {name: one["outcome"] for name, one in night["stages"].items()}) == (
        None,
        {"numbers": "failed"},
    )


def test_a_stage_that_is_cleared_and_never_begins_again_is_lost(dag: Any) -> None:
    made, of = dag
    night, _ = ended(made, of, well_and_then_cleared(made, numbers="failed", **NO_FURTHER))
    assert {name: one["outcome"] for name, one in night["stages"].items()} == {"numbers": "lost"}


def test_a_night_whose_pin_refuses_when_it_is_cleared_says_so(dag: Any) -> None:
    made, of = dag
    ti = well_and_then_cleared(made, numbers="upstream_failed", **NO_FURTHER, pin="failed")
    ti.said["pin", "sentence"], ti.said["publish", "sentence"] = ".env has changed", "of the first time"
    del ti.said["pin", "return_value"]  # as Airflow does when it begins
    night, why = ended(made, of, ti)
    assert why == "the night was not published: .env has changed"
    assert (night["published"], night["stages"], night["sentence"]) == (None, {}, ".env has changed")


def test_a_deploy_that_somebody_has_marked_as_a_success_is_none_that_failed(dag: Any) -> None:
    made, of = dag
    ti = published(made, released="a" * 64)
    ti.states = {"deploy": "success"}
    night, why = ended(made, of, ti)
    assert (why, night["why_not_deployed"]) == ("", "no command says that it deployed")


def test_what_a_stage_said_of_another_commit_than_is_pinned_is_of_no_use(dag: Any) -> None:
    """A person may clear the pin alone, and then publish."""
    from airflow.sdk.exceptions import AirflowFailException

    made, of = dag
    ti = pinned(made)
    for one in ("numbers", "total", "each.a", "each.b"):
        ti.said[one, "result"]["commit"] = made.git("rev-parse", "HEAD")
    ti.said["total", "result"]["commit"] = "f" * 40
    ti.own = "publish"
    with capture_logs() as logs, pytest.raises(AirflowFailException, match=r"nothing is published: total did not end"):
        of.get_task("publish").execute({"ti": ti, "run_id": RUN})
    assert any("total" in str(one) and "clear it too" in str(one["event"]) for one in logs)
    assert set(ended(made, of, ti)[0]["stages"]) == {"numbers", "each@a", "each@b"}


def test_a_stage_that_the_pinned_commit_does_not_have_says_so(dag: Any) -> None:
    """Its DAG was read anew while the night ran, with a stage of another name."""
    from airflow.sdk.exceptions import AirflowFailException

    made, of = dag
    ti, stage = pinned(made), of.get_task("total")
    ti.own, stage.stage = "total", "sum"
    with pytest.raises(AirflowFailException, match="sum is no stage of the commit that this night runs") as failed:
        stage.execute({"ti": ti, "run_id": RUN})
    for one in ("numbers", "total", "each.a", "each.b"):
        del ti.said[one, "result"]
    ti.states = {"pin": "success", "total": "failed"}
    assert ended(made, of, ti)[0]["sentence"] == str(failed.value)


@pytest.mark.parametrize("task", ["numbers", "publish", "deploy"])
def test_without_what_the_pin_says_a_task_tells_what_to_do(task: str, dag: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    ti = Task(own=task, said={("publish", "return_value"): {"commit": "c" * 40}})
    with pytest.raises(AirflowFailException, match=r"pin has not said what this night runs; .*: clear it"):
        dag[1].get_task(task).execute({"ti": ti, "run_id": RUN})


def test_the_lease_of_a_pin_that_failed_is_given_back_by_a_worker_with_another_address(
    dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, of = dag
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://one:8080")
    monkeypatch.setattr(workspace, "make", lambda *_: pytest.fail("its disk is full"))
    ti = Task(own="pin")
    with pytest.raises(pytest.fail.Exception, match="its disk is full"):
        of.get_task("pin").execute({"ti": ti, "run_id": RUN, "dag_run": type("Run", (), {"conf": {}})})
    assert lease.read(Repository(made.root, "", REFS)) is not None
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://other:8080")
    ended(made, of, ti)
    assert lease.read(Repository(made.root, "", REFS)) is None


def test_all_that_a_night_says_of_itself_is_no_headline(dag: Any) -> None:
    made, of = dag
    ti = published(made, released="a" * 64)
    ti.said["deploy", "return_value"] = {"deployed": "prod"}
    assert set(ended(made, of, ti)[0]) - {"total"} <= journal.KEYS


def test_a_refused_publication_is_told_where_people_look(dag: Any) -> None:
    made, of = dag
    made.git("branch", "dvc-airflow")
    made.commit({"seed.txt": "8"})
    ti = published(made)
    ti.own = "publish"
    with capture_logs() as logs:
        said = of.get_task("publish").execute({"ti": ti, "run_id": RUN})
        ti.said["publish", "return_value"] = said
        of.get_task("end").execute({"ti": ti, "run_id": RUN})
    told = [str(one["event"]) for one in logs if "dvc-airflow" in str(one["event"]) and one["log_level"] == "warning"]
    assert len(told) == 2
    assert told[0].startswith(
        f"the night's commit {said['commit']} is not on dvc-airflow, and waits under refs/dvc-air"
    )
    assert all(one.endswith(": dvc-airflow has moved since this night was pinned") for one in told)


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ("foo://me:secret@x", "foo://x cannot"),
        ("nosuch::s3://x", "nosuch::s3://x cannot"),
        ("/proc/version", "/proc/version is no folder"),
        ("file:///proc/version/x", "/proc/version is no folder"),
    ],
)
def test_a_place_where_no_night_can_be_recorded_is_refused_at_the_pin(record: str, named: str, toy: Make) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from dvc_airflow import DvcDag

    pin = DvcDag("toy", toy().root, record=record).get_task("pin")
    with pytest.raises(AirflowFailException, match=f"^record: {named}"):
        pin.execute({"ti": Task(), "run_id": RUN})


@pytest.mark.parametrize("place", ["/share/runs", "simplecache::s3://bucket/x", "https://one.org/https://other.org"])
def test_a_place_that_may_be_there_at_the_end_is_not_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr(os, "stat", away)
    written.refuse(place)


def test_a_night_is_recorded_at_a_url_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    written.write(f"file://{tmp_path}/runs/one/night.json", b"{}")
    assert (tmp_path / "runs" / "one" / "night.json").read_bytes() == b"{}"


def test_a_disk_that_is_full_while_it_is_written_to_is_named_at_the_pin(
    toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException

    from dvc_airflow import DvcDag

    def full(*_: object) -> None:
        Path("/dev/full").write_text("x")

    monkeypatch.setattr(workspace, "sweep", full)
    with pytest.raises(AirflowException, match=r"^\[Errno 28\] No space left on device$"):
        DvcDag("toy", toy().root).get_task("pin").execute({"ti": Task(), "run_id": RUN})


def test_a_night_whose_record_takes_nothing_is_recorded_in_the_checkout(toy: Make) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from dvc_airflow import DvcDag

    made = toy()
    end = DvcDag("toy", made.root, record="foo://x").get_task("end")
    elsewhere = r"the night is recorded in .*night\.json, for foo://x/.* cannot be written: Protocol"
    with pytest.raises(AirflowException, match=f"^{elsewhere}"):
        end.execute({"ti": published(made), "run_id": RUN})
    (told,) = (made.root / ".dvc" / "tmp" / "runs").rglob("night.json")
    assert "stages" in json.loads(told.read_text())
    with pytest.raises(AirflowException, match=f"^the night was not published.*; {elsewhere}") as said:
        end.execute({"ti": pinned(made), "run_id": RUN})
    assert not isinstance(said.value, AirflowFailException)  # the store may answer another time


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"select": "train"}, "select is 'train': 'str' instances are not allowed as a Sequence"),
        (
            {"env": {"A_B": 1}},
            "env.A_B. is 1: Input should be a valid string; what it takes is told in dvc_airflow.settings.night",
        ),
        ({"keep_bytes": "5GB"}, "keep_bytes is '5GB': Input should be a valid integer"),
        ({"late_after": 3, "on_late": "true"}, "late_after is 3: it is a timedelta, above 0"),
        ({"record": 5}, "record is 5: it is a folder or a URL"),
        ({"env": {"A=B": "1"}}, "env.'A=B'. is no variable: a name is not empty and has no ="),
        ({"env": {"": "1"}}, "env.''. is no variable: .*; write another"),
        ({"env": {"A": "airflow://variables/X"}}, "what Airflow keeps is for a stage's meta.airflow.env"),
        (
            {"record": "s3://me:secret@bucket/x"},
            "record is s3://bucket/x, with what one logs in with, .*; write it without",
        ),
        ({"record": "s3://ME:sec/ret@bucket/x"}, "record is s3://bucket/x, with what one logs in with"),
        ({"prices": {"p": float("inf")}}, "prices.'p'. is inf"),
        ({"prices": {"p": float("nan")}}, "prices.'p'. is nan: a slot costs nothing or more"),
        ({"headline": {"k": "zz.n"}}, "headline.'k'. is 'zz.n', 'stage.metric': no stage is called 'zz'"),
        ({"publish": "'"}, "publish: `'` cannot be split into words: No closing quotation"),
        ({"after": {"deploy": ""}}, "deploy: `` cannot be split into words: there is none"),
        ({"keep_nights": -3}, "keep_nights is -3, less than nothing; write 0 or more"),
        ({"keep_nights": True}, "keep_nights is True: Input should be a valid integer"),
        ({"keep_nights": "3"}, "keep_nights is '3': Input should be a valid integer"),
        ({"pods": "no"}, "pods is 'no': Input should be a valid boolean"),
        ({"branch": "a b"}, "branch is 'a b', of which Git makes no ref; call it otherwise"),
        ({"refs": "refs/a b"}, "refs is 'refs/a b', of which Git makes no ref"),
        ({"refs": "refs/tags/x"}, "refs is refs/tags/x, where .*; name some of its own, like refs/dvc-airflow"),
        ({"refs": "refs/heads"}, "refs is refs/heads, where"),
        ({"refs": "x"}, "refs is x, where Git looks for nothing"),
        ({"checkout": "there", "remote": "/srv/it"}, "checkout is there; write an absolute path"),
        ({"checkout": "/there"}, "it is made of a remote by its address, and there is no `remote`; write that"),
        ({"checkout": "/there", "remote": "origin"}, "by its address, and `remote` is 'origin'; write that"),
        ({"checkout": "/there", "remote": "/srv/it", "push": False}, "push=False: .*; leave it out"),
        ({"headline": {"stages": "total.total"}}, "headline: night.json has a stages of its own; show that metric by"),
        ({"after": {"each.a": "true"}}, "after: each.a is the id of another task; call that command otherwise"),
        ({"after": {"total-approve": "true"}}, "after: total-approve is the id of another task"),
        ({"after": {"a b": "true"}}, "after: 'a b' is to be the id of a task in Airflow; call that command by letters"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], said: str, toy: Make) -> None:
    from dvc_airflow import DvcDag
    from dvc_engine.pipeline.project import ProjectError

    with pytest.raises(ProjectError, match=said):
        DvcDag("toy", toy().root, **options)


def test_a_home_is_where_a_shell_has_it(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc_airflow.render import DvcDag

    root = toy().root
    monkeypatch.setenv("HOME", str(root.parent))
    end = DvcDag("toy", f"~/{root.name}", checkout="~/worker", remote=str(root)).get_task("end")
    assert end.settings.root == end.settings.checkout == str(root.parent / "worker")


def test_what_is_airflows_to_know_it_is_told(toy: Make) -> None:
    from dvc_airflow.render import DvcDag

    root = toy().root
    dag = DvcDag("toy", root, tags=["ml"], description="Toys.", max_active_runs=2)
    assert (dag.tags > {"ml"}, dag.description, dag.max_active_runs) == (True, "Toys.", 2)
    assert [tag[:4] for tag in DvcDag("toy", root, tags=None).tags] == ["dvc-"]


def test_commands_after_publish_are_tried_again(dag: Any) -> None:
    made, of = dag
    deploy = of.get_task("deploy")
    assert (deploy.retries, deploy.retry_delay.total_seconds()) == (5, 5)
    ti = published(made, released="a" * 64)
    ti.own, ti.said["publish", "return_value"]["commit"] = "deploy", made.git("rev-parse", "HEAD")
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    with pytest.raises(AirflowException, match=r"`python deploy\.py` ended with 2") as failed:
        deploy.execute({"ti": ti, "run_id": RUN})
    assert not isinstance(failed.value, AirflowFailException)
    assert ti.said["deploy", "sentence"] == str(failed.value)


def test_a_stage_whose_worker_died_each_time_is_recorded_as_lost(dag: Any) -> None:
    made, of = dag
    ti = pinned(made)
    ti.states = {"numbers": "success", "total": "success", "each.a": "failed", "each.b": "upstream_failed"}
    del ti.said["each.a", "result"], ti.said["each.b", "result"]
    night, said = ended(made, of, ti)
    assert said == f"the night was not published: each@a: lost: {night['stages']['each@a']['sentence']}"
    assert set(night["stages"]) == {"numbers", "total", "each@a"}
    assert night["stages"]["each@a"]["outcome"] == "lost"
    assert f"dag_id=toy/run_id={RUN}/task_id=each.a" in night["stages"]["each@a"]["sentence"]
    assert night["why_not_deployed"] == "the night was not published"


def test_a_night_is_recorded_when_airflow_does_not_tell_states(dag: Any) -> None:
    made, of = dag
    ti = pinned(made)
    del ti.said["each.b", "result"]
    assert set(ended(made, of, ti)[0]["stages"]) == {"numbers", "total", "each@a"}


@pytest.mark.parametrize(
    ("state", "taken"), [("success", True), ("failed", True), ("running", False), ("queued", False), (None, False)]
)
def test_the_lease_of_a_run_that_has_ended_is_taken_over(state: str | None, taken: bool, dag: Any) -> None:
    made, of = dag
    record, pin = Repository(made.root, "", REFS), of.get_task("pin")
    before = "scheduled__2026-01-01T00:00:00+00:00"
    lease.take(record, before, "elsewhere", time.time(), owner=pin.holder({"run_id": before}))
    ti = Task(runs={"scheduled__2026-01-01T00:00:00+00:00": state} if state else {})
    context = {"ti": ti, "run_id": RUN}
    if taken:
        pin._lease(context)
    else:
        with pytest.raises(lease.Held):
            pin._lease(context)
    held = lease.read(record)
    assert held is not None
    assert held.run == (RUN if taken else before)


@pytest.mark.parametrize("state", ["success", "failed"])
def test_of_a_run_of_another_installation_that_is_called_the_same_airflow_is_not_asked(state: str, dag: Any) -> None:
    made, of = dag
    record = Repository(made.root, "", REFS)
    held = lease.take(record, RUN, "elsewhere", time.time(), owner="https://airflow.example.org toy")
    with pytest.raises(lease.Held, match="on elsewhere is under way"):
        of.get_task("pin")._lease({"ti": Task(runs={RUN: state}), "run_id": RUN})
    assert lease.read(record) == held
    _, said = ended(made, of, Task())
    assert "was not published" in said
    assert lease.read(record) == held


@pytest.mark.parametrize(
    ("conf", "why"),
    [
        ({}, ""),
        (
            {"total.by": 3},
            ", or where the stages rest on total.by, which this run was given, write that in params.yaml",
        ),
    ],
)
def test_another_graph_is_refused_with_a_sentence_for_the_record(
    conf: dict[str, int], why: str, dag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from dvc_airflow import pin

    made, of = dag
    made.commit({"dvc.yaml": (made.root / "dvc.yaml").read_text().replace("[a, b]", "[a, b, c]")})
    monkeypatch.setattr(pin, "WAIT_FOR_SHAPE_S", 0.0)
    ti = Task(own="pin")
    with pytest.raises(AirflowFailException, match="another graph"):
        of.get_task("pin").execute({"ti": ti, "run_id": RUN, "dag_run": type("Run", (), {"conf": conf})})
    night, _ = ended(made, of, ti)
    assert night["sentence"] == f"the scheduler follows another graph than the pinned commit's; trigger again{why}"
    assert lease.read(Repository(made.root, "", REFS)) is None


def test_a_secret_that_a_stage_says_is_not_repeated() -> None:
    told = Result("one", "failed", sentence="it said t-1\nand t-1", report={"outcome": "failed", "sentence": "t-1"})
    from dvc_airflow import secrets

    hidden = secrets.hidden(told, ["t-1", ""])
    assert (hidden.sentence, hidden.report["sentence"]) == ("it said ***\nand ***", "***")


def test_a_metric_that_airflow_cannot_carry_is_told_as_a_text() -> None:
    files = {"m.json": '{"loss": NaN, "best": -Infinity, "steps": 3, "most": 1e999}', "n.json": "[1]", "m.csv": "1"}
    assert numbers(files) == {"loss": "NaN", "best": "-Infinity", "steps": 3, "most": "1e999"}
    least, most, more = -(2**63), 2**64 - 1, 2**64
    said = json.dumps({"least": least, "most": most, "more": more, "in": {"it": [least - 1]}})
    assert numbers({"m.json": f'{said[:-1]}, "long": 1{4300 * "0"}}}'}) == {
        "least": least,
        "most": most,
        "more": str(more),
        "in": {"it": [str(least - 1)]},
        "long": "1" + 4300 * "0",
    }


def test_a_key_that_no_run_can_override_is_no_field(toy: Make) -> None:
    made = toy()
    made.commit({"params.yaml": "a.b: 1\n2: x\nc: {3: y, d: 4}\n"})
    assert set(form(made.root)) == {"c.d"}


@pytest.mark.parametrize("value", [None, "a", 1, 2.5, True, [1], {"a": 1}])
def test_null_may_become_anything(value: Any, toy: Make) -> None:
    made = toy()
    made.commit({"params.yaml": "note:\n"})
    assert form(made.root)["note"].resolve(value) == value


def test_values_that_json_does_not_have_are_no_field(toy: Make, tmp_path: Path) -> None:
    made = toy()
    made.commit({"params.yaml": "start: 2024-01-01\nmost: .inf\nnone: [1, .nan]\nby: 1\n"})
    assert set(form(made.root)) == {"by"}
    made.commit({"params.yaml": "# nothing yet\n"})
    assert form(made.root) == {}


def test_a_list_of_values_and_mappings_is_a_field_that_takes_both(toy: Make, tmp_path: Path) -> None:
    made = toy()
    made.commit({"params.yaml": "layers: [64, {dropout: 0.5}, [relu]]\nfolds: [{a: 1}]\n"})
    said = form(made.root)
    assert said["layers"].resolve() == [64, {"dropout": 0.5}, ["relu"]]
    assert said["layers"].resolve([{"dropout": 0.1}, "x"]) == [{"dropout": 0.1}, "x"]
    with pytest.raises(ParamValidationError):
        said["folds"].resolve([3])


def test_clones_stand_where_dvc_finds_them_whatever_link_leads_there(toy: Make) -> None:
    from dvc_airflow.render import DvcDag

    made = toy()
    link = made.root.parent / "link"
    link.symlink_to(made.root)
    clones = DvcDag("mine", link).get_task("pin").settings.clones
    told = Attempt(made.night("HEAD"), made.known(), "numbers", lambda _: {}, clones, {}).run()
    assert told.outcome == "ran", told.sentence


def test_a_dag_file_imports_what_defines_its_tasks_and_no_more(toy: Make, tmp_path: Path) -> None:
    """Airflow reads it anew for each task: what runs one task only would be imported by all others too."""
    made = toy()
    reading.read(made.root, kept.folder(made.root))
    form(made.root)
    asks = "import json, sys\nfrom pathlib import Path\nfrom dvc_airflow import DvcDag\n"
    asks += f"DvcDag('toy', Path({str(made.root)!r}))\nprint(json.dumps(sorted(sys.modules)))"
    around = os.environ | {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", asks], env=around, capture_output=True, text=True, check=True)
    held = set(json.loads(said.stdout.splitlines()[-1]))
    assert "dvc_airflow.operator" in held
    standard = {f"airflow.providers.standard.operators.{one}" for one in ("hitl", "python")}
    ours = {f"dvc_engine.{one}" for one in ("night.publish", "stage.attempt", "store.history", "store.gc")}
    assert not held & (standard | ours | {"dvc", "ruamel.yaml", "configobj", "packaging.requirements"})


def test_a_stages_process_imports_dvc_and_no_more(tmp_path: Path) -> None:
    """Each stage waits for it."""
    asks = "import json, sys\nfrom dvc_engine.stage import child\nassert child.main('nothing') == 1\n"
    asks += "print(json.dumps(sorted(sys.modules)))"
    around = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", asks]
    said = subprocess.run(words, env=around, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    held = {name.partition(".")[0] for name in json.loads(said.stdout)}
    assert "dvc" in held
    assert not held & {"airflow", "pydantic", "networkx"}
