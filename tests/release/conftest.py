"""A project with releases, made once and copied for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.release.project import Released, make


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project, as it was made."""
    return make(tmp_path_factory.mktemp("released") / "project").folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Released:
    """A copy of the project that a test may change."""
    shutil.copytree(template, tmp_path / "project", symlinks=True)
    return Released(tmp_path / "project")
