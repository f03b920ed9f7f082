"""A night is followed through what passes, and one damaged record does not hide the others."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nightshift import night, registry, rollouts
from nightshift.errors import NightBroke
from nightshift.night import Run
from nightshift.registry import Assignment, Release

TASK = {"task_id": "dedup", "task_display_name": "dedup", "start_date": "1", "state": "success", "duration": 1.0}


@dataclass
class Scripted:
    """An Airflow that answers from a script: a state, or a failure of so many seconds."""

    script: Iterator[str | float]
    alive: bool = True
    now: float = 0.0
    home: Path = Path(".airflow")

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Answer a poll."""
        if "taskInstances" in path:
            return {"task_instances": [dict(TASK)]}
        said = next(self.script)
        if isinstance(said, float):
            self.now += said
            raise NightBroke("Airflow answered 500")
        return {"state": said}

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


def follow(script: list[str | float], alive: bool = True) -> tuple[str, Scripted]:
    airflow: Any = Scripted(iter(script), alive)
    return night.follow(airflow, Run("one", True), io.StringIO(), airflow.sleep, lambda: airflow.now), airflow


@pytest.mark.parametrize("failures", [[1.0], [0.0] * 29, [60.0], [10.0, 10.0]])
def test_polls_may_fail_for_half_a_minute(failures: list[float]) -> None:
    assert follow(["running", *failures, "running", *failures, "success"])[0] == "success"


def test_longer_is_a_night_that_broke() -> None:
    with pytest.raises(NightBroke, match="500"):
        follow(["running", *[0.0] * 40, "success"])
    with pytest.raises(NightBroke, match="500"):
        follow(["running", 60.0, 60.0, "success"])


def test_an_airflow_that_is_gone_is_not_waited_for() -> None:
    with pytest.raises(NightBroke, match="Airflow ended during the night; `make nightly` goes on with it"):
        follow(["running", 0.0, "success"], alive=False)


def record(state: Path, name: str, at: int, text: str | None = None) -> None:
    path = state / "runs" / name / "night.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"run": name, "stages": {}}) if text is None else text)
    os.utime(path, (at, at))


@pytest.mark.parametrize("text", ['{"run": ', "[]", "{}", '{"run": "b", "stages": []}', "\x00"])
def test_a_damaged_old_record_is_passed_over_and_said(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "a", 1)
    record(tmp_path, "b", 2, text)
    record(tmp_path, "c", 3)
    assert night.told(tmp_path, tmp_path, night.last(tmp_path)).startswith("Night c: nothing ran.")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"nightshift: {tmp_path}/runs/b/night.json: the record of this night is damaged")


def test_the_newest_being_damaged_is_an_error(tmp_path: Path) -> None:
    record(tmp_path, "a", 1)
    record(tmp_path, "b", 2, "{")
    with pytest.raises(NightBroke, match="damaged"):
        night.last(tmp_path)


def test_an_approval_is_noted_on_the_night_that_was_published(tmp_path: Path) -> None:
    """A later night that broke is not it; and where its record is gone, there is nothing to note it on."""
    root, state = tmp_path / "root", tmp_path / "state"
    for words in (["init", "-q", "-b", registry.BRANCH, str(root)], ["-C", str(root), "commit", "-q", "--allow-empty"]):
        who = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", *who, *words, *(["-m", "Night"] if "commit" in words else [])], check=True)
    asked = ["git", "-C", str(root), "rev-parse", registry.BRANCH]
    tip = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    made = Assignment("prod", 1, Release("v0.2.0", tip, "d" * 64))
    night.approved(root, state, made)
    record(state, "a", 1, json.dumps({"run": "a", "stages": {}, "published": tip}))
    record(state, "b", 2)
    night.approved(root, state, made)
    assert night.last(state)["run"] == "b"
    assert "approved" not in night.last(state)
    assert night.of(state, "a")["approved"] == {"version": "v0.2.0", "digest": "d" * 64, "environment": "prod"}


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("advanced", "Approved since: v0.2.0 is tried by the endpoint."),
        ("promoted", "Approved since: v0.2.0 is in prod."),
        ("back", "Approved since: v0.2.0 went back, since it errs."),
    ],
)
def test_what_became_of_an_approval_is_said(outcome: Any, said: str, tmp_path: Path) -> None:
    note = {"version": "v0.2.0", "digest": "d" * 64, "environment": "canary"}
    record(
        tmp_path, "a", 1, json.dumps({"run": "a", "stages": {}, "published": "c" * 40, "new": True, "approved": note})
    )
    entry = rollouts.Entry(1.0, "d" * 64, "v0.2.0", "a" * 64, "canary", "25 %", outcome, "it errs")
    rollouts.write(tmp_path / "home", entry)
    assert said in night.told(tmp_path, tmp_path / "home", night.last(tmp_path)).splitlines()


@pytest.mark.parametrize(
    "record",
    [
        {"stages": {"dedup": {"outcome": "failed", "sentence": "dedup: no; change split.salt."}}},
        {"stages": {}, "sentence": ".env is refused; change split.salt."},
    ],
)
def test_a_sentence_that_is_quoted_ends_once(record: dict[str, Any]) -> None:
    assert str(night.broken(record)).endswith("; change split.salt.")
