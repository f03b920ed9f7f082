"""Who waits longer after each try in vain does so for as long as it takes."""

from __future__ import annotations

from nightshift.backoff import pause
from nightshift.serve.loaded import LONGEST_PAUSE_S, Trouble


def test_a_pause_doubles_up_to_its_bound() -> None:
    assert [pause(times, 1.0, 30.0) for times in range(1, 8)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_night_of_failures_is_no_end_of_it() -> None:
    assert pause(2000, 0.5, 30.0) == 30.0
    trouble = Trouble()
    for number in range(2000):
        trouble.failed(float(number))
    assert trouble.again == 1999 + LONGEST_PAUSE_S
