"""What a stage's end means: of what it says itself, of what its shell says, and of what went wrong around it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from dvc_airflow import secrets
from dvc_engine.git import GitError, without_login
from dvc_engine.night import journal
from dvc_engine.pipeline import lock
from dvc_engine.stage import process
from dvc_engine.stage.outcome import Result
from dvc_engine.store import objects, snapshot
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
    told = journal.of_stage(result.as_json() | {"attempts": 1}, None)
    assert result.outcome == "ran"
    assert (told["outcome"], told["attempts"], told["rows"], told["seconds"]) == ("ran", 1, 5, result.seconds)


def test_an_exit_code_that_git_has_for_wrong_words_is_no_lost_terminal(toy: Make) -> None:
    result = ran(toy(one("git commit --nonsense 2>/dev/null")))
    assert (result.outcome, result.sentence.split(" (")[0]) == ("failed", "its command ended with 129")


def test_a_crash_is_told_by_the_name_of_its_signal(toy: Make) -> None:
    result = ran(toy(one("echo dying >&2; kill -SEGV $$")))
    assert (result.outcome, result.sentence.split(" (its")[0]) == (
        "failed",
        "its command ended with 139 (SIGSEGV)\ndying",
    )


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


KEY = "\n".join(["-----BEGIN KEY-----", *(f"line{number}ofthekey" for number in range(30)), "abc"])


@pytest.mark.parametrize(
    ("secret", "said", "shown"),
    [
        (
            "postgres://me:p%40ssword@host/db",
            "no login as me with p@ssword (p%40ssword)",
            "no login as me with *** (***)",
        ),
        (KEY, "\n".join(KEY.splitlines()[-20:]), "***\n" * 19 + "abc"),
        ("https://a:b@host/", "a bad letter", "a bad letter"),
    ],
)
def test_a_part_of_a_secret_that_stands_by_itself_is_not_repeated(secret: str, said: str, shown: str) -> None:
    assert secrets.hidden(Result("one", "failed", sentence=said), [secret]).sentence == shown


PEM = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqh\nkiG9w0BAQEFAASC\n"


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ({"extra": {"token": "hunter2hunter2", "verify": False}}, "hunter2hunter2"),
        ({"extra": {"more": [{"token": "hunter2hunter2"}]}}, "hunter2hunter2"),
        ({"extra": {"keyfile_dict": {"private_key": PEM}}}, "MIIEvQIBADANBgkqh"),
        ({"extra": {"keyfile_dict": json.dumps({"private_key": PEM})}}, "kiG9w0BAQEFAASC"),
        ({"extra": {"keyfile_dict": json.dumps({"private_key": PEM}), "num_retries": 5}}, "kiG9w0BAQEFAASC"),
        ({"extra": {"token": "my secret phrase"}}, "my secret phrase"),
        ({"host": "https://host", "login": "me", "password": "p@ssword"}, "p@ssword"),
    ],
)
def test_a_secret_of_a_connection_is_not_repeated_however_deep_it_stands(connection: dict[str, Any], said: str) -> None:
    """Airflow writes extras that are not all texts as one JSON, `?__extra__=`, and a space as `+`."""
    from airflow.sdk import Connection

    extra = json.dumps(connection.pop("extra", {}))
    uri = Connection(conn_id="c", conn_type="http", extra=extra, **connection).get_uri()
    result = Result("one", "failed", sentence=f"401 for {said}, true", report={"said": [said]})
    hidden = secrets.hidden(result, [uri])
    assert (hidden.sentence, hidden.report) == ("401 for ***, true", {"said": ["***"]})


@pytest.mark.parametrize(
    "variable", ['"hunter22!"', '["hunter22!"]', '{"x": {"pw": "hunter22!"}}', '{"x": "a://b:hunter22!@c"}']
)
def test_what_is_secret_in_json_is_not_repeated(variable: str) -> None:
    said = Result("one", "failed", sentence="hunter22! is wrong")
    assert secrets.hidden(said, [variable]).sentence == "*** is wrong"


def test_words_that_stand_in_a_secret_too_are_said() -> None:
    variable = json.dumps({"mode": "train", "password": 8412736455, "more": {"bucket": "models"}}, indent=5)
    said = Result("one", "failed", sentence="train.py: models/a:     84\n     }, 8412736455", report={"train_loss": 1})
    hidden = secrets.hidden(said, [variable])
    assert (hidden.sentence, hidden.report) == ("train.py: models/a:     84\n     }, ***", {"train_loss": 1})


def test_a_part_of_a_variable_that_is_json_is_not_repeated() -> None:
    said = Result("one", "failed", sentence="me: hunter2hunter2 is wrong, since 12345")
    variable = json.dumps({"user": "me", "keys": ["hunter2hunter2"], "since": 12345})
    assert secrets.hidden(said, [variable]).sentence == "me: *** is wrong, since 12345"


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


def test_what_a_stage_said_last_is_told_without_what_a_terminal_obeys(toy: Make) -> None:
    made = toy(one("printf 'a\\033[31mred\\033[0m\\tb\\000\\001\\377\\n' >&2; exit 3"))
    assert ran(made).sentence.startswith("its command ended with 3\nared\tb\N{REPLACEMENT CHARACTER} (its clone")


def test_of_what_a_stage_writes_there_is_told_what_a_database_takes(toy: Make) -> None:
    """PostgreSQL refuses a NUL, half a pair of UTF-16, and NaN; Airflow then fails a stage that ended well."""
    report = '{"sentence": "a\\u0000b", "more": ["\\ud83d", {"loss\\u0000": NaN}], "rows": 5}'
    cmd = "cp report.json $DVC_AIRFLOW_OUTCOME; printf 'a\\000b' > out.txt"
    result = ran(toy(one(cmd).replace("[out.txt]", "[out.txt: {cache: false}]"), **{"report.json": report}))
    assert result.well, result.sentence
    assert result.report == {"sentence": "a\ufffdb", "more": ["\ufffd", {"loss\ufffd": "NaN"}], "rows": 5}
    assert result.files == {}


def test_what_a_stage_is_told_stands_in_no_file(toy: Make) -> None:
    made = toy(one("grep -rlF $TOKEN $(dirname $DVC_AIRFLOW_OUTCOME) > out.txt || true"))
    attempt = made.attempt("one", made.night("HEAD"), {})
    attempt.env = {"TOKEN": "hush-hush"}
    assert kept(made, attempt.run()) == ""


def test_of_a_stage_that_could_not_be_started_nothing_stays_open(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise OSError(12, "Cannot allocate memory", "python")

    made = toy(one("echo 1 > out.txt"))
    monkeypatch.setattr(process, "spawn", fails)
    before, attempt = len(list(Path("/proc/self/fd").iterdir())), made.attempt("one", made.night("HEAD"), {})
    result = attempt.run()
    assert (result.outcome, result.sentence) == ("storage", "python: Cannot allocate memory")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.spawned
def test_a_module_of_the_project_is_not_taken_for_one_of_pythons(toy: Make) -> None:
    made = toy(one("echo 1 > out.txt"), **{"select.py": "raise ImportError('mine')\n"})
    assert ran(made).outcome == "ran"


def test_of_two_stages_whose_names_are_nearly_one_each_has_its_clone(toy: Make) -> None:
    do = "{cmd: 'echo ${item} > ${item}.txt', outs: ['${item}.txt']}"
    made = toy(f"stages:\n  one: {{foreach: {{a/b: x, a.b: y}}, do: {do}}}\n")
    night = made.night("HEAD")
    assert len({made.attempt(stage, night, {}).job for stage in made.known().stages}) == 2


@pytest.mark.spawned
def test_a_command_is_run_by_the_shell_that_dvc_would_take(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bash = shutil.which("bash")
    assert bash
    monkeypatch.setenv("SHELL", bash)
    made = toy(one("[[ 1 == 1 ]] && echo $SHELL > out.txt"))
    assert kept(made, ran(made)) == f"{bash}\n"


@pytest.mark.spawned
@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", ""])
def test_a_service_without_a_shell_runs_its_stages_too(shell: str, toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", shell)
    made = toy(one("echo $SHELL > out.txt"))
    assert kept(made, ran(made)) == "/bin/sh\n"


SPEAKER = "import sys, time\nwhile True: print('x' * 100, file=sys.stderr, flush=True); time.sleep(0.001)\n"
LAST = "; ".join(f"echo {number} >&2" for number in range(25))


def test_a_helper_that_keeps_stderr_keeps_nobody_waiting(toy: Make) -> None:
    """Its own words are passed on while it lives; those of the command are all there."""
    made = toy(
        one(f"python speaker.py & {LAST}; echo $! > out.txt; printf last >&2; exit 3"), **{"speaker.py": SPEAKER}
    )
    result = ran(made)
    assert result.outcome == "failed"
    assert result.sentence.split(" (")[0].endswith("last")


def test_a_helper_of_one_command_serves_the_next(toy: Make) -> None:
    serve = "sh -c 'while sleep 0.01; do echo up >&2 && echo up >> served; done' & sleep 0.1"
    made = toy(one("").replace('cmd: ""', f'cmd: [{json.dumps(serve)}, "rm served; sleep 0.3; cp served out.txt"]'))
    assert kept(made, ran(made)).startswith("up\n")


def test_the_last_words_are_lines_whatever_ends_them(toy: Make) -> None:
    result = ran(toy(one("printf 'one\\rtwo\\r\\n\\351\\nlast' >&2; exit 3")))
    assert result.sentence.split(" (")[0] == "its command ended with 3\none\ntwo\n\ufffd\nlast"


def test_a_files_name_that_is_no_text_ends_no_stage(toy: Make) -> None:
    made = toy(one("printf x > \"$(printf 'caf\\351.txt')\"; echo 1 > out.txt"))
    result = ran(made)
    assert (result.outcome, list(result.undeclared)) == ("ran", ["caf\\xe9.txt"])


def test_such_a_file_of_the_repository_is_no_hindrance(toy: Make) -> None:
    made = toy(one("cat caf*.txt > out.txt"))
    (made.root / os.fsdecode(b"caf\xe9.txt")).write_text("black")
    commit = made.commit({})
    (made.root / os.fsdecode(b"th\xe9.txt")).write_text("green")
    taken = snapshot.take(made.root)
    assert taken != commit
    assert "th\\351.txt" in made.git("ls-tree", "-r", "--name-only", taken)
    assert kept(made, ran(made)) == "black"


def test_what_git_says_of_a_remote_shows_no_credentials(toy: Make) -> None:
    made = toy()
    with pytest.raises(GitError) as said:
        made.git("fetch", "https://me:S3CRET@127.0.0.1:9/x.git")
    assert "https://127.0.0.1:9/x.git" in str(said.value)
    assert "S3CRET" not in str(said.value)
    assert without_login("of https://me:p@ss@host/x.git and a@b") == "of https://host/x.git and a@b"
