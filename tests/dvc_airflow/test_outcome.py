"""What a stage's end means: of what it says itself, of what its shell says, and of what went wrong around it."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from dvc_airflow.night import end, secrets
from dvc_airflow.pipeline import lock
from dvc_airflow.stage import process
from dvc_airflow.stage.outcome import Result
from dvc_airflow.store import objects
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]


def one(cmd: str) -> str:
    return f"stages:\n  one:\n    cmd: {json.dumps(cmd)}\n    outs: [out.txt]\n"


def ran(made: Toy) -> Result:
    return made.run("HEAD")["one"]


def kept(made: Toy, result: Result) -> str:
    """What the stage wrote."""
    assert result.well, result.sentence
    md5 = lock.hashes(made.known().stages["one"], result.entry or {}, "outs")["out.txt"]
    return objects.place(made.root / ".dvc/cache", md5).read_text()


@pytest.mark.parametrize(
    "said", ['{"outcome": "ran"}', '{"outcome": "unchanged"}', '{"outcome": 5}', "[1]", "5", '{"outcome": []}']
)
def test_a_stage_that_failed_is_not_well_whatever_it_says(said: str, toy: Make) -> None:
    result = ran(toy(one(f"echo '{said}' > $DVC_AIRFLOW_OUTCOME; exit 3")))
    assert result.outcome == "failed"
    assert result.sentence.startswith("its command ended with 3")


def test_what_was_measured_is_not_said_by_the_stage(toy: Make) -> None:
    said = {"seconds": "12", "attempts": 9, "outcome": "refused", "rows": 5}
    result = ran(toy(one(f"echo '{json.dumps(said)}' > $DVC_AIRFLOW_OUTCOME; echo 1 > out.txt")))
    told = end._reported(result.as_json() | {"attempts": 1}, None)
    assert (result.outcome, result.report) == ("ran", {"rows": 5})
    assert (told["outcome"], told["attempts"], told["rows"], told["seconds"]) == ("ran", 1, 5, result.seconds)


def test_an_exit_code_that_git_has_for_wrong_words_is_no_lost_terminal(toy: Make) -> None:
    result = ran(toy(one("git commit --nonsense 2>/dev/null")))
    assert (result.outcome, result.sentence.split(" (")[0]) == ("failed", "its command ended with 129")


def test_what_a_remotes_client_raises_is_told(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("Unable to locate credentials")

    monkeypatch.setattr(Repo, "reproduce", fails)
    result = ran(toy(one("echo 1 > out.txt")))
    assert result.outcome == "failed"
    assert result.sentence.startswith("RuntimeError: Unable to locate credentials")


def test_a_short_name_is_not_taken_for_a_letter_of_a_sentence(toy: Make) -> None:
    made = toy(one("echo > e; echo > out.txt") + "  two: {cmd: exit 3, deps: [out.txt], outs: [b]}\n")
    results = made.run("HEAD")
    assert list(results["one"].undeclared) == ["e"]
    assert results["two"].sentence.split(" (")[0] == "its command ended with 3"


@pytest.mark.parametrize(
    ("secret", "report", "shown"),
    [
        ("true", {"ok": True, "said": "it is true"}, {"ok": True, "said": "it is ***"}),
        ("10", {"rows": 10, "more": [{"10": "x10"}]}, {"rows": 10, "more": [{"***": "x***"}]}),
    ],
)
def test_a_secret_that_is_also_a_word_of_json_is_taken_from_texts_alone(
    secret: str, report: dict[str, Any], shown: dict[str, Any]
) -> None:
    assert secrets.hidden(Result("one", "failed", report=report), [secret]).report == shown


@pytest.mark.spawned
def test_a_stage_cannot_ask_airflows_supervisor(toy: Make) -> None:
    """In a task standard input is the socket on which connections and variables are asked for."""
    made, held = toy(one("readlink /proc/self/fd/0 > out.txt")), os.dup(0)
    ours, _theirs = socket.socketpair()
    os.dup2(ours.fileno(), 0)
    try:
        result = ran(made)
    finally:
        os.dup2(held, 0)
        os.close(held)
    assert kept(made, result) == f"{os.devnull}\n"


def test_what_a_stage_says_and_is_told_is_for_its_owner_alone(toy: Make) -> None:
    made = toy(one("stat -c %a $(dirname $DVC_AIRFLOW_OUTCOME)/record.jsonl > out.txt"))
    assert kept(made, ran(made)) == "600\n"


def test_secrets_of_a_stage_that_could_not_be_started_do_not_stay(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise OSError(12, "Cannot allocate memory", "python")

    made = toy(one("echo 1 > out.txt"))
    monkeypatch.setattr(process, "spawn", fails)
    before, attempt = len(list(Path("/proc/self/fd").iterdir())), made.attempt("one", made.night("HEAD"), {})
    result = attempt.run()
    assert (result.outcome, result.sentence) == ("storage", "python: Cannot allocate memory")
    assert not (attempt.job / "job.json").exists()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the folder's owner


@pytest.mark.spawned
def test_a_module_of_the_project_is_not_taken_for_one_of_pythons(toy: Make) -> None:
    made = toy(one("echo 1 > out.txt"), **{"select.py": "raise ImportError('mine')\n"})
    assert ran(made).outcome == "ran"


def test_of_two_stages_whose_names_are_nearly_one_each_has_its_clone(toy: Make) -> None:
    do = "{cmd: 'echo ${item} > ${item}.txt', outs: ['${item}.txt']}"
    made = toy(f"stages:\n  one: {{foreach: {{a/b: x, a.b: y}}, do: {do}}}\n")
    night = made.night("HEAD")
    assert len({made.attempt(stage, night, {}).job for stage in made.known().stages}) == 2
