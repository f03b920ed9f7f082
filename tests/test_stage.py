"""The border of a stage: arguments by type, one sentence and one exit code for an error, metrics beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nightshift import otlp, segments, stage
from nightshift.memo import Count, Memo

STAGE = '''
"""A stage for this test."""
from pathlib import Path
from nightshift import commit, stage
from nightshift.errors import DataRefused, DiskFull, StorageError
from nightshift.sections import Split
from nightshift.stage import Work

def run(source: Path, out: Path, params: Split, work: Work):
    text = source.read_text()
    if text == "refuse":
        raise DataRefused("it is bad", str(source), "mend it")
    if text == "later":
        raise StorageError("the store is away", "s3://x", "it will be tried again")
    if text == "bug":
        raise KeyError("it")
    known = work.memo("test.length", [1])
    (size,) = known.map([text], lambda todo: [len(text) for _ in work.progress(todo, "texts")])
    commit.file(out, text)
    return {"share": params.test / 3, "size": size}

if __name__ == "__main__":
    stage.main(run)
'''


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    (tmp_path / "one.py").write_text(STAGE)
    (tmp_path / "params.yaml").write_text("split: {validation: 0.1, test: 0.1, salt: s}\n")
    (tmp_path / "in.txt").write_text("fine")
    return tmp_path


def run(project: Path, root: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PYTHONPATH": str(root / "include"), "DVC_AIRFLOW_OUTCOME": str(project / "outcome.json")}
    command = [sys.executable, "one.py", *(words or ("in.txt", "out.txt"))]
    return subprocess.run(command, cwd=project, env=env | environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("text", "code", "outcome", "sentence"),
    [
        ("refuse", 12, "refused", "one: in.txt: it is bad; mend it."),
        ("later", 13, "storage", "one: s3://x: the store is away; it will be tried again."),
    ],
)
def test_an_error_is_one_sentence_and_its_own_code(
    project: Path, root: Path, text: str, code: int, outcome: str, sentence: str
) -> None:
    (project / "in.txt").write_text(text)
    ended = run(project, root)
    assert (ended.returncode, ended.stderr.strip()) == (code, sentence)
    assert json.loads((project / "outcome.json").read_text())["outcome"] == outcome
    assert not (project / "out.txt").exists()
    assert not (project / "metrics").exists()
    assert "Traceback" in run(project, root, NIGHTSHIFT_DEBUG="1").stderr


def test_a_wrong_param_is_refused_with_its_line(project: Path, root: Path) -> None:
    (project / "params.yaml").write_text("split:\n  validation: 0.1\n  test: 7\n  salt: s\n")
    ended = run(project, root)
    assert ended.returncode == 10
    assert "params.yaml:3: split.test: input should be less than or equal to 1, not 7" in ended.stderr


def test_too_few_arguments_name_those_that_are_wanted(project: Path, root: Path) -> None:
    assert "source out" in run(project, root, "in.txt").stderr


def test_metrics_are_rounded_and_work_is_counted(project: Path, root: Path) -> None:
    assert run(project, root).returncode == 0
    assert json.loads((project / "metrics" / "one.json").read_text()) == {"share": 0.0333333, "size": 4}
    assert json.loads((project / "outcome.json").read_text())["work"]["computed"] == 1
    assert run(project, root).returncode == 0
    assert json.loads((project / "outcome.json").read_text())["work"] == {"computed": 0, "reused": 1, "bytes": 0}


def test_another_checkouts_code_is_refused(project: Path, root: Path) -> None:
    (project / "include" / "nightshift").mkdir(parents=True)
    (project / "include" / "nightshift" / "stage.py").write_text("")
    ended = run(project, root, DVC_ROOT=str(project))
    assert ended.returncode == 18
    assert "another checkout's" in ended.stderr


def test_a_memo_without_a_folder_or_with_a_broken_file_only_costs_time(tmp_path: Path) -> None:
    def length(todo: list[int]) -> list[int]:
        return [len(keys[place]) for place in todo]

    keys = ["a", "bb", "a"]
    assert Memo(None, "x", 1, Count()).map(keys, length) == [1, 2, 1]
    count = Count()
    Memo(tmp_path, "x", 1, count).map(keys, length)
    assert (count.computed, count.reused) == (2, 0)
    Memo(tmp_path, "x", 2, count).map(keys, length)
    assert count.computed == 4  # another fingerprint is another memo
    for file in tmp_path.iterdir():
        file.write_bytes(b"torn")
    assert Memo(tmp_path, "x", 1, count).map(keys, length) == [1, 2, 1]
    assert count.computed == 6


def test_a_stage_gives_way_to_an_endpoint_that_serves(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from nightshift import stage\n"
        "before = os.nice(0); stage._yield_to_endpoint(Path(sys.argv[1])); print(os.nice(0) - before)"
    )

    def lowered() -> int:
        return int(subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=True).stdout)

    assert lowered() == 0
    (tmp_path / stage.SERVING).write_text(json.dumps({"pid": os.getpid(), "port": 1}))
    assert lowered() == stage.NICE
    (tmp_path / stage.SERVING).write_text("{")
    assert lowered() == 0


def spans_of(home: Path) -> list[dict[str, Any]]:
    return [span for path in segments.files(home / "traces") for one in segments.lines(path) for span in otlp.read(one)]


def test_a_stage_is_one_span_of_its_nights_trace(project: Path, root: Path) -> None:
    home = project / "home"
    home.mkdir()
    for text in ("fine", "refuse", "bug"):
        (project / "in.txt").write_text(text)
        run(project, root, NIGHTSHIFT_HOME=str(home), DVC_AIRFLOW_RUN="manual-2026-11-26T00-45-19")
    bug, refused, ran = spans_of(home)
    assert {one["trace"] for one in (ran, refused, bug)} == {ran["trace"]}
    assert ran["attributes"] == {
        "nightshift.stage": "one",
        "nightshift.run": "manual-2026-11-26T00-45-19",
        "nightshift.outcome": "ran",
        "nightshift.exit.code": 0,
        "nightshift.work.computed": 1,
        "nightshift.work.reused": 0,
    }
    assert [one["failed"] for one in (ran, refused, bug)] == [False, True, True]
    assert refused["attributes"]["nightshift.exit.code"] == 12
    assert bug["attributes"]["error.type"] == "KeyError"


def test_a_stage_makes_no_home_and_the_same_bytes_with_one(project: Path, root: Path) -> None:
    run(project, root, NIGHTSHIFT_HOME=str(project / "home"))
    assert not (project / "home").exists()
    before = {path.name: path.read_bytes() for path in (project / "out.txt", project / "metrics" / "one.json")}
    (project / "home").mkdir()
    run(project, root, NIGHTSHIFT_HOME=str(project / "home"))
    assert len(spans_of(project / "home")) == 1
    assert before == {path.name: path.read_bytes() for path in (project / "out.txt", project / "metrics" / "one.json")}


def test_progress_is_json_where_it_is_asked_for(project: Path, root: Path) -> None:
    plain = run(project, root).stderr
    assert plain == "one: 1 of 1 texts\n"
    (project / "in.txt").write_text("another")
    said = json.loads(run(project, root, NIGHTSHIFT_LOGS="json", DVC_AIRFLOW_RUN="manual-1").stderr)
    assert (said["service"], said["run"], said["message"]) == ("one", "manual-1", "1 of 1 texts")
    assert len(said["trace"]) == 32
