"""What the pin tells of stages that need not run, and what their tasks ask for then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dvc_engine.pipeline import lock, project
from dvc_engine.stage.outcome import Result
from dvc_engine.stage.settled import settled
from dvc_engine.store import objects
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.test_operator import RUN, Task

Make = Callable[..., Toy]
ALL = {"numbers", "total", "each@a", "each@b"}
ALWAYS = """\
stages:
  look: {cmd: cp seed.txt seen.txt, deps: [seed.txt], outs: [seen.txt], always_changed: true}
  read: {cmd: cp seen.txt read.txt, deps: [seen.txt], outs: [read.txt]}
  alone: {cmd: cp seed.txt other.txt, deps: [seed.txt], outs: [other.txt]}
"""


def told(made: Toy, commit: str) -> set[str]:
    return set(settled(made.night(commit), made.known(), made.root / ".dvc/tmp/clones"))


def ran(made: Toy) -> Toy:
    """After a first night."""
    made.came = dict.fromkeys(made.run("HEAD"), made.commit({}))
    return made


def test_a_dep_that_git_checks_out_in_other_bytes_than_it_keeps_is_the_same(toy: Make) -> None:
    made = toy(ALWAYS.replace("seed.txt", "seed.csv"), **{".gitattributes": "*.csv text eol=crlf\n", "seed.csv": "7\n"})
    assert told(ran(made), "HEAD") == set()  # the checkout's attributes may be others
    assert made.attempt("alone", made.night("HEAD"), {}).run().outcome == "unchanged"
    made.commit({"seed.csv": "8\n"})
    assert made.attempt("alone", made.night("HEAD"), {}).run().outcome == "ran"


def test_of_a_night_in_which_nothing_changed_all_is_settled(toy: Make) -> None:
    made = toy()
    assert told(made, "HEAD") == set()
    assert told(ran(made), made.commit({"README": "beside it"})) == ALL


def test_what_stands_behind_a_change_decides_for_itself(toy: Make) -> None:
    made = ran(toy())
    assert told(made, made.commit({"params.yaml": "total: {by: 2}\n"})) == {"numbers"}
    assert told(made, made.commit({"params.yaml": "total: {by: 1}\n", "seed.txt": "8"})) == set()


def test_what_reads_from_a_stage_that_always_runs_decides_for_itself(toy: Make) -> None:
    made = ran(toy(ALWAYS))
    assert told(made, made.commit({})) == {"alone"}


def test_a_stage_whose_out_is_gone_is_not_settled(toy: Make) -> None:
    made = ran(toy())
    md5 = lock.hashes(made.known().stages["total"], made.entries["total"], "outs")["total.txt"]
    objects.place(made.root / ".dvc/cache", md5).unlink()
    assert told(made, made.commit({})) == {"numbers"}


def test_what_is_not_selected_counts_as_it_is(toy: Make) -> None:
    made = ran(toy())
    made.select = ["each"]
    assert told(made, made.commit({})) == {"each@a", "each@b"}
    del made.entries["total"]
    assert told(made, made.commit({})) == set()


@pytest.fixture
def night(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Toy, object, Task]:
    """A project after a first night, its DAG, and what the pin of a second one says of it."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow.operator import KEPT, SETTLED
    from dvc_airflow.render import DvcDag

    made = ran(toy())
    pinned, known = made.night(made.commit({"params.yaml": "total: {by: 2}\n"})), made.known()
    kept = settled(pinned, known, tmp_path / "clones")
    pinned = replace(pinned, settled=list(kept))
    said = {
        ("pin", "return_value"): {"night": pinned.dumps(), "project": project.dumps(known)},
        ("pin", SETTLED): {"commit": pinned.commit, "stages": list(kept)},
        ("pin", KEPT): {name: one.as_json() | {"attempts": 1} for name, one in kept.items()},
    }
    return made, DvcDag("toy", made.root), Task(said)


def test_the_task_of_a_settled_stage_asks_once_and_says_nothing(night: tuple[Toy, object, Task]) -> None:
    made, dag, ti = night
    before, asked = dict(ti.said), []
    ti.xcom_pull = lambda task_ids, key="return_value": asked.append(key) or ti.said.get((task_ids, key))
    numbers = dag.get_task("numbers")
    assert numbers.execute({"ti": ti, "run_id": RUN}) == "unchanged"
    assert (asked, ti.said, numbers.outlets) == (["settled"], before, [])
    assert not (made.root / ".dvc/tmp/clones").is_dir() or not list((made.root / ".dvc/tmp/clones").iterdir())


def test_a_stage_behind_it_runs_with_its_entry_and_the_end_knows_both(night: tuple[Toy, object, Task]) -> None:
    made, dag, ti = night
    shutil.rmtree(made.root / ".dvc/tmp/runs", ignore_errors=True)
    ti.own = "total"
    context = {"ti": ti, "run_id": RUN, "outlet_events": _Events()}
    dag.get_task("total").execute(context)
    assert ti.said["total", "result"]["outcome"] == "ran"
    end = dag.get_task("end")
    end.pinned(context)
    stages = end._stages(context, made.known(), end._said(context, made.known()))
    assert {name: one["outcome"] for name, one in stages.items()} == {"numbers": "unchanged", "total": "ran"}


def test_an_entry_keeps_its_order_in_a_database_that_sorts_the_keys_of_json(toy: Make) -> None:
    made = ran(toy())
    entry = made.entries["total"]
    sent = json.dumps(Result("total", "ran", entry=entry).as_json(), sort_keys=True)  # as PostgreSQL does
    assert json.dumps(Result.of(json.loads(sent)).entry) == json.dumps(entry)


class _Events(dict):
    """Where a task says what its outs are now."""

    def __missing__(self, key: object) -> object:
        self[key] = type("Event", (), {})()
        return self[key]
