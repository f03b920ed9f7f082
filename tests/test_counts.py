"""What the endpoint counted is kept whole, bounded, and its absence is seen."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from nightshift.counts import AHEAD, KEEP, Counts, Row
from nightshift.errors import StorageError

NOW = 29_000_000
DIGEST = "a" * 64


@pytest.fixture
def counts(tmp_path: Path) -> Counts:
    return Counts(tmp_path)


def test_more_good_than_valid_is_refused_and_nothing_of_it_is_kept(counts: Counts) -> None:
    with pytest.raises(ValueError, match="speed"):
        counts.add(NOW, {("availability", DIGEST): (1, 1), ("speed", DIGEST): (2, 1)})
    assert counts.between(0, NOW) == []
    assert counts.heard(NOW) is None


def test_looking_where_nothing_was_counted_makes_no_file(counts: Counts) -> None:
    assert (counts.between(0, NOW), counts.heard(NOW), counts.since(NOW)) == ([], None, None)
    assert (counts.sums(0, NOW), counts.totals(0, NOW), counts.seen(0, NOW)) == ({}, {}, {})
    assert not counts.path.parent.exists()


def test_adding_is_cumulative_also_from_a_gateway_that_started_anew(counts: Counts, tmp_path: Path) -> None:
    counts.add(NOW, {("availability", DIGEST): (9, 10), ("availability", "b"): (1, 1)})
    Counts(tmp_path).add(NOW, {("availability", DIGEST): (1, 2)})
    counts.add(NOW + 1, {("availability", DIGEST): (1, 1)})
    assert counts.between(NOW, NOW) == [
        Row(NOW, "availability", DIGEST, 10, 12),
        Row(NOW, "availability", "b", 1, 1),
    ]
    assert len(counts.between(NOW, NOW + 1)) == 3
    assert counts.totals(NOW, NOW + 1) == {"availability": (12, 14, NOW)}
    assert counts.totals(NOW + 1, NOW + 1) == {"availability": (1, 1, NOW + 1)}
    assert counts.sums(NOW, NOW + 1) == {("availability", DIGEST): (11, 13), ("availability", "b"): (1, 1)}


def test_a_minute_without_requests_is_not_silence(counts: Counts) -> None:
    counts.add(NOW, {})
    assert counts.heard(NOW + 5) == NOW


def test_a_clock_that_was_ahead_does_not_hide_silence(counts: Counts) -> None:
    counts.add(NOW, {})
    counts.add(NOW + 1440, {})
    assert counts.heard(NOW + 30) == NOW
    assert counts.heard(NOW + 1440 - AHEAD) == NOW + 1440


def test_when_it_is_meant_to_run_is_known_and_starting_again_does_not_change_it(counts: Counts) -> None:
    counts.begin(NOW)
    assert counts.since(NOW + 5) == NOW
    counts.begin(NOW + 7)
    assert counts.since(NOW + 7) == NOW
    counts.end(NOW + 9)
    assert counts.since(NOW + 9) is None
    counts.begin(NOW + 11)
    assert counts.since(NOW + 11) == NOW + 11


def test_histograms_are_kept_by_the_hour(counts: Counts) -> None:
    hour = NOW // 60 * 60
    counts.see(hour, {(DIGEST, "question", 3): 2})
    counts.see(hour + 59, {(DIGEST, "question", 3): 1})
    counts.see(hour + 60, {(DIGEST, "question", 3): 5})
    assert counts.seen(hour, hour + 59) == {(DIGEST, "question", 3): 3}
    assert counts.seen(hour, hour + 60) == {(DIGEST, "question", 3): 8}


def test_what_is_older_than_five_weeks_goes_and_what_was_meant_stays(counts: Counts) -> None:
    counts.begin(NOW)
    counts.add(NOW, {("speed", DIGEST): (1, 1)})
    counts.see(NOW, {(DIGEST, "question", 3): 1})
    counts.add(NOW + KEEP, {})
    assert counts.between(0, NOW) != []
    counts.add(NOW + KEEP + 60, {})
    assert (counts.between(0, NOW), counts.seen(0, NOW), counts.heard(NOW)) == ([], {}, None)
    assert counts.since(NOW + KEEP + 60) == NOW


def test_readers_in_other_processes_see_whole_minutes_while_the_writer_writes(counts: Counts, root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from nightshift.counts import Counts\n"
        f"counts, seen = Counts(Path(sys.argv[1])), 0\n"
        f"while seen < 40:\n"
        f"    rows = counts.between({NOW}, {NOW + 40})\n"
        "    assert len(rows) % 2 == 0, rows\n"
        "    seen = len(rows)\n"
        "print('whole')\n"
    )
    asked = [sys.executable, "-c", code, str(counts.path.parents[1])]
    env = {"PYTHONPATH": str(root / "include"), "PATH": ""}
    readers = [subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, env=env) for _ in range(2)]
    for minute in range(NOW, NOW + 20):
        counts.add(minute, {("availability", DIGEST): (1, 1), ("speed", DIGEST): (0, 1)})
    assert [reader.communicate(timeout=60)[0].strip() for reader in readers] == ["whole", "whole"]


def test_a_damaged_file_is_one_sentence(counts: Counts) -> None:
    counts.add(NOW, {})
    counts.path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    for name in ("counts.sqlite-wal", "counts.sqlite-shm"):
        counts.path.with_name(name).unlink(missing_ok=True)
    with pytest.raises(StorageError, match=r"counts\.sqlite: the counts cannot be used") as refused:
        counts.between(0, NOW)
    assert isinstance(refused.value.__cause__, sqlite3.Error)


def test_it_is_for_its_owner_alone(counts: Counts) -> None:
    counts.add(NOW, {})
    assert counts.path.parent.stat().st_mode & 0o777 == 0o700


def test_quarters_of_an_hour_hold_what_was_asked_and_how_long_it_could_be(counts: Counts) -> None:
    begin = NOW // 15 * 15
    for minute, valid in ((begin, 3), (begin + 14, 4), (begin + 15, 0)):
        counts.add(minute, {("availability", DIGEST): (valid, valid), ("speed", DIGEST): (1, 1)} if valid else {})
    counts.add(begin + 14, {("availability", "b"): (0, 2)})
    quarter = begin // 15
    assert counts.quarters("availability", 0, NOW + 60) == {quarter: (9, 2), quarter + 1: (0, 1)}
    assert counts.quarters("availability", begin + 15, NOW + 60) == {quarter + 1: (0, 1)}
    assert Counts(counts.path.parent / "elsewhere").quarters("availability", 0, NOW) == {}
