"""A night through a real Airflow, the same by `dvc repro`, and what a person gets to see of both."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from ruamel.yaml import YAML

from dvc_engine.store import lease
from dvc_engine.store.repository import Repository
from nightshift import otlp, segments
from nightshift.airflow import Airflow
from nightshift.serve.keys import FORM
from nightshift.spans import FOLDER, night_of
from tests.night.project import Project, make

# the first test that asks for a night waits for it
pytestmark = pytest.mark.timeout(1500)
ALWAYS = {"discover", "start", "incumbent"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project whose Airflow and endpoint run, with no night yet."""
    folder = tmp_path_factory.mktemp("night")
    made = make(folder / "project", folder / "home")
    up = made.run("up")
    assert up.returncode == 0, up.stderr
    made.environ["UP"] = up.stdout
    yield made
    assert made.run("down").returncode == 0


@pytest.fixture(scope="module")
def first(project: Project) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The first night: what it printed, and its record."""
    ended = project.run("nightly", "--profile", "tiny")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended, project.night()


@pytest.fixture(scope="module")
def second(project: Project, first: Any) -> tuple[dict[str, Any], str, str]:
    """A night in which nothing changed: its record, and the branch before and after."""
    before = project.tip()
    ended = project.run("nightly", "--profile", "tiny")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return project.night(), before, project.tip()


def test_a_night_ends_with_a_release_in_production(project: Project, first: Any) -> None:
    _, night = first
    assert {stage["outcome"] for stage in night["stages"].values()} == {"ran"}
    assert night["verdict"] in ("GO", "NO-GO", "INCONCLUSIVE")
    assert night["deployed"] == "prod"
    assert project.git("tag", "--points-at", project.tip()).split() == ["nightshift#prod#1", "nightshift@v0.1.0"]
    assert project.git("status", "--porcelain") == ""
    assert project.git("for-each-ref", "refs/nightshift") == ""


def test_every_stage_that_ran_is_a_span_of_the_nights_one_trace(project: Project, first: Any) -> None:
    run = first[1]["run"]
    folder = project.folder / "var" / FOLDER
    lines = [line for path in segments.files(folder, "stage") for line in segments.lines(path)]
    spans = [one for line in lines for one in otlp.read(line) if one["attributes"].get("nightshift.run") == run]
    assert {one["attributes"]["nightshift.stage"] for one in spans} == set(first[1]["stages"])
    assert {one["attributes"]["nightshift.outcome"] for one in spans} == {"ran"}
    assert {int(one["trace"], 16) for one in spans} == {night_of(run)[0]}


def test_the_summary_is_one_that_a_person_understands(first: Any) -> None:
    said = first[0].stdout
    for part in (
        "files became",
        "Masked",
        "Repeats dropped",
        "Systems",
        "Verdict: ",
        "Released: ",
        "Commit: ",
        "Next: ",
    ):
        assert part in said
    assert "✓ ingest" in said
    assert "\x1b" not in said  # no terminal, no control sequences


def test_a_night_in_which_nothing_changed_does_nothing(second: Any) -> None:
    night, before, after = second
    ran = {name for name, stage in night["stages"].items() if stage["outcome"] != "unchanged"}
    assert ran == ALWAYS
    assert before == after
    assert (night["released"], night["deployed"], night["new"]) == (None, None, False)
    assert night["why_not_deployed"] == "no release tonight"
    assert night["verdict"]


@pytest.mark.long
@pytest.mark.parametrize("until", [["pretrain", "index"], []], ids=str)
def test_the_same_night_by_dvc_repro_makes_the_same_bytes(
    until: list[str], project: Project, first: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Another folder, HOME, TZ, hash seed, umask and locale; no cache, no state; and Airflow cannot be imported."""
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\n\nclass Refuse:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'airflow':\n            raise ImportError('no airflow here')\n\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    folder = tmp_path_factory.mktemp("parity") / "elsewhere"
    other = make(folder, tmp_path / "home", TZ="Asia/Kathmandu", PYTHONHASHSEED="7", LC_ALL="C")
    other.environ["PYTHONPATH"] = f"{hook}{os.pathsep}{other.environ['PYTHONPATH']}"
    refused = subprocess.run(
        [sys.executable, "-c", "import airflow"], env=other.environ, capture_output=True, check=False
    )
    assert refused.returncode != 0
    assert other.run("profile", "tiny").returncode == 0
    repro = [sys.executable, "-m", "dvc", "repro", "--no-run-cache", "--quiet", *until]
    ended = subprocess.run(
        repro, cwd=folder, env=other.environ, capture_output=True, text=True, umask=0o077, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lock = YAML(typ="safe").load((folder / "dvc.lock").read_text())["stages"]
    assert {name: entry for name, entry in lock.items() if entry != project.lock().get(name)} == {}
    assert set(until) < set(lock) if until else set(lock) == set(project.lock())
    experiment = ["exp", "run", "--quiet", "-S", "pretrain.learning_rate=1e-3", "pretrain"]
    for words in (["metrics", "show"], ["plots", "show"], ["metrics", "diff"], experiment, ["exp", "show"]):
        shown = subprocess.run(
            [sys.executable, "-m", "dvc", *words], cwd=folder, env=other.environ, capture_output=True, check=False
        )
        assert shown.returncode == 0, shown.stderr


def test_the_endpoint_answers_with_the_first_release(project: Project, first: Any) -> None:
    said = dict(line.split(": ", 1) for line in project.environ["UP"].splitlines())
    assert set(said) == {"airflow", "endpoint", "admin", "key"}
    key = Path(said["key"]).read_text().strip()
    assert FORM.fullmatch(key)
    client = openai.OpenAI(api_key=key, base_url=said["endpoint"], max_retries=8)
    messages: Any = [{"role": "user", "content": "What is the parameter axis of an array for?"}]
    answer = client.chat.completions.create(model="nightshift", messages=messages)
    about: Any = (answer.model_extra or {})["nightshift"]
    assert about["release"] == first[1]["released"]
    assert about["sections"]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="none", base_url=said["endpoint"]).chat.completions.create(
            model="nightshift", messages=messages
        )


@pytest.mark.long
def test_a_second_caller_follows_the_night_under_way(project: Project, second: Any) -> None:
    one = project.start("nightly", "--profile", "tiny", "--set", "night.timezone=Europe/Berlin")
    assert one.stdout is not None
    assert one.stdout.readline().startswith("Night ")
    other = project.run("nightly", "--profile", "tiny")
    assert other.stdout.startswith("Following the night under way")
    assert one.wait(300) == 0
    assert other.returncode == 0


@pytest.mark.long
def test_what_up_started_during_a_night_still_runs_after_it(project: Project, second: Any) -> None:
    assert project.run("down").returncode == 0
    one = project.start("nightly", "--profile", "tiny", "--set", "night.timezone=Europe/Paris")
    assert one.stdout is not None
    assert one.stdout.readline().startswith("Night ")
    up = project.run("up")
    assert up.returncode == 0, up.stderr
    assert one.wait(300) == 0
    said = dict(line.split(": ", 1) for line in up.stdout.splitlines())
    for address in (f"{said['airflow']}/api/v2/monitor/health", f"{said['endpoint'].removesuffix('/v1')}/healthz"):
        assert httpx.get(address, timeout=10).is_success


def test_what_the_pin_refuses_is_said_where_the_night_was_asked_for(project: Project, second: Any) -> None:
    secret = project.folder / ".env"
    secret.write_text("TOKEN=1")
    ended = project.run("nightly")
    secret.unlink()
    assert ended.returncode == 20
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith("nightshift: the night was refused: .env looks like a secret")


def test_a_corpus_that_validation_refuses_stops_the_night(project: Project, second: Any) -> None:
    path = project.folder / "include" / "expectations" / "raw.yaml"
    text = path.read_text()
    path.write_text(text.replace("max_value: 8000", "max_value: 90"))
    before = project.tip()
    ended = project.run("nightly", "--profile", "tiny")
    path.write_text(text)
    night = project.night()
    assert ended.returncode == 20
    assert "expect_column_values_to_be_between" in ended.stderr
    assert night["stages"]["validate-raw"]["outcome"] == "refused"
    assert {"sanitise", "dedup", "release"}.isdisjoint(night["stages"])
    assert project.tip() == before
    assert project.git("status", "--porcelain") == ""


def test_the_dags_edges_are_those_of_dvc_yaml(project: Project) -> None:
    code = (
        "import sys, json; sys.path[:0] = ['plugins', 'include', 'dags']\nfrom pathlib import Path\n"
        "from dvc_engine.pipeline import reading\nfrom dvc_engine.pipeline.naming import task_id\n"
        "from nightly import nightly\n"
        "known = reading.read(Path('.'))\n"
        "for name in known.stages:\n"
        "    above = {task_id(one) for one in known.upstream(name)} or {'pin'}\n"
        "    assert nightly.get_task(task_id(name)).upstream_task_ids == above, name\n"
        "assert sys.modules['operator'].__file__ is None or 'plugins' not in sys.modules['operator'].__file__\n"
        "print(len(known.stages))\n"
    )
    asked = [sys.executable, "-c", code]
    ended = subprocess.run(asked, cwd=project.folder, env=project.environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (
        int(ended.stdout.split()[-1])
        == len(YAML(typ="safe").load((project.folder / "dvc.yaml").read_text())["stages"]) + 5
    )


@pytest.mark.long
def test_a_night_that_died_before_its_deploy_is_deployed_by_the_next(project: Project, first: Any, second: Any) -> None:
    """Its lease is still held in its name, and Airflow says that it has ended: it is not waited for."""
    project.git("tag", "-d", "nightshift#prod#1")
    _, run, _, address, *_ = first[0].stdout.split()  # Night … at …
    record = Repository(project.folder, "nightly", "refs/nightshift")
    with closing(sqlite3.connect(Airflow(project.folder, project.environ).home / "airflow.db")) as held:
        ((installation,),) = held.execute("select val from variable where key = 'dvc_airflow_installation'")
    lease.take(record, run, "elsewhere", time.time(), owner=f"{address} nightly {installation}")
    ended = project.run("nightly", "--profile", "tiny")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    night = project.night()
    assert (night["deployed"], night["released"]) == ("prod", first[1]["released"])
    assert project.git("tag", "--list", "nightshift#*").split() == ["nightshift#prod#1"]
    assert project.git("for-each-ref", "refs/nightshift") == ""
