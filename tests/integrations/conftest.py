"""What tests of the integrations share: a checkout with a release in production, and its endpoint."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integrations import release
from tests.integrations.release import Checkout
from tests.integrations.served import Running, serving


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Not to be changed by a test."""
    return release.make(tmp_path_factory.mktemp("integrations") / "checkout")


@pytest.fixture(scope="session")
def running(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Its endpoint."""
    with serving(checkout, tmp_path_factory.mktemp("endpoint")) as made:
        yield made
