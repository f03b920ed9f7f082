"""Every pool that dvc.yaml names is made, with room for its largest stage: else tasks wait for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nightshift import pools
from nightshift.errors import RepositoryError

PIPELINE = """\
stages:
  one: {cmd: a, meta: {airflow: {pool: cpu, slots: 2}}}
  two: {cmd: a, meta: {airflow: {pool: gpu}}}
  three: {foreach: [x, y], do: {cmd: a, meta: {airflow: {pool: disk, slots: 3}}}}
  four: {matrix: {name: [x]}, cmd: a, meta: {airflow: {pool: disk, slots: 2}}}
  five: {cmd: a, meta: {airflow: {pool: default_pool, slots: 2}}}
  six: {cmd: a, meta: {determinism: exact}}
  seven: {cmd: a}
  eight: {cmd: a, meta: {airflow: {pool: wide, slots: "${slots}"}}}
"""


@pytest.mark.parametrize(("cores", "slots"), [(1, 2), (8, 8)])
def test_every_pool_has_room_for_its_largest_stage(cores: int, slots: int, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    wanted = pools.wanted(tmp_path / "dvc.yaml", cores)
    assert wanted == {"cpu": slots, "gpu": 1, "disk": 3, "wide": 1}


@pytest.mark.parametrize("text", ["", "stages:\n", "[]", "stages: {one: 5, two: {meta: [5]}}"])
def test_a_pipeline_that_names_none_has_a_slot_a_core(text: str, tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text(text)
    assert pools.wanted(tmp_path / "dvc.yaml", 4) == {"cpu": 4}


def test_a_pipeline_that_is_not_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: [")
    with pytest.raises(RepositoryError, match="not YAML"):
        pools.wanted(tmp_path / "dvc.yaml", 4)


@pytest.mark.parametrize(
    ("quota", "most"), [("100000 100000", 1), ("50000 100000", 1), ("max 100000", None), ("", None)]
)
def test_cores_are_those_that_this_process_may_use(quota: str, most: int | None, tmp_path: Path) -> None:
    mine = len(os.sched_getaffinity(0))
    (tmp_path / "cpu.max").write_text(quota)
    assert pools.cores(tmp_path / "cpu.max") == (most or mine)
    assert pools.cores(tmp_path / "none") == mine
