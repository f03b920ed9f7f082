"""Two DAGs, two installations and two checkouts of one repository side by side: neither takes what is the other's."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dvc_engine.git import git
from dvc_engine.store import lease
from dvc_engine.store.repository import Repository
from tests.dvc_airflow.conftest import Toy, at_once
from tests.dvc_airflow.test_operator import RUN, Task, ended, pinned

Make = Callable[..., Toy]
REFS = "refs/dvc-airflow"
SAME = "scheduled__2026-01-01T00:00:00+00:00"


@pytest.fixture
def made(toy: Make) -> Toy:
    """A project with a bare remote that has its commit."""
    made = toy()
    bare = made.root.parent / "bare"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    made.git("remote", "add", "origin", str(bare))
    made.git("push", "-q", "origin", "main")
    return made


def other(made: Toy) -> Repository:
    """Another checkout of the remote."""
    there = made.root.parent / "other"
    git(made.root.parent, "clone", "-q", str(made.root.parent / "bare"), str(there))
    for key, value in [("user.name", "o"), ("user.email", "o@example.org")]:
        git(there, "config", key, value)
    return Repository(there, "nights", REFS, "origin")


def of(name: str, made: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **said: Any) -> Any:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow import DvcDag

    return DvcDag(name, made.root, branch="nights", refs=REFS, remote="origin", **said)


def test_airflow_is_not_asked_of_the_runs_of_others(made: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other DAG's run of that name was refused, so that it has ended; ours is under way."""
    ours, theirs = (of(name, made, tmp_path, monkeypatch) for name in ("ours", "theirs"))
    ours.get_task("pin")._lease({"ti": Task(), "run_id": SAME})
    with pytest.raises(lease.Held):
        theirs.get_task("pin")._lease({"ti": Task(runs={SAME: "failed"}), "run_id": RUN})
    record = Repository(made.root, "nights", REFS, "origin")
    held = lease.read(record)
    assert held is not None
    assert "ours" in held.owner.split()
    late = time.time() + lease.STALE_S
    running = {"ended": lambda run: False, "running": lambda run: True}
    assert lease.take(record, RUN, "there", late, owner="theirs", **running).owner == "theirs"


def test_two_installations_at_one_address_hold_no_lease_together(
    made: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc_airflow import pin

    ours, theirs = (of("nightly", made, tmp_path, monkeypatch).get_task("pin") for _ in range(2))
    record = Repository(made.root, "nights", REFS, "origin")
    for kept, one in (({}, ours), ({}, theirs)):
        answers = [kept, {}, kept]  # one is lost
        monkeypatch.setattr(pin.Variable, "get", lambda key, default=None, all=answers: all[0].get(key, default))
        monkeypatch.setattr(pin.Variable, "set", lambda key, value, about, kept=kept: kept.update({key: value}))
        one.holder({})
    ours._lease({"ti": Task(), "run_id": SAME})
    ours._lease({"ti": Task(), "run_id": SAME})
    with pytest.raises(lease.Held):
        theirs._lease({"ti": Task(), "run_id": SAME})
    with pytest.raises(lease.Held):  # its own run of that name has ended
        theirs._lease({"ti": Task(runs={SAME: "failed"}), "run_id": RUN})
    assert not lease.release(record, SAME, theirs.holder({}))
    assert lease.release(record, SAME, ours.holder({}))


def test_a_night_that_was_refused_leaves_what_the_other_of_its_name_has_pinned(
    made: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = (of(name, made, tmp_path, monkeypatch) for name in ("ours", "theirs"))
    record, name = Repository(made.root, "nights", REFS, "origin"), "scheduled-2026-01-01T00-00-00-00-00"
    ours.get_task("pin")._lease({"ti": Task(), "run_id": SAME})
    worker, commit = other(made), made.commit({"seed.txt": "8"})
    record.pin(name, commit)
    for one in (ours, theirs):
        one.get_task("end").named = one.get_task("pin").holder({})  # as `end` has it of the pin
    theirs.get_task("end")._leave({"ti": Task(), "run_id": SAME}, None)
    worker.have(name, commit)
    assert git(worker.path, "show", f"{commit}:seed.txt") == "8"
    ours.get_task("end")._leave({"ti": Task(), "run_id": SAME}, name)
    assert lease.read(record) is None
    assert made.git("ls-remote", "origin", f"{REFS}/pinned/*") == ""


def test_what_a_night_that_nobody_ended_has_pinned_goes_with_the_next(made: Toy) -> None:
    record, commit = Repository(made.root, "nights", REFS, "origin"), made.git("rev-parse", "HEAD")
    there = other(made)
    there.pin("lost", commit)
    record.pin("next", commit)
    assert made.git("ls-remote", "origin", f"{REFS}/pinned/*") == f"{commit}\t{REFS}/pinned/next"
    there.pin("next", commit)  # another attempt at it
    assert made.git("ls-remote", "origin", f"{REFS}/pinned/*") == f"{commit}\t{REFS}/pinned/next"


def night(record: Repository, message: str, *parents: str) -> str:
    above = [word for one in ["main", *parents] for word in ("-p", one)]
    return git(record.path, "commit-tree", "main^{tree}", *above, "-m", message)


def test_a_night_that_was_kept_while_another_is_pushed_still_waits(made: Toy) -> None:
    here, there = Repository(made.root, "nights", REFS, "origin"), other(made)
    here.keep("first", first := night(here, "first"))
    here.fetch()
    there.keep("meanwhile", meanwhile := night(there, "meanwhile"))
    there.fetch()
    assert here.publish(night(here, "second", first), None, {}, here.unpublished()) == ""
    assert here.unpublished() == {}
    assert (
        git(made.root, "ls-remote", "origin", f"{REFS}/unpublished/*") == f"{meanwhile}\t{REFS}/unpublished/meanwhile"
    )
    here.keep("here", kept := night(here, "seen by nobody"))
    git(made.root, "push", "-q", "origin", f":{REFS}/unpublished/here")  # as where the remote did not take it
    there.fetch()
    here.fetch()
    assert there.unpublished() == {f"{REFS}/unpublished/meanwhile": meanwhile}  # what is published waits no more
    assert here.unpublished() == there.unpublished() | {f"{REFS}/unpublished/here": kept}


def test_tasks_that_begin_together_fetch_what_they_are_of(made: Toy) -> None:
    record = other(made)
    for number in range(3):
        commit = made.commit({"seed.txt": str(number)})
        made.git("tag", f"v{number}")
        refs = [f"HEAD:{REFS}/{name}{number}" for name in ("pinned/r", "unpublished/u")]
        made.git("push", "-q", "origin", "HEAD:nights", f"v{number}", *refs)
        assert at_once(8, partial(record.have, f"r{number}", commit)) == []


def test_a_worker_that_knows_airflow_by_another_address_gives_the_lease_back(
    made: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, ti = of("ours", made, tmp_path, monkeypatch), pinned(made)
    pin, record = ours.get_task("pin"), Repository(made.root, "nights", REFS, "origin")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://scheduler:8080")
    pin._lease({"ti": ti, "run_id": RUN})
    ti.said["pin", "return_value"]["holder"] = pin.holder({})
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://worker:8080")
    assert lease.read(record) is not None
    ended(made, ours, ti)
    assert lease.read(record) is None
