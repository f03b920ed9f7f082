"""A project with two releases, made once: it takes six seconds."""

from __future__ import annotations

import pytest

from tests.watch import released
from tests.watch.released import Released


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """The project; a test leaves it as it was, but for traces that the next one removes."""
    return released.make(tmp_path_factory.mktemp("watch") / "project")
