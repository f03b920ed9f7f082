"""A replayed week loses no request, and what it says is what the files and the documentation say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import traffic, week

from nightshift.counts import TURNS, Counts
from nightshift.scaling import Engines

KIND = Engines(2, 4.0, 30.0)


def replayed(
    requests: list[tuple[float, float]], engines: int, queue: int = 32, then: int | None = None
) -> traffic.Replay:
    """So many engines, and another number from ten seconds on."""
    made = traffic.Replay(lambda now, *_: then if then and now >= 10 else engines, KIND, 0.0, queue, 10.0)
    made.run(requests, engines, 100.0)
    return made


def test_who_finds_no_engine_waits_its_turn_and_not_for_ever() -> None:
    assert replayed([(1.0, 4.0)] * 3, 1).waits == [0.0, 0.0, 4.0]
    full = replayed([(1.0, 4.0)] * 9, 1, queue=3)
    assert (full.waits, full.shed) == ([0.0, 0.0, 4.0, 4.0, 8.0], 4)
    late = replayed([(1.0, 11.0)] * 3, 1)
    assert (late.waits, late.shed) == ([0.0, 0.0], 1)


def test_an_engine_costs_from_its_start_to_its_last_answer() -> None:
    grown = replayed([(1.0, 60.0)] * 3 + [(90.0, 1.0)], 1, then=2)
    assert (grown.engine_s, grown.shed, grown.most) == (100.0 + 90.0, 1, 2)
    shrunk = replayed([(1.0, 60.0)] * 4 + [(90.0, 1.0)], 2, then=1)
    assert (shrunk.engine_s, shrunk.shed, shrunk.most) == (100.0 + 61.0, 0, 2)


@pytest.fixture(scope="module")
def monday() -> dict[str, dict[str, float]]:
    return {str(one["policy"]).partition(" (")[0]: one for one in traffic.compare(week.recorded(), KIND, 1)}


def test_every_request_of_a_day_is_answered_or_shed(monday: dict[str, dict[str, float]]) -> None:
    came = sum(week.recorded().minutes[:1440])
    assert [(one["requests"], one["answered"] + one["shed"]) for one in monday.values()] == [(came, came)] * 5


def test_fewer_wait_than_with_as_many_engines_all_day_and_for_less_than_with_the_most(
    monday: dict[str, dict[str, float]],
) -> None:
    ours, mean, most = monday["profile and reaction"], monday["fixed, mean"], monday["fixed, most"]
    assert ours["late"] <= mean["late"] and ours["engine_hours"] <= mean["engine_hours"]
    assert most["late"] <= ours["late"] <= monday["reaction"]["late"]
    assert ours["engine_hours"] < 0.6 * most["engine_hours"] == 0.6 * 8 * 24


def test_the_recorded_week_is_the_generated_one() -> None:
    found = week.recorded()
    assert found.minutes == list(week.generated())[-1]
    assert len(found.minutes) == 7 * 1440 and len(found.before) == 4 * 672
    assert max(found.before) == found.begin // 15 - 1


def test_a_week_that_a_gateway_counted_is_replayed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no gateway counted anything there"):
        week.counted(tmp_path)
    end = 20_000 * 1440
    for minute, valid in ((end - 8 * 1440, 5), (end - 7 * 1440, 2), (end - 1, 3), (end + 5, 9)):
        Counts(tmp_path).add(minute, {(TURNS, "a"): (valid - 1, valid), ("speed", "a"): (1, 1)})
    found = week.counted(tmp_path)
    assert (found.begin, found.minutes[0], found.minutes[-1], sum(found.minutes)) == (end - 7 * 1440, 2, 3, 5)
    assert found.before == {(end - 8 * 1440) // 15: (5, 1)}


def test_the_figures_of_the_documentation_are_those_of_the_run(root: Path) -> None:
    said = json.loads((root / "bench" / "traffic.json").read_text())
    shown = (root / "bench" / "traffic.txt").read_text()
    assert "\n".join(traffic.table(said["rows"], 2 * said["rules"]["wait_s"])) + "\n" == shown
    assert shown in (root / "docs" / "deployment.md").read_text()
