"""A command beside the stages: ended with its task and with its worker, and what it may get wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvc_airflow.operator import refusal
from dvc_engine.git import git
from dvc_engine.night.publish import PublishError, _tags, ask, publish
from dvc_engine.pipeline import reading
from dvc_engine.stage import job
from dvc_engine.stage.command import Command
from dvc_engine.stage.outcome import Result
from dvc_engine.stage.process import Leashed
from dvc_engine.store import workspace
from dvc_engine.store.repository import Repository
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.test_attempt import _appears, _gone
from tests.dvc_airflow.test_operator import RUN, Task, published

Make = Callable[..., Toy]


def asked(made: Toy, command: Command) -> dict[str, Any]:
    clones = made.root / ".dvc/tmp/clones"
    return ask(command, made.night("HEAD"), "HEAD", {"MINE": "{clone}"}, clones, workspace.cache_of(made.root))


def lasting(mark: Path) -> Command:
    """A command that does not end on SIGTERM, nor does what it started."""
    return Command(f"sh -c \"trap '' TERM; sleep 1000 & echo $! $$ > {mark}; wait; wait\"")


def test_what_is_ended_while_it_is_spawned_ends_too() -> None:
    one = Leashed(whole=False)

    def spawn(leash: int) -> subprocess.Popen[bytes]:
        one.kill()  # as a signal's handler does, which finds no child yet
        return subprocess.Popen(["sleep", "1000"], start_new_session=True)

    one.begin(spawn)
    assert one.wait() == -signal.SIGTERM


def test_a_command_that_is_ended_leaves_no_process(toy: Make, tmp_path: Path) -> None:
    mark, made = tmp_path / "pids", toy()
    command = lasting(mark)
    killer = threading.Thread(target=lambda: (_appears(mark), command.kill()))
    killer.start()
    with pytest.raises(PublishError, match="was ended from outside"):
        asked(made, command)
    killer.join()
    _gone([int(pid) for pid in mark.read_text().split()])


def test_a_command_goes_with_a_task_that_is_killed(toy: Make, tmp_path: Path) -> None:
    mark, made = tmp_path / "pids", toy()
    task = os.fork()
    if task == 0:
        asked(made, lasting(mark))
        os._exit(0)
    _appears(mark)
    os.kill(task, 9)
    os.waitpid(task, 0)
    _gone([int(pid) for pid in mark.read_text().split()], within_s=10)


def test_a_command_that_is_ended_before_it_begins_does_not(toy: Make, tmp_path: Path) -> None:
    command = lasting(tmp_path / "pids")
    command.kill()
    with pytest.raises(PublishError, match="was ended from outside"):
        asked(toy(), command)
    assert not (tmp_path / "pids").exists()


def test_a_server_that_a_command_started_goes_on_and_keeps_nobody_waiting(toy: Make, tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/pid; echo '{{}}'"
    made = toy(**{"deploy.sh": script})
    assert asked(made, Command("sh deploy.sh")) == {}
    pid = int((tmp_path / "pid").read_text())
    os.kill(pid, 0)
    os.kill(pid, 9)


def test_a_command_has_its_own_variables_and_cannot_ask_airflows_supervisor(
    toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("__AIRFLOW_SUPERVISOR_FD", "7")
    monkeypatch.setenv("PYTHONPATH", "mine")
    says = "import json, os; print(json.dumps({'env': dict(os.environ), 'stdin': os.readlink('/proc/self/fd/0')}))"
    made, held = toy(**{"says.py": says, "select.py": "raise ImportError"}), os.dup(0)
    ours, _theirs = socket.socketpair()
    os.dup2(ours.fileno(), 0)
    try:
        said = asked(made, Command("python says.py"))
    finally:
        os.dup2(held, 0)
        os.close(held)
    assert said["stdin"] == os.devnull
    assert said["env"]["PYTHONPATH"] == "mine"
    assert said["env"]["MINE"].startswith(str(made.root / ".dvc/tmp/clones"))
    assert not [name for name in said["env"] if "AIRFLOW" in name]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("no-such-program --now", "`no-such-program --now` ended with 127: no-such-program: No such file or directory"),
        ("echo 'open", "`echo 'open` cannot be split into words: No closing quotation"),
        (" ", "cannot be split into words: there is none"),
        ("sh -c 'kill -9 $$'", "ended with 137"),
        ("sh -c \"printf 'caf\\351'\"", "is no JSON object: caf\ufffd"),
        ("sh -c \"printf 'caf\\351' >&2; exit 3\"", "ended with 3: caf\ufffd"),
    ],
)
def test_what_a_command_gets_wrong_is_one_sentence(command: str, sentence: str, toy: Make) -> None:
    with pytest.raises(PublishError) as said:
        asked(toy(), Command(command))
    assert sentence in str(said.value)


def test_what_a_command_says_is_told_as_a_database_takes_it(toy: Make) -> None:
    made = toy(**{"said.json": '{"why_not_deployed": "a\\u0000b", "loss": NaN}'})
    assert asked(made, Command("cat said.json")) == {"why_not_deployed": "a\ufffdb", "loss": "NaN"}
    refused, command = Task(), Command("sh -c \"printf 'a\\000b' >&2; exit 3\"")
    with pytest.raises(PublishError) as said:
        asked(made, command)
    refusal({"ti": refused}, said.value)
    assert "ended with 3: a\ufffdb (" in refused.said["task", "sentence"]


@pytest.mark.parametrize("name", ["publish", "deploy"])
def test_a_command_whose_worker_dies_is_ended_and_tried_again(
    name: str, toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from dvc_airflow import DvcDag

    mark, made = tmp_path / "pids", toy()
    made.entries = {one: result.entry for one, result in made.run("HEAD").items()}
    text = f"sh -c 'echo $$ > {mark}; exec sleep 1000'"
    dag = DvcDag("toy", made.root, publish=text, after={"deploy": text})
    ti = published(made, released="a" * 64)
    for one, entry in made.entries.items():
        ti.said[one.replace("@", "."), "result"] = Result(one, "ran", entry=entry).as_json() | {"attempts": 1}
    ti.said["publish", "return_value"]["commit"] = made.git("rev-parse", "HEAD")
    monkeypatch.setattr(os, "getppid", lambda: mark.is_file())
    with pytest.raises(AirflowException, match="was ended from outside") as said:
        dag.get_task(name).execute({"ti": ti, "run_id": RUN})
    assert not isinstance(said.value, AirflowFailException)
    _gone([int(pid) for pid in mark.read_text().split()])


def deploying(made: Toy, bare: Path, command: str) -> Callable[[], object]:
    """Run a command behind a release at a bare remote, again and again."""
    from dvc_airflow import DvcDag

    made.git("init", "-q", "--bare", str(bare))
    made.git("remote", "add", "origin", str(bare))
    made.git("push", "-q", "origin", "HEAD:refs/heads/dvc-airflow")
    text = f"sh -c 'cd {made.root}; {command}; echo {{}}'"
    task = DvcDag("toy", made.root, remote="origin", after={"deploy": text}, register="toy[@#]*").get_task("deploy")
    ti = published(made, released="a" * 64)
    ti.said["publish", "return_value"]["commit"] = made.git("rev-parse", "HEAD")
    return lambda: task.execute({"ti": ti, "run_id": RUN})


def refusing(bare: Path, ref: str = "refs/tags/*") -> Path:
    """Let a remote refuse such refs, until this hook is gone."""
    hook = bare / "hooks" / "update"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ncase $1 in {ref}) exit 1;; esac\n")
    hook.chmod(0o755)
    return hook


def test_tags_of_the_register_go_to_the_remote_and_a_persons_do_not(toy: Make, tmp_path: Path) -> None:
    """From whichever attempt: the second finds its work done."""
    from airflow.sdk.exceptions import AirflowException

    made, bare = toy(), tmp_path / "bare"
    deploy = deploying(made, bare, "git tag mine; git tag toy@v1")
    hook = refusing(bare)
    with pytest.raises(AirflowException, match=r"` ended well, but the remote lacks tags that it made: .*declined"):
        deploy()
    hook.unlink()
    deploy()
    assert git(bare, "tag") == "toy@v1"
    deploy()


def test_tags_that_a_failed_command_made_go_to_the_remote_and_its_sentence_is_told(toy: Make, tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowException

    made, bare = toy(), tmp_path / "bare"
    deploy = deploying(made, bare, "git tag toy@v1; git tag toy#prod#1; echo not ready >&2; exit 3")
    refusing(bare, "refs/tags/toy@v1")  # and one that is refused keeps no other back
    with pytest.raises(AirflowException, match="ended with 3: not ready"):
        deploy()
    assert git(bare, "tag") == "toy#prod#1"


def test_a_command_that_made_no_tags_does_not_fail_for_those_of_others(toy: Make, tmp_path: Path) -> None:
    made, bare = toy(), tmp_path / "bare"
    deploy = deploying(made, bare, f"mv {bare} {bare}.away")
    made.git("tag", "toy@draft")
    deploy()
    assert git(Path(f"{bare}.away"), "tag") == ""


def test_tags_that_came_between_two_nights_go_to_the_remote_when_the_next_begins(toy: Make, tmp_path: Path) -> None:
    """An endpoint assigns what it serves when it is sure of it, and people roll back."""
    from dvc_airflow import DvcDag

    made, bare = toy(), tmp_path / "bare"
    deploying(made, bare, "true")
    made.git("tag", "toy#prod#2")
    pin = DvcDag("toy", made.root, remote="origin", register="toy[@#]*").get_task("pin")
    hook = refusing(bare)
    for there in ("", "toy#prod#2"):
        pin.execute({"ti": Task(), "run_id": RUN, "dag_run": type("Run", (), {"conf": {}})})
        assert git(bare, "tag") == there
        hook.unlink(missing_ok=True)


def test_a_tag_that_is_another_at_the_remote_is_not_moved_there(toy: Make, tmp_path: Path) -> None:
    from airflow.sdk.exceptions import AirflowException

    made, bare = toy(), tmp_path / "bare"
    deploy = deploying(made, bare, "git tag -f toy@v1")
    made.git("tag", "toy@v1", "HEAD^{tree}")
    made.git("push", "-q", "origin", "toy@v1")
    with pytest.raises(AirflowException, match="already exists"):
        deploy()
    assert git(bare, "rev-parse", "toy@v1") == made.git("rev-parse", "HEAD^{tree}")


@pytest.mark.parametrize("tags", ["v1", [None], [{"message": "no name"}], ["v1"], 5, {"name": "v1"}])
def test_a_tag_without_a_name_is_refused(tags: Any) -> None:
    with pytest.raises(PublishError, match=r"`say` asks for tags .*; tags are a list of objects with name and message"):
        _tags(Command("say"), {"tags": tags})


@pytest.mark.parametrize("message", [["a", "b"], {"x": 1}, 5])
def test_a_message_that_is_no_text_is_refused(message: object, toy: Make) -> None:
    made = toy(**{"said.json": json.dumps({"message": message})})
    results, record = made.run("HEAD"), Repository(made.root, "nightly", "refs/dvc-airflow")
    night, known = made.pinned("HEAD", record), reading.read(made.root)
    with pytest.raises(PublishError, match=r"`cat said\.json` gives the message .*, which is no text"):
        publish(night, known, results, record, Command("cat said.json"), {}, made.root / ".dvc/tmp/clones")


def test_no_tags_are_none(toy: Make) -> None:
    made = toy(**{"said.json": '{"tags": null}'})
    results, record = made.run("HEAD"), Repository(made.root, "nightly", "refs/dvc-airflow")
    night, known = made.pinned("HEAD", record), reading.read(made.root)
    assert publish(night, known, results, record, Command("cat said.json"), {}, made.root / ".dvc/tmp/clones").new


def test_no_two_tries_have_one_folder(tmp_path: Path) -> None:
    long = "fit@" + "x" * 300
    tries = [
        ("a/", "night", "one@a/b", 1), ("a/", "night", "one@a.b", 1), ("b/", "night", "one@a/b", 1),
        ("a/", "night", "one@a/b", 2), ("a/", "night-one@a", "b", 1), ("a/", "night", long + "1", 1),
        ("a/", "night", long + "2", 1), ("a/", "night", "日本" * 60, 1), ("a/", "night", "日本" * 61, 1),
    ]  # fmt: skip
    folders = {job.folder(tmp_path, *one) for one in tries}
    assert len(folders) == len(tries)
    for one in folders:
        one.mkdir()
        assert one.parent == tmp_path
    assert job.folder(tmp_path, "a/", "night", "total", 1).name.startswith("night-total-1-")
