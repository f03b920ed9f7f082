"""Connections of Airflow's common-ai provider, beside the Airflow that runs the nights, reach the endpoint."""

from __future__ import annotations

import re

import pytest

from tests.integrations import environments
from tests.integrations.served import Running


@pytest.mark.long
def test_connections_of_its_types_reach_the_endpoint(running: Running) -> None:
    environments.cases("airflow", running.checkout.root, running.url)


def test_it_is_the_locks_airflow() -> None:
    pinned = [
        (environments.REQUIREMENTS / "airflow.txt").read_text(),
        (environments.ROOT / "requirements.txt").read_text(),
    ]
    versions = {tuple(re.findall(r"(?m)^apache-airflow(?:-core)?==\S+", one)) for one in pinned}
    assert len(versions) == 1
