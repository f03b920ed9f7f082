"""What users and windows take in memory follows from a configuration, and is no less than what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from nightshift import capacity, engine
from nightshift.capacity import Shape
from nightshift.engine import Kind
from nightshift.errors import DataRefused
from tests import models
from tests.conftest import ROOT
from tests.release.project import ROWS

# SmolLM2-135M: 30 layers, 3 key-value heads of 64, bfloat16
SMOL = Shape(134_515_008, 30, 3, 64, 576, 1536, 2, 8192, 0)
OPT_13B = Shape(13_000_000_000, 40, 40, 128, 5120, 20_480, 2, 2048, 0)


def test_the_cache_is_that_of_the_papers() -> None:
    assert OPT_13B.cache_a_token == 2 * 5120 * 40 * 2 == 819_200  # Kwon et al. 2023, §3: 800 KB
    assert SMOL.cache_a_token == 23_040
    assert capacity.need(SMOL, 8, 2048, slots=8).cache == 8 * 2048 * 23_040


@pytest.mark.parametrize(
    ("shape", "window", "measured"),  # MB over idle, transformers serve: capacity.py's table
    [
        (Shape(10_622_464, 4, 8, 64, 512, 1024, 2, 8192, 0), 6000, 164),
        (Shape(42_092_032, 16, 8, 64, 512, 1024, 2, 8192, 0), 6000, 403),
        (Shape(42_216_448, 4, 16, 64, 1024, 2048, 2, 8192, 0), 6000, 411),
        (SMOL, 8000, 624),
    ],
)
def test_what_was_measured_is_below_and_not_by_much(shape: Shape, window: int, measured: int) -> None:
    need = capacity.need(shape, 1, window)
    assert measured <= (need.cache + need.reading) / capacity.MEGABYTE <= 1.6 * measured


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("room", [0, 10**9, 7 * 10**9, 10**11])
def test_as_many_fit_as_fit(room: int, slots: int) -> None:
    users = capacity.fit(SMOL, room, 2048, slots)
    assert users == 0 or capacity.need(SMOL, users, 2048, slots).total <= room
    assert capacity.need(SMOL, users + 1, 2048, slots).total > room


def test_more_takes_more() -> None:
    base = capacity.need(SMOL, 4, 1024).total
    assert capacity.need(SMOL, 5, 1024).total > base < capacity.need(SMOL, 4, 2048).total
    assert capacity.need(SMOL, 4, 1024, slots=4).total < base  # weights once
    assert capacity.need(replace(SMOL, number=4), 4, 1024).total > base
    assert capacity.need(replace(SMOL, index=10**9), 4, 1024).total == base + 3 * 10**9


def test_a_system_says_its_shape(tmp_path: Path) -> None:
    folder = models.system(tmp_path / "plain", ROOT, ROWS)
    shape = Shape.of(folder, "transformers")
    assert (shape.layers, shape.head, shape.hidden, shape.number, shape.context) == (1, 16, 32, 4, 1024)
    assert shape.weights == shape.parameters * 4
    assert Shape.of(folder, "openvino").weights == 2 * shape.weights
    assert shape.index > 0
    config = folder / "base" / "config.json"
    config.write_text(config.read_text().replace("num_hidden_layers", "n_layer"))
    with pytest.raises(DataRefused, match=r"config\.json: it does not say num_hidden_layers"):
        Shape.of(folder)


def test_this_machine_has_memory() -> None:
    assert 10**8 < capacity.memory() < 10**14


@pytest.mark.long
@pytest.mark.parametrize("kind", ["openvino", "transformers"])
def test_a_running_engine_takes_no_more_than_is_planned(kind: Kind, tmp_path: Path) -> None:
    folder = models.system(tmp_path / "plain", ROOT, ROWS)
    need = capacity.need(Shape.of(folder, kind), 1, 1024)
    with engine.start(folder, 1, kind=kind) as running:
        asked = running.body([{"role": "user", "content": "a" * 900}], 8)
        assert httpx.post(
            f"{running.url}/v1/chat/completions", json=asked, headers=running.headers, timeout=60
        ).is_success
        status = Path(f"/proc/{running.child.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    planned = need.total - capacity.GATEWAY - need.index
    assert 0.5 * planned <= peak <= planned
