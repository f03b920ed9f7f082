"""What tests share: a stage's `Work` that keeps nothing outside the test's folder, and the repository's root."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nightshift import port
from nightshift.stage import WAITING, Work

pytest_plugins = ["tests.s3"]

# `dvc`, `nightshift` and a stage's `python` are this environment's, whether it was activated or not
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

os.environ |= WAITING  # what trains in a test does so beside other tests

ROOT = Path(__file__).resolve().parent.parent

# two workers never look for a port in the same range: what one finds unused the other would take before its server has
if worker := os.environ.get("PYTEST_XDIST_WORKER", ""):
    share = (port.HIGHEST - port.LOWEST) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    port.LOWEST += share * int(worker.removeprefix("gw"))
    port.HIGHEST = port.LOWEST + share


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the nights: of two workers one takes them, and the other all else in about the same time."""
    items.sort(key=lambda one: "tests/night/" not in one.nodeid)


@pytest.fixture
def root() -> Path:
    """The checkout that the tests run in."""
    return ROOT


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A stage's surroundings with a state folder of the test's own."""
    return Work("test", tmp_path / "state", tmp_path, key="test")
