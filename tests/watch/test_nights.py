"""What is promised of nights is told from their records, and what went wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nightshift.watch import nights
from nightshift.watch.nights import Ended

HOUR, DAY = 3600.0, 86_400.0
NOON = 1_790_000_000 // 86_400 * 86_400 + 12 * HOUR  # of a day in September 2026, UTC
TWO = NOON - 10 * HOUR


def night(at: float, published: bool = True, validated: bool = True, wrong: str | None = None, **more: Any) -> Ended:
    return Ended(str(at), at, published, validated, wrong, more.get("frozen"))


def record(folder: Path, run: str, **more: Any) -> None:
    said = {"run": run, "published": "c" * 40, "refused": "", "sentence": None, "stages": {}} | more
    (folder / "runs" / run).mkdir(parents=True, exist_ok=True)
    (folder / "runs" / run / "night.json").write_text(json.dumps(said))


def test_nights_are_due_when_the_schedule_says_in_its_own_time_zone() -> None:
    assert nights.slots(None, "UTC", 0, NOON) == []
    assert nights.slots("0 2 * * *", "UTC", NOON - 2 * DAY, NOON) == [TWO - DAY, TWO]
    assert nights.slots("0 2 * * *", "UTC", TWO, NOON) == []
    assert nights.slots("0 2 * * *", "UTC", TWO - 1, TWO) == [TWO]
    (kathmandu,) = nights.slots("0 2 * * *", "Asia/Kathmandu", NOON - DAY, NOON)
    assert TWO - kathmandu == 5.75 * HOUR


@pytest.mark.parametrize(
    ("ended", "wanted"),
    [
        ([], (0, 1)),
        ([night(TWO + HOUR)], (1, 1)),
        ([night(TWO + 4 * HOUR)], (1, 1)),
        ([night(TWO + 4 * HOUR + 1)], (0, 1)),
        ([night(TWO + HOUR, published=False)], (0, 1)),
        ([night(TWO - 1)], (0, 1)),  # another night's
        ([night(TWO + HOUR, published=False), night(TWO + 2 * HOUR)], (1, 1)),  # done again in time
    ],
)
def test_a_night_is_in_time_with_a_verdict_within_four_hours(ended: list[Ended], wanted: tuple[int, int]) -> None:
    assert nights.on_time([TWO, NOON], ended, 4 * HOUR, NOON) == wanted  # that of noon has time left


@pytest.mark.parametrize(
    ("hours", "wanted"),
    [
        ([], (0, 0)),
        ([10], (600, 600)),
        ([40, 10], (26 * 60 + 600, 2400)),  # fresh for 26 hours, stale for 4
        ([20, 10], (1200, 1200)),
        ([100], (0, 48 * 60)),  # of the last two days
    ],
)
def test_data_is_fresh_for_26_hours(hours: list[float], wanted: tuple[int, int]) -> None:
    window = 48 * HOUR
    ended = [night(NOON - one * HOUR) for one in hours]
    assert nights.freshness(ended, 26 * HOUR, window, NOON) == wanted


def test_data_that_did_not_pass_is_not_fresh() -> None:
    ended = [night(NOON - 10 * HOUR, validated=False), night(NOON - 30 * HOUR)]
    assert nights.freshness(ended, 26 * HOUR, 48 * HOUR, NOON) == (26 * 60, 30 * 60)


def test_records_are_read_newest_first_and_one_that_is_damaged_is_passed_over(tmp_path: Path) -> None:
    record(tmp_path, "one", ended=NOON, stages={"validate-corpus": {"outcome": "unchanged"}})
    record(tmp_path, "two", stages={"dedup": {"outcome": "failed", "sentence": "no room"}}, published=None)
    record(tmp_path, "three", ended=NOON + 2, sentence="deploy ended with 14")
    record(tmp_path, "four", ended=NOON + 3, refused="protected branch\nmore", frozen="the budget is spent")
    record(tmp_path, "five", stages=3)
    for place, name in enumerate(["one", "two", "three", "four", "five"]):
        os.utime(tmp_path / "runs" / name / "night.json", (NOON + place, NOON + place))
    four, three, two, one = nights.ended(tmp_path)
    assert (one.published, one.validated, one.wrong, one.at) == (True, True, None, NOON)
    assert (two.published, two.validated, two.at) == (False, False, NOON + 1)
    assert two.wrong == "the night broke at dedup (failed): no room"
    assert three.wrong == "deploy ended with 14"
    assert four.wrong == "it was published here, and could not be pushed: protected branch"
    assert four.frozen == "the budget is spent"


def test_a_night_over_its_deadline_is_told_until_one_is_recorded(tmp_path: Path) -> None:
    record(tmp_path, "scheduled-1", ended=TWO)
    nights.mark(tmp_path, "manual-1")
    os.utime(tmp_path / "runs" / "manual-1" / nights.LATE, (NOON, NOON))
    running = nights.late(tmp_path, nights.ended(tmp_path))
    (found,) = nights.alerts([], [], 4 * HOUR, NOON, running)
    assert (found.id, found.severity) == ("late manual-1", "ticket")
    (once,) = nights.alerts([], [TWO], 4 * HOUR, NOON, running)
    assert once.id == "late 2026-09-21T02:00Z"
    record(tmp_path, "manual-1", ended=NOON + 1)
    assert nights.late(tmp_path, nights.ended(tmp_path)) == []


@pytest.mark.parametrize(
    ("ended", "due", "ids"),
    [
        ([], [], []),
        ([night(TWO + HOUR)], [TWO], []),
        ([], [NOON - HOUR], []),  # has three hours left
        ([], [TWO], ["late 2026-09-21T02:00Z"]),
        ([night(TWO - DAY)], [TWO - DAY, TWO], ["late 2026-09-21T02:00Z"]),
        ([night(NOON)], [TWO], []),  # late, and done now
        ([night(NOON, wrong="no room")], [], [f"night {NOON}"]),
        ([night(NOON), night(TWO, wrong="no room")], [], []),  # the one after it went well
        ([night(NOON, published=False, wrong="no room")], [TWO], [f"night {NOON}"]),
        ([night(NOON, frozen="spent")], [], [f"frozen {NOON}"]),
    ],
)
def test_what_is_wrong_with_nights(ended: list[Ended], due: list[float], ids: list[str]) -> None:
    found = nights.alerts(ended, due, 4 * HOUR, NOON)
    assert [one.id for one in found] == ids
    assert {one.severity for one in found} <= {"ticket"}
