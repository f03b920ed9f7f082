"""What a stage took: energy from the machine's own counters, time in its pool by a price list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dvc_airflow.night import end
from dvc_airflow.pipeline.project import Stage
from dvc_airflow.stage import recorder


def _package(folder: Path, number: int, microjoules: int, most: int = 1_000) -> None:
    place = folder / f"intel-rapl:{number}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "energy_uj").write_text(f"{microjoules}\n")
    (place / "max_energy_range_uj").write_text(f"{most}\n")


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
    [({"pool": "gpu", "slots": 2}, 3.0), ({"pool": "gpu"}, 1.5), ({"pool": "cpu"}, None), ({}, None)],
)
def test_a_stage_costs_its_time_in_the_slots_of_its_pool(said: dict[str, Any], costs: float | None) -> None:
    stage = Stage("train", "true", (), (), {}, False, "", {"airflow": said}, "dvc.yaml", ".", False, ())
    assert end.money(stage, {"seconds": 1800.0}, {"gpu": 3.0}) == costs
