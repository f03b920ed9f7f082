"""The local Airflow without Airflow: who stops it and when, its pools, and its group."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nightshift.airflow
from nightshift.airflow import Airflow
from nightshift.errors import NightBroke
from nightshift.process import began
from tests.conftest import ROOT


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    """One that runs and is healthy, as far as anybody can tell."""
    (tmp_path / "requirements.txt").write_text("\napache-airflow==3.0.0\n")
    (tmp_path / "dvc.yaml").write_text("stages: {one: {cmd: a, meta: {airflow: {pool: gpu, slots: 2}}}}")
    made = Airflow(tmp_path, {})
    made.home.mkdir()
    monkeypatch.setattr(Airflow, "healthy", lambda self: self.alive)
    monkeypatch.setattr(Airflow, "request", lambda *_: {})
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        made.process.keep(child.pid, 80)
        yield made
        child.kill()


def test_a_nights_end_stops_what_it_started(airflow: Airflow) -> None:
    airflow.start()
    airflow.leave()
    assert not airflow.alive


def test_the_last_who_follows_a_night_stops_it(airflow: Airflow) -> None:
    """Whoever started it: a second one that is ended must not end the night of the first."""
    airflow.start()
    with airflow.followed():
        with airflow.followed():
            assert airflow.needed
        airflow.leave()
        assert airflow.alive
    assert not airflow.needed
    airflow.leave()
    assert not airflow.alive


def test_what_up_asked_to_stay_stays_until_down(airflow: Airflow) -> None:
    airflow.start(stay=True)
    airflow.leave()
    assert airflow.alive
    airflow.stop()
    assert (airflow.alive, airflow.stays) == (False, False)
    assert not airflow.process.file.exists()


def test_an_up_that_failed_leaves_it_to_the_night(airflow: Airflow) -> None:
    airflow.start(stay=True)
    airflow.stay(False)
    airflow.leave()
    assert not airflow.alive


def test_after_a_reboot_nothing_of_it_runs_or_stays(airflow: Airflow) -> None:
    airflow.start(stay=True)
    pid = airflow.process.pid
    airflow.process.note(began=1)
    assert (airflow.alive, airflow.stays, airflow.healthy()) == (False, False, False)
    airflow.stop()
    assert pid
    assert began(pid)


def test_one_that_is_too_busy_to_answer_is_waited_for_and_none_started_beside_it(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter([False, False, True])
    monkeypatch.setattr(Airflow, "healthy", lambda _: next(said))
    pid = airflow.process.pid
    airflow.start()
    assert airflow.process.pid == pid
    monkeypatch.setattr(Airflow, "healthy", lambda _: False)
    monkeypatch.setattr(nightshift.airflow, "HEALTHY_WITHIN_S", 0.1)
    with pytest.raises(NightBroke, match="logs: Airflow runs and does not answer; stop it with `make down`"):
        airflow.start()
    assert airflow.process.pid == pid


def test_pools_are_made_again_only_when_they_changed(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Airflow, "request", lambda _, *words: asked.append(words))
    monkeypatch.setattr("nightshift.pools.cores", lambda: 1)
    airflow.start()
    airflow.start()
    (method, path, body), *more = asked
    assert (method, path, more) == ("PATCH", "pools", [])
    assert body["actions"][0]["entities"] == [{"name": "cpu", "slots": 1}, {"name": "gpu", "slots": 2}]
    (airflow.root / "dvc.yaml").write_text("stages: {one: {cmd: a, meta: {airflow: {pool: disk}}}}")
    airflow.start()
    assert [one["name"] for one in asked[-1][2]["actions"][0]["entities"]] == ["cpu", "disk"]
    assert len(asked) == 2


def test_the_first_process_of_the_group_ends_last(tmp_path: Path) -> None:
    """What is known of the group is that process alone: were it gone first, the others could not be stopped."""
    slow = tmp_path / "airflow"
    slow.write_text(
        f"#!/usr/bin/env bash\ntrap 'sleep 0.5; exit' TERM\ntouch {tmp_path}/$1\nwhile true; do sleep 0.05; done\n"
    )
    slow.chmod(0o755)
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "AIRFLOW_HOME": str(tmp_path / "home")}
    group = subprocess.Popen(
        [shutil.which("bash") or "bash", ROOT / "deploy/airflow.sh"], env=env, start_new_session=True
    )
    made = Airflow(tmp_path, {})
    made.process.keep(group.pid, 80)
    deadline = time.monotonic() + 10
    while len(list(tmp_path.glob("*-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    began_at = time.monotonic()
    made.stop()
    assert 0.4 < time.monotonic() - began_at < 10
    group.wait(1)
    with pytest.raises(ProcessLookupError):
        os.killpg(group.pid, 0)
