"""What is expected of the hours of a week holds every question of a day, and says how many engines answer them."""

from __future__ import annotations

from typing import Any

import pytest

from nightshift import hours
from nightshift.deployment import Deployment
from tests.release.test_pattern import BASE, BUSY, TRAFFIC


@pytest.mark.parametrize("busy", [None, BUSY, BUSY | {"share": 1.0}, BUSY | {"from_hour": 0, "to_hour": 24}])
def test_the_hours_of_a_day_hold_its_questions(busy: dict[str, Any] | None) -> None:
    answers = Deployment.model_validate(BASE | {"traffic": TRAFFIC | {"busy": busy}})
    in_busy, in_quiet = hours.hourly(answers.traffic)
    busy_hours = answers.traffic.busy.hours if answers.traffic.busy else 24
    assert in_busy * busy_hours + in_quiet * (24 - busy_hours) == pytest.approx(9000)


@pytest.mark.parametrize(("questions", "seconds", "wanted"), [(0, 4, 1), (630, 4, 1), (631, 4, 2), (3600, 0.7, 1)])
def test_engines_are_busy_for_seven_tenths_at_most(questions: float, seconds: float, wanted: int) -> None:
    assert hours.engines(questions, seconds) == wanted


def test_a_week_has_its_busy_hours() -> None:
    week = hours.week(Deployment.model_validate(BASE).traffic)
    assert (len(week), week.count(720.0)) == (168, 5 * 10)
    assert [round(week[hour]) for hour in (7, 8, 17, 18)] == [129, 720, 720, 129]
    assert {round(one) for one in week[5 * 24 :]} == {129}


def test_the_bounds_are_those_of_quiet_and_busy_hours_and_one_for_a_batch() -> None:
    much = {"traffic": TRAFFIC | {"requests_a_day": 90_000}}
    assert hours.warm(Deployment.model_validate(BASE | much)) == (3, 12)
    assert hours.warm(Deployment.model_validate(BASE | much | {"waits": False})) == (1, 1)
