"""What a stage's shell keeps: its end, its last words; and what it took, by counters of energy and a price list."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import BaseOperator

from dvc_airflow import end
from dvc_engine.stage import recorder


def _package(folder: Path, number: int, microjoules: int, most: int = 1_000) -> None:
    place = folder / f"intel-rapl:{number}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text(f"{most}\n")


def _recorded(command: str, folder: Path) -> dict[str, Any]:
    """What the recorder writes of a command."""
    around = os.environ | {"SHELL": "/bin/sh", "DVC_AIRFLOW_RECORD": str(folder / "record")}
    subprocess.run([str(recorder.__file__), "-c", command], env=around, stderr=subprocess.DEVNULL, check=False)
    found: dict[str, Any] = json.loads((folder / "record").read_text())
    return found


def test_who_imports_it_keeps_their_path() -> None:
    before = list(sys.path)
    importlib.reload(recorder)
    assert sys.path == before


def test_of_a_line_without_an_end_its_first_letters_are_kept(tmp_path: Path) -> None:
    """A frame that is printed whole, say: 40 MB took nine seconds, and came so into Airflow's database."""
    line = "printf KeyError: >&2; head -c 3000000 /dev/zero | tr '\\0' x >&2"
    kept = f"KeyError:{'x' * recorder.LONGEST}"[: recorder.LONGEST]
    assert _recorded(f"{line}; echo >&2; echo; {line}", tmp_path)["tail"] == [kept, kept]


@pytest.mark.parametrize(("code", "by"), [(130, 2), (192, 64), (193, None), (255, None)])
def test_an_exit_code_above_those_of_signals_is_of_none(code: int, by: int | None, tmp_path: Path) -> None:
    assert _recorded(f"exit {code}", tmp_path)["signal"] == by


def test_energy_is_that_of_all_packages_over_the_end_of_a_counter(tmp_path: Path) -> None:
    _package(tmp_path, 0, 100)
    _package(tmp_path, 1, 900)
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of a package is in it already
    before = recorder.counters(tmp_path)
    _package(tmp_path, 0, 400)
    _package(tmp_path, 1, 150)
    assert recorder.joules(before, recorder.counters(tmp_path)) == pytest.approx((300 + 250) / 1e6)


def test_a_machine_that_does_not_tell_its_energy_gives_none(tmp_path: Path) -> None:
    assert recorder.joules(recorder.counters(tmp_path), recorder.counters(tmp_path)) is None
    _package(tmp_path, 0, 100)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert recorder.counters(tmp_path) == {}


@pytest.mark.parametrize(
    ("said", "costs"),
    [({"pool": "gpu", "pool_slots": 2}, 3.0), ({"pool": "gpu"}, 1.5), ({"pool": "cpu"}, None), ({}, None)],
)
def test_a_stage_costs_its_time_in_the_slots_of_its_pool(said: dict[str, Any], costs: float | None) -> None:
    task = BaseOperator(task_id="train", **said)
    assert end.money(task, {"seconds": 1800.0}, {"gpu": 3.0}) == costs
