"""Nothing that the internet throws at a gateway breaks a bound: bench/load.py, in short and without memory's slope."""

from __future__ import annotations

import pytest
from bench import load


@pytest.mark.long
def test_no_bound_is_broken() -> None:
    said = load.run(seconds=2, minutes=0, quiet=True)
    assert said["broken"] == []
    assert said["attacks"]["hostile bodies"]["statuses"]["400"] > 100
    assert said["attacks"]["load at 5"]["statuses"]["503"] > 0  # it was too much
