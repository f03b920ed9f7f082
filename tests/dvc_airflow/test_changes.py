"""What a night's metrics are beside what they were, and what OpenLineage is told of its stages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dvc_engine.night import changes
from dvc_engine.night.changes import Change
from dvc_engine.stage.outcome import Result
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]
DVC_YAML = """\
stages:
  one:
    cmd: cp in.json m.json && cp seed.txt x.csv && mkdir d && cp seed.txt d/1
    deps: [in.json, seed.txt, "s3://bucket/deep/key"]
    outs: [x.csv, d]
    metrics: [{m.json: {cache: false}}]
"""


def metrics(text: str, made: Toy, before: str | None) -> list[Change]:
    """What changed when the stage ends with these metrics, beside those of a commit."""
    if before is not None:
        made.entries, made.came = {"one": {}}, {"one": made.commit({"m.json": before})}
    night = made.night("HEAD")
    return changes.changed(night, made.known(), {"one": Result("one", "ran", files={"m.json": text})})


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (None, '{"loss": 2}', [("loss", None, 2, None)]),
        ('{"loss": 3}', '{"loss": 2}', [("loss", 3, 2, -1)]),
        ('{"loss": 3, "deep": {"a": 1}}', '{"loss": 3, "deep": {"a": 1.5}}', [("deep.a", 1, 1.5, 0.5)]),
        ('{"gone": 1}', "{}", [("gone", 1, None, None)]),
        ('{"said": "a"}', '{"said": true}', [("said", "a", True, None)]),
        ('{"loss": NaN}', '{"loss": NaN}', []),
        ('{"loss": 1}', '{"loss": NaN}', [("loss", 1, "NaN", None)]),
        ("not { data", '{"loss": 1}', [("loss", None, 1, None)]),
        ("[1, 2]", '{"loss": 1}', [("loss", None, 1, None)]),
    ],
)
def test_metrics_that_differ_are_told(before: str | None, now: str, told: list[Any], toy: Make) -> None:
    found = metrics(now, toy(DVC_YAML, **{"in.json": "{}"}), before)
    assert [(one.metric, one.before, one.now, one.difference) for one in found] == [
        (f"m.json: {name}", *rest) for name, *rest in told
    ]


def test_the_table_has_a_line_a_metric() -> None:
    lines = changes.table([Change("one", "m.json: loss", 3, 2.5), Change("one", "m.json: new", None, "x")]).splitlines()
    assert [line.split() for line in lines] == [
        ["metric", "before", "tonight", "difference"],
        ["m.json:", "loss", "3", "2.5", "-0.5"],
        ["m.json:", "new", "x"],
    ]


ENTRY: Mapping[str, Any] = {
    "cmd": "x",
    "deps": [
        {"path": "in.json", "hash": "md5", "md5": "a1", "size": 2},
        {"path": "seed.txt", "hash": "md5", "md5": "a2", "size": 1},
        {"path": "s3://bucket/deep/key", "etag": "a3", "size": 7},
    ],
    "outs": [
        {"path": "x.csv", "hash": "md5", "md5": "b1", "size": 5},
        {"path": "d", "hash": "md5", "md5": "b2.dir", "size": 9, "nfiles": 3},
        {"path": "m.json", "hash": "md5", "md5": "b3", "size": 4},
    ],
}


@pytest.mark.parametrize("url", ["", "https://me:token@github.com/me/it.git"])
def test_openlineage_is_told_names_versions_sizes_and_code(
    url: str, toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the provider's own extraction."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from airflow.providers.openlineage.extractors.manager import ExtractorManager
    from airflow.utils.state import TaskInstanceState

    from dvc_airflow import DvcDag, lineage

    made = toy(DVC_YAML, **{"in.json": "{}"})
    if url:
        made.git("remote", "add", "there", url)
    task = DvcDag("toy", made.root, remote="there" if url else "").get_task("one")
    stage, night, run = made.known().stages["one"], made.night("HEAD"), SimpleNamespace(run_id="r")

    def told(state: Any, result: Result | None) -> Any:
        task._lineage = (lambda: lineage.of(stage, night, result, task.settings)) if result else None
        ti = SimpleNamespace(task=task)
        return ExtractorManager().extract_metadata(run, task, state, ti)

    found = told(TaskInstanceState.SUCCESS, Result("one", "ran", entry=ENTRY))
    place = ("dvc://github.com/me/it", "") if url else ("file", f"{made.root}/")
    assert [(one.namespace, one.name, one.facets["version"].datasetVersion) for one in found.inputs] == [
        (place[0], f"{place[1]}in.json", "a1"),
        (place[0], f"{place[1]}seed.txt", "a2"),
        ("s3://bucket", "deep/key", "a3"),
    ]
    counted = [(one.name, one.outputFacets["outputStatistics"]) for one in found.outputs]
    assert [(name, one.size, one.fileCount) for name, one in counted] == [
        (f"{place[1]}x.csv", 5, 1),
        (f"{place[1]}d", 9, 3),
        (f"{place[1]}m.json", 4, 1),
    ]
    assert [one.facets["storage"].fileFormat for one in found.outputs] == ["csv", "directory", "json"]
    where, code = found.job_facets["sourceCodeLocation"], found.job_facets["sourceCode"]
    repository = "https://github.com/me/it.git" if url else f"file://{made.root}"
    assert (where.repoUrl, where.path, where.version) == (repository, "dvc.yaml", night.commit)
    assert code.sourceCode == stage.cmd

    broken = told(TaskInstanceState.FAILED, Result("one", "failed"))
    assert ([one.name for one in broken.inputs], broken.outputs) == ([one.name for one in found.inputs], [])
    began = told(TaskInstanceState.RUNNING, None)
    assert (began.inputs, began.job_facets) == ([], {})


def test_lineage_is_not_imported_with_the_engine() -> None:
    code = "import sys, dvc_airflow.render; print([one for one in sys.modules if one.startswith('openlineage')])"
    env = os.environ | {"PYTHONPATH": str(Path(changes.__file__).parents[2])}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert ended.stdout.splitlines()[-1] == "[]"
