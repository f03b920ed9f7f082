"""dvc.yaml becomes stages and edges, the same as DVC sees them, and a cached read imports nothing of DVC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dvc_engine.pipeline import check, naming, project, reading
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]


def test_a_wrong_template_is_refused(toy: Make) -> None:
    made = toy("stages:\n  one: {cmd: 'echo ${nothing.here}'}\n")
    with pytest.raises(project.ProjectError, match="nothing"):
        reading.read(made.root)


@pytest.mark.parametrize(
    ("dvc_yaml", "said"),
    [
        ("stages:\n  one: {cmd: a\n", r"dvc\.yaml:3: not YAML: .*; mend the syntax there"),
        ("stages:\n  one: {cmd: a}\n  two:\n    cmd: b\n    out: [x]\n", r"dvc\.yaml:5: stages\.two\.out: .*; mend it"),
        ("stages: 5\n", r"dvc\.yaml:1: stages: .*; write a stage below it"),
        ("stages: {}\n", r"/toy: it has no stages; write one in dvc\.yaml \(`dvc stage add`\)"),
        ("[one]\n", r"dvc\.yaml:1: the file: .*; mend it there"),
    ],
)
def test_a_broken_dvc_yaml_is_refused_in_a_line_with_its_line(dvc_yaml: str, said: str, toy: Make) -> None:
    made = toy(dvc_yaml)
    with pytest.raises(project.ProjectError, match=said) as refused:
        check.refuse(made.root, reading.read(made.root))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "key"),
    [("{retry: 3}", "retry"), ("{pool: cpu, slot: 2}", "slot"), ("{update: true}", "update")],
)
def test_an_unknown_key_of_meta_airflow_is_refused(said: str, key: str, toy: Make) -> None:
    made = toy(f"stages:\n  one: {{cmd: a, outs: [x], meta: {{airflow: {said}}}}}\n")
    wanted = f"stage one: meta.airflow: unknown key {key}; name one of pool, slots, queue, "
    with pytest.raises(project.ProjectError, match=wanted):
        check.refuse(made.root, reading.read(made.root))


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            "  publish: {cmd: a}\n  publish_stage: {cmd: b}\n",
            r"dvc\.yaml:3: stages publish and publish_stage would both",
        ),
        (
            "  a: {cmd: a, meta: {airflow: {approve: 'Well?'}}}\n  a-approve: {cmd: b}\n",
            "a and a-approve would both be the",
        ),
    ],
)
def test_two_stages_that_airflow_could_not_tell_apart_are_refused(stages: str, said: str, toy: Make) -> None:
    made = toy(f"stages:\n{stages}")
    with pytest.raises(project.ProjectError, match=said):
        check.refuse(made.root, reading.read(made.root))


def test_a_long_name_is_cut_and_stays_one_of_its_own(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc_airflow import DvcDag

    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    keys = ["字" * 40, "字" * 41, "a" * 230]
    made = toy(f"stages:\n  one: {{foreach: {json.dumps(keys)}, do: {{cmd: 'a ${{item}}'}}}}\n")
    tasks = [one.task_id for one in DvcDag("toy", made.root).tasks if hasattr(one, "stage")]
    assert len(set(tasks)) == 3
    assert max(map(len, tasks)) <= 4 + naming.LONGEST


def test_no_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(project.ProjectError, match="no DVC project is there"):
        reading.read(tmp_path)


def test_edges_follow_paths(toy: Make) -> None:
    known = reading.read(toy().root)
    assert {name: known.upstream(name) for name in known.stages} == {
        "numbers": [],
        "total": ["numbers"],
        "each@a": ["total"],
        "each@b": ["total"],
    }


def test_the_shape_changes_with_edges_and_not_with_values(toy: Make) -> None:
    made = toy()
    before = reading.read(made.root)
    made.commit({"params.yaml": "total: {by: 5}\n"})
    assert reading.read(made.root).shape == before.shape
    made.commit({"dvc.yaml": (made.root / "dvc.yaml").read_text().replace("[a, b]", "[a, b, c]")})
    assert reading.read(made.root).shape != before.shape


def test_a_cached_read_gives_the_same_without_dvc(toy: Make, tmp_path: Path) -> None:
    made = toy()
    fresh = reading.read(made.root, tmp_path / "cache")
    code = (
        "import sys; from pathlib import Path; from dvc_engine.pipeline import reading\n"
        f"found = reading.read(Path({str(made.root)!r}), Path({str(tmp_path / 'cache')!r}))\n"
        "assert not [m for m in sys.modules if m == 'dvc' or m.startswith('dvc.')]\n"
        "print(found.shape)"
    )
    plugins = Path(project.__file__).parents[2]
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(plugins)}
    )
    assert said.stdout.strip() == fresh.shape, said.stderr


def test_this_projects_own_pipeline_is_read(root: Path) -> None:
    known = reading.read(root)
    assert known.upstream("ingest") == ["discover"]
