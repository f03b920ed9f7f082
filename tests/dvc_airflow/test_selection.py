"""Which stages a DAG runs, and what a night of some alone reads, publishes and refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_airflow import operator
from dvc_engine.night import publish
from dvc_engine.pipeline import check, project, reading, selection
from dvc_engine.pipeline.naming import PIN
from dvc_engine.stage import start
from dvc_engine.store import history
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import Repository
from tests.dvc_airflow.conftest import Toy, repository

Make = Callable[..., Toy]
FILES = {
    "dvc.yaml": """\
stages:
  prep: {cmd: a, deps: [seed], outs: [data/table]}
  fit:
    matrix: {model: [small, large], seed: [1, 2]}
    cmd: b
    deps: [data/table]
    outs: ['models/${item.model}-${item.seed}']
  judge: {cmd: c, deps: [models/small-1, models/large-1], outs: [report]}
  show: {cmd: d, deps: [report], outs: [page]}
  alone: {cmd: e, outs: [x]}
""",
    "sub/dvc.yaml": "stages:\n  read: {cmd: f, deps: [../report], outs: [y]}\n",
    "sub/deep/dvc.yaml": "stages:\n  more: {cmd: g, deps: [../y], outs: [z]}\n",
    "seed": "7",
}
FITS = ["fit@large-1", "fit@large-2", "fit@small-1", "fit@small-2"]
READ, MORE = "sub/dvc.yaml:read", "sub/deep/dvc.yaml:more"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> project.Project:
    return reading.read(repository(tmp_path_factory.mktemp("selection"), FILES))


@pytest.mark.parametrize(
    ("select", "exclude", "chosen"),
    [
        ([], [], ["alone", *FITS, "judge", "prep", "show", MORE, READ]),
        (["prep"], [], ["prep"]),
        (["fit"], [], FITS),
        (["fit@small-1"], [], ["fit@small-1"]),
        (["fit@*-1"], [], ["fit@large-1", "fit@small-1"]),
        (["[jp]*", "a*"], ["alone"], ["judge", "prep"]),
        (["+judge"], [], ["fit@large-1", "fit@small-1", "judge", "prep"]),
        (["1+judge"], [], ["fit@large-1", "fit@small-1", "judge"]),
        (["judge+"], [], ["judge", "show", MORE, READ]),
        (["judge+1"], [], ["judge", "show", READ]),
        (["1+judge+1", "alone"], ["show"], ["alone", "fit@large-1", "fit@small-1", "judge", READ]),
        (["sub"], [], [MORE, READ]),
        (["sub/dvc.yaml"], [], [READ]),
        ([READ], [], [READ]),
        (["models"], [], FITS),
        (["models/small-1"], [], ["fit@small-1"]),
        (["data/table/part.csv"], [], ["prep"]),
        ([], ["fit"], ["alone", "judge", "prep", "show", MORE, READ]),
    ],
)
def test_a_selector_names_stages(
    select: list[str], exclude: list[str], chosen: list[str], known: project.Project
) -> None:
    assert sorted(one.name for one in selection.narrowed(known, select, exclude).selected) == chosen


@pytest.mark.parametrize(
    ("select", "exclude", "said"),
    [
        (["trian"], [], "'trian' selects no stage; `python -m dvc_airflow graph` lists"),
        (["prepp"], [], "'prepp' selects no stage; did you mean prep"),
        (["+jugde"], [], r"'\+jugde' selects no stage; did you mean judge"),
        (["+"], [], "selects no stage"),
        (["prep"], ["prep"], "no stage is left"),
    ],
)
def test_a_selector_of_nothing_is_refused(
    select: list[str], exclude: list[str], said: str, known: project.Project
) -> None:
    with pytest.raises(project.ProjectError, match=said):
        selection.narrowed(known, select, exclude)


def test_a_night_of_some_stages_reads_what_others_made_and_is_kept_under_the_refs(toy: Make) -> None:
    made = toy()
    first = made.run("HEAD")
    made.came = dict.fromkeys(first, made.git("rev-parse", "HEAD"))
    refs, clones = "refs/dvc-airflow", made.root / ".dvc/tmp/clones"
    record = Repository(made.root, "nightly", refs)
    whole = publish.publish(made.pinned("HEAD", record), reading.read(made.root), first, record, None, {}, clones)

    made.select = ["each@a", "total"]
    commit = made.commit({"params.yaml": "total: {by: 2}\n", "seed.txt": "8"})
    known = selection.narrowed(reading.read(made.root), made.select, [])
    pinned = Commit(made.root, commit)
    made.learn(history.newest(record, pinned, known))
    results = made.run(commit)
    assert {name: one.outcome for name, one in results.items()} == {"total": "ran", "each@a": "unchanged"}
    done = publish.publish(made.pinned(commit, record), known, results, record, "false", {}, clones)
    assert (done.new, done.said) == (True, {})
    assert made.git("rev-parse", "nightly") == whole.commit
    assert made.git("rev-parse", f"{refs}/unpublished/of-some-stages") == done.commit
    assert made.git("show", "-s", "--format=%s", done.commit) == "Night night of total, each@a"
    made.learn(history.newest(record, pinned, reading.read(made.root)))
    assert made.entries["total"] == results["total"].entry != first["total"].entry
    assert made.entries["numbers"] == first["numbers"].entry


def test_what_is_read_and_never_ran_is_refused_by_name(toy: Make) -> None:
    made = toy()
    known = reading.read(made.root)
    assert start.never(selection.narrowed(known, ["numbers"], []), {}) is None
    said = start.never(selection.narrowed(known, ["total"], []), {})
    assert said == "numbers is not selected, and no commit says what it made; run it once, or select it too"


def test_the_tasks_are_those_of_the_selection(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow.render import DvcDag

    made = toy()
    dag = DvcDag("some", made.root, select=["total+"], exclude=["each@b"])
    assert set(dag.task_ids) == {"pin", "total", "each.a", "publish", "end"}
    assert dag.get_task("total").upstream_task_ids == {"pin"}
    assert dag.get_task("publish").upstream_task_ids == {"each.a"}
    assert dag.tags != DvcDag("all", made.root).tags


def test_a_group_stands_in_a_dag_of_somebody_else(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import DAG, TaskGroup

    from dvc_airflow.pin import shape_tag
    from dvc_airflow.render import DvcTaskGroup

    made = toy()
    with DAG("mine", params={"total.by": 5, "theirs": 1}) as dag:
        first, last = EmptyOperator(task_id="first"), EmptyOperator(task_id="last")
        with TaskGroup("outer"):
            group = DvcTaskGroup("models", made.root, after={"tell": "true"}, default_args={"owner": "someone"})
        first >> group >> last
    tasks = {"pin", "numbers", "total", "each.a", "each.b", "publish", "released", "tell", "end"}
    assert set(dag.task_ids) == {"first", "last", *(f"outer.models.{name}" for name in tasks)}
    pin, end = dag.get_task("outer.models.pin"), dag.get_task("outer.models.end")
    assert (pin.upstream_task_ids, end.downstream_task_ids) == ({"first"}, {"last"})
    assert isinstance(pin, operator.Task)
    assert pin.beside(PIN) == "outer.models.pin"
    assert dag.get_task("outer.models.released").op_kwargs == {"publish": "outer.models.publish"}
    assert dag.get_task("outer.models.total").owner == "someone"
    assert shape_tag(reading.read(made.root)) in dag.tags
    run = type("Run", (), {"conf": {"theirs": 2}})
    commit = pin._commit({"dag_run": run}, pin.settings.repository, "")
    assert made.git("show", f"{commit}:params.yaml") == "total: {by: 5}"


def test_a_stage_may_be_called_as_a_task_of_the_engine(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow.render import DvcDag

    made = toy("stages:\n  publish: {cmd: a, outs: [x]}\n  end: {cmd: b, deps: [x], outs: [y]}\n")
    dag = DvcDag("toy", made.root)
    assert set(dag.task_ids) == {"pin", "publish_stage", "end_stage", "publish", "end"}
    with pytest.raises(project.ProjectError, match="after: end_stage is the id of another task"):
        DvcDag("toy", made.root, after={"end_stage": "true"})


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ("  one:\n    cmd: a\n    deps:\n    - ../x\n", r"^dvc\.yaml:4: stage one: \.\./x lies beside the repository"),
        ("  one:\n    foreach: [a]\n    do:\n      cmd: a\n      outs: [../x]\n", r"^dvc\.yaml:6: stage one@a: \.\./x"),
        (
            "  one:\n    cmd: a\n    params:\n    - ../x.yaml: [a]\n",
            r"^dvc\.yaml:4: stage one: \.\./x\.yaml lies beside",
        ),
        ("  one:\n    cmd: a\n    meta:\n      airflow: {pol: x}\n", r"^dvc\.yaml:5: stage one: meta\.airflow: unk"),
    ],
)
def test_what_cannot_be_run_is_said_with_its_line(stages: str, said: str, toy: Make) -> None:
    made = toy(f"stages:\n{stages}")
    with pytest.raises(project.ProjectError, match=said):
        check.refuse(made.root, reading.read(made.root))
