"""What a stage's `meta.airflow` asks for, its task and its command get; what it gets wrong is said with its line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dvc_engine.pipeline import check, lock, meta, project, reading, requirements
from dvc_engine.stage import venvs
from dvc_engine.stage.outcome import Result
from dvc_engine.store import objects, workspace
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.test_attempt import _appears, _gone, _killed

Make = Callable[..., Toy]
GROW = """\
import subprocess, sys, time

if len(sys.argv) > 1:
    held = bytearray(200_000_000)
    time.sleep(20)
subprocess.run([sys.executable, __file__, "below"])
"""


def stage(cmd: str, airflow: str) -> str:
    return f"stages:\n  one:\n    cmd: {cmd}\n    outs: [x]\n    meta:\n      airflow: {airflow}\n"


def with_venv(cmd: str, deps: str = "needs.txt") -> str:
    return f"{stage(cmd, '{venv: needs.txt}')}    deps: [{deps}]\n"


def made_by(made: Toy, result: Result) -> str:
    """The content of `x`."""
    assert result.outcome == "ran", result.sentence
    md5 = lock.hashes(reading.read(made.root).stages["one"], result.entry or {}, "outs")["x"]
    return objects.place(workspace.cache_of(made.root), md5).read_text()


@pytest.mark.parametrize(
    ("airflow", "said"),
    [
        ("{slots: 0}", r"slots is 0: input should be greater than or equal to 1"),
        ("{slots: many}", r"slots is 'many': input should be a valid integer"),
        ("{execution_timeout: -5}", r"execution_timeout is -5: input should be greater than 0 seconds"),
        ("{memory: lots}", r"memory is 'lots': 'lots' is no size, like 4GB or 512MiB"),
        ("{env: {A: [1]}}", r"env\.A is \[1\]: write a text, in quotes"),
        ("{nodes: {a: 1}}", r"nodes is \{'a': 1\}: write a number of local ranks, or lines of a hostfile"),
        ("{nodes: hosts}", r"nodes is 'hosts': write a number of local ranks, or lines of a hostfile"),
        ("{env: {A: 'airflow://variable/x'}}", r"env\.A is 'airflow://variable/x': write airflow://variables/NAME"),
        ("{env: {A: 'airflow://variables/'}}", r"env\.A is 'airflow://variables/': write airflow://variables/NAME"),
        ("{env: [A]}", r"env is \['A'\]: write a mapping of names and values"),
        ("{execution_timeout: '2026-01-01'}", r"execution_timeout is .*: write seconds, or as in '1:30:00'"),
        ("{env: {'A=B': x}}", r"env\.A=B.*: the name of a variable"),
        (
            "{execution_timeout: 10000000000}",
            r"execution_timeout is 10000000000: input should be less",
        ),
        ("{nodes: 0}", r"nodes is 0: it should name one at least"),
        ("{nodes: []}", r"nodes is \[\]: it should name one at least"),
        ("{nodes: true}", r"nodes is true: write what it should be"),
        ("{memory: true}", r"memory is true: write what it should be"),
        ("{execution_timeout: true}", r"execution_timeout is true: write what it should be"),
        ("{queue: ''}", r"queue is '': string should have at least 1 character"),
        ("{venv: ''}", r"venv is '': string should have at least 1 character"),
        ("0", r"it is 0, and no mapping of pool, slots, queue,"),
        ("cpu", r"it is 'cpu', and no mapping of pool, slots, queue,"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_line(airflow: str, said: str, toy: Make) -> None:
    made = toy(stage("a", airflow))
    with pytest.raises(project.ProjectError, match=rf"^dvc\.yaml:6: stage one: meta\.airflow: {said}"):
        check.refuse(made.root, reading.read(made.root))


@pytest.mark.parametrize(
    ("said", "size"), [("4096", 4096), ("'1.5 kB'", 1500), ("2GiB", 2 << 30), ("3M", 3_000_000), ("512 MiB", 512 << 20)]
)
def test_a_size_is_in_bytes(said: str, size: int, toy: Make) -> None:
    made = toy(stage("a", f"{{memory: {said}}}"))
    assert reading.read(made.root).stages["one"].airflow.memory == size


def test_its_task_has_what_it_asks_for(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow import DvcDag
    from dvc_airflow.operator import OUTAGE

    asked = "{pool: gpu, slots: 2, queue: large, execution_timeout: '1:30:00', retries: 5, owner: ml}"
    dag = DvcDag("toy", toy(stage("a", asked)).root)
    task = dag.get_task("one")
    assert (task.pool, task.pool_slots, task.queue, task.retries, task.owner) == ("gpu", 2, "large", 5 + OUTAGE, "ml")
    assert task.execution_timeout == timedelta(hours=1.5)
    assert dag.get_task("publish").queue == "default"


def test_what_it_does_not_ask_for_is_the_dags_to_say(toy: Make) -> None:
    from dvc_airflow import DvcDag

    said = {"execution_timeout": timedelta(hours=1), "pool": "gpu", "pool_slots": 3, "queue": "far", "owner": "us"}
    made = toy(f"{stage('a', '{pool: own}')}  two: {{cmd: 'true', deps: [x]}}\n")
    dag = DvcDag("toy", made.root, default_args=said)
    one, two, end = (dag.get_task(name) for name in ("one", "two", "end"))
    assert [(task.pool, task.pool_slots, task.queue, task.owner) for task in (one, two, end)] == [
        ("own", 3, "far", "us"),
        ("gpu", 3, "far", "us"),
        ("gpu", 3, "far", "us"),
    ]
    assert {task.execution_timeout for task in (one, two, end)} == {timedelta(hours=1)}


def test_a_command_that_takes_more_memory_than_it_may_is_told_so(toy: Make) -> None:
    made = toy(stage("python grow.py", "{memory: 120MB}"), **{"grow.py": GROW})
    result = made.attempt("one", made.night("HEAD"), {}).run()
    assert result.outcome == "failed"
    assert "GB of memory, and meta.airflow.memory lets it have 0.12" in result.sentence
    assert result.seconds < 15


def test_a_command_within_its_memory_is_left_alone(toy: Make) -> None:
    made = toy(stage("sleep 0.5 && echo well > x", "{memory: 120MB}"))
    assert made_by(made, made.attempt("one", made.night("HEAD"), {}).run()) == "well\n"


def wheel(folder: Path) -> None:
    """A package of one module, built by hand."""
    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as held:
        held.writestr("tiny.py", "ANSWER = 42\n")
        held.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        held.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        held.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")


def test_a_stage_with_requirements_of_its_own_has_an_environment_of_its_own(toy: Make) -> None:
    asks = """'python -c "import sys, tiny; print(tiny.ANSWER, sys.prefix)" > x'"""
    made = toy(
        with_venv(asks, "needs.txt, tiny-1.0-py3-none-any.whl"), **{"needs.txt": "./tiny-1.0-py3-none-any.whl\n"}
    )
    wheel(made.root)
    made.commit({})
    answer, prefix = made_by(made, made.attempt("one", made.night("HEAD"), {}).run()).split()
    kept = made.root / ".dvc" / "tmp" / "venvs"
    assert (answer, Path(prefix).parent) == ("42", kept)
    before = Path(prefix).stat().st_ino
    again = made.run(made.commit({"dvc.yaml": (made.root / "dvc.yaml").read_text().replace("print(", "print(1, ")}))
    assert made_by(made, again["one"]).split() == ["1", "42", prefix]
    assert Path(prefix).stat().st_ino == before


def test_the_table_of_the_docs_has_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "dvc-on-airflow.md").read_text()
    rows = page.partition("| key | means |")[2].partition("\n\n")[0].splitlines()[2:]
    keys = {one for row in rows for one in re.findall(r"`([a-z_]+)(?:: true)?`", row.split("|")[1])}
    assert keys == {*meta.Meta.model_fields, *meta.Import.model_fields}


@pytest.mark.parametrize(
    ("needs", "outcome", "said"),
    [
        (None, "storage", "needs.txt: no such file at this commit; commit it, or name another in venv"),
        ("./gone-1.0-py3-none-any.whl\n", "storage", "needs.txt: its environment could not be made: "),
    ],
)
def test_an_environment_that_cannot_be_made_is_said(needs: str | None, outcome: str, said: str, toy: Make) -> None:
    made = toy(with_venv("a"), **({"needs.txt": needs} if needs else {}))
    result = made.attempt("one", made.night("HEAD"), {}).run()
    assert (result.outcome, result.sentence[: len(said)]) == (outcome, said)


INSTALLS = """\
import shutil, sys
from pathlib import Path
from dvc_engine.stage import venvs

folder = Path(sys.argv[1])
shutil.which = lambda *_, **__: str(folder / "uv")
venvs.make(folder / "needs.txt", folder / "venvs")
"""


def test_an_installer_goes_with_its_task_and_until_then_nobody_else_begins(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").touch()
    (tmp_path / "uv").write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 1000\n")
    (tmp_path / "uv").chmod(0o755)
    env = os.environ | {"PYTHONPATH": str(Path(venvs.__file__).parents[2])}
    task = subprocess.Popen([sys.executable, "-c", INSTALLS, str(tmp_path)], env=env)
    _appears(tmp_path / "pid")
    pid = int((tmp_path / "pid").read_text())
    open_file = Path(f"/proc/{pid}/fd/1").readlink()
    task.kill()
    task.wait()
    _gone([pid])
    assert open_file.suffix == ".lock"  # and as long as it is open it is held


def test_an_attempt_that_is_ended_ends_its_installer(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, mark = toy(with_venv("'true'"), **{"needs.txt": ""}), tmp_path / "pid"
    uv = tmp_path / "uv"
    uv.write_text(f"#!/bin/sh\nsleep 1000 &\necho $$ $! > {mark}\nwait\n")
    uv.chmod(0o755)
    monkeypatch.setattr(venvs.shutil, "which", lambda *_, **__: str(uv))
    result = _killed(made, mark, "one")
    assert (result.outcome, result.sentence) == ("cancelled", "it was ended from outside")
    _gone([int(pid) for pid in mark.read_text().split()])


def test_of_environments_the_least_used_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venvs, "_install", lambda _, made, *__: made.mkdir())
    monkeypatch.setattr(venvs, "MOST_KEPT", 2)
    needs = tmp_path / "needs.txt"
    made = []
    for name in ("a", "b", "a", "c"):
        needs.write_text(name)
        made.append(venvs.make(needs, tmp_path / "venvs"))
        venvs._used.clear()  # as where its process has ended
    assert made[0] == made[2]
    assert [one.is_dir() for one in made] == [True, False, True, True]


def test_an_environment_that_is_used_stays_and_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venvs, "_install", lambda _, made, *__: made.mkdir())
    monkeypatch.setattr(venvs, "MOST_KEPT", 1)
    needs, made = tmp_path / "needs.txt", []
    for name in ("a", "b"):
        needs.write_text(name)
        made.append(venvs.make(needs, tmp_path / "venvs"))
    assert [one.is_dir() for one in made] == [True, True]
    held = dict(venvs._used)
    assert venvs.make(needs, tmp_path / "venvs") == made[1]  # by two at once
    assert held


def test_an_environment_is_kept_by_all_that_its_requirements_rest_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(venvs, "_install", lambda _, made, *__: made.mkdir())
    (tmp_path / "more").mkdir()
    files = {
        "needs.txt": "-r more/more.txt  # and others\n--constraint=limits.txt\ntiny @ file:tiny-1.0.whl\n",
        "more/more.txt": "-rlast.txt\n-r ../needs.txt\nhttps://example.org/a.zip\n",
        "more/last.txt": "polars \\\n  --hash=sha256:0\n",
        "limits.txt": "polars<2",
        "tiny-1.0.whl": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    needs = tmp_path / "needs.txt"
    read = ["needs.txt", "more/more.txt", "more/last.txt", "limits.txt", "tiny-1.0.whl"]
    assert [one.relative_to(tmp_path).as_posix() for one in requirements.rests_on(needs)] == read
    made = {venvs.make(needs, tmp_path / "venvs")}
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n# another\n")
        made.add(venvs.make(needs, tmp_path / "venvs"))
    assert len(made) == 1 + len(files)
    assert venvs.make(needs, tmp_path / "venvs") in made


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ("polars\n-e .\n", "venv needs.txt: needs.txt:2: -e . is of a clone that goes; let PYTHONPATH show what"),
        ("--editable=./src", "venv needs.txt: needs.txt:1: --editable=./src is of a clone that goes;"),
        (".[dev]\n", "venv needs.txt: needs.txt:1: .[dev] is a folder, of a clone that goes;"),
        ("-r https://example.org/a.txt", "venv needs.txt: needs.txt:1: -r https://example.org/a.txt may say something"),
        ("-r more.txt", "venv needs.txt names more.txt, which is not among its deps: add it, so that another one runs"),
        ("more.zip", "venv needs.txt names more.zip, which is not among its deps: add it, so that another one runs"),
    ],
)
def test_requirements_of_which_no_environment_can_be_kept_are_refused(needs: str, said: str, toy: Make) -> None:
    made = toy(with_venv("a"), **{"needs.txt": needs, "more.txt": "", "more.zip": ""})
    with pytest.raises(project.ProjectError) as refused:
        check.refuse(made.root, reading.read(made.root))
    assert str(refused.value).startswith(f"dvc.yaml:6: stage one: meta.airflow: {said}")


@pytest.mark.parametrize(
    "line", ["polars==1.0", "a @ https://x.org/a.zip", "git+https://x.org/a@main", "--index-url x", "a.b"]
)
def test_what_an_index_has_is_no_file(line: str, tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text(line)
    assert requirements.rests_on(tmp_path / "needs.txt") == [tmp_path / "needs.txt"]


@pytest.mark.parametrize(
    ("nodes", "hosts"),
    [("2", "localhost slots=2\n"), ("[gpu-a slots=8, gpu-b slots=4]", "gpu-a slots=8\ngpu-b slots=4\n")],
)
def test_nodes_are_a_hostfile_for_a_launcher(nodes: str, hosts: str, toy: Make) -> None:
    made = toy(stage("cp $DVC_AIRFLOW_HOSTFILE x", f"{{nodes: {nodes}}}"))
    assert made_by(made, made.attempt("one", made.night("HEAD"), {}).run()) == hosts


def test_a_person_decides_whether_what_a_stage_made_is_read(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from airflow.sdk.exceptions import AirflowFailException
    from airflow.sdk.timezone import utcnow

    from dvc_airflow import DvcDag
    from dvc_airflow.operator import OUTAGE
    from dvc_airflow.render import RETRIES

    stages = (
        "stages:\n  one: {cmd: a, outs: [x], meta: {airflow: {approve: Is it good}}}\n"
        "  two: {cmd: b, deps: [x], outs: [y]}\n"
        "  each:\n    foreach: [a]\n    do: {cmd: c, outs: [z], meta: {airflow: {approve: And this}}}\n"
    )
    dag = DvcDag("toy", toy(stages).root)
    asks: Any = dag.get_task("one-approve")
    assert (asks.subject, asks.upstream_task_ids, asks.downstream_task_ids) == ("Is it good", {"one"}, {"two"})
    assert (asks.template_fields, asks.retries) == ((), RETRIES + OUTAGE)  # `echo {{ run_id }}` is a command's own
    assert dag.get_task("each.a-approve").downstream_task_ids == {"publish"}

    def asked(task: Any, let_out: list[str], settled: tuple[str, ...] = ("one",)) -> bool:
        told = {
            ("pin", "return_value"): {"let_out": let_out},
            ("pin", "settled"): {"stages": list(settled)},
            ("each.a", "result"): {"stage": "each@a", "outcome": "unchanged"},
        }
        pull = lambda self, task_ids, key="return_value": told.get((task_ids, key))  # noqa: E731
        pulls = type("Ti", (), {"xcom_pull": pull, "xcom_push": lambda self, key, value: None})()
        try:
            task.execute({"ti": pulls})
        except KeyError as error:  # as Airflow's own asks
            return error.args == ("task_instance",)
        return False

    both = [asks, dag.get_task("each.a-approve")]
    assert [asked(one, ["one", "each@a"]) for one in both] == [False, False]  # it was let out before
    assert [asked(one, []) for one in both] == [True, True]  # by nobody: a person ran it by hand, say
    assert asked(asks, ["one"], settled=())
    said = {"chosen_options": ["Reject"], "params_input": {}, "responded_at": utcnow()}
    pushed: dict[str, str] = {}
    ti = type("Ti", (), {"xcom_push": lambda self, key, value: pushed.update({key: value})})()
    with pytest.raises(AirflowFailException, match="one: approve was answered with no by Ada"):
        asks.execute_complete({"ti": ti}, said | {"responded_by_user": {"id": "1", "name": "Ada"}})
    assert pushed == {"sentence": "one: approve was answered with no by Ada"}


def test_what_airflow_keeps_secret_is_a_stages_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_TOKEN", "t-1")
    monkeypatch.setenv("AIRFLOW_CONN_STORE", "s3://key:word@host")
    from dvc_airflow import secrets

    assert secrets.secret("airflow://variables/token") == "t-1"
    assert secrets.secret("airflow://connections/store") == "s3://key:word@host"
    assert secrets.secret("airflow://else/x") == "airflow://else/x"
    assert secrets.secret("plain") == "plain"
