"""A shift is seen, chance is not taken for one, and no text is kept."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from nightshift import drift
from nightshift.counts import Counts

LAST = 29_000_159  # the last minute of an hour
DAY = 1440
OLD, NEW = "a" * 64, "b" * 64
SUBJECTS = ["pump", "valve", "boiler", "gauge", "turbine", "condenser", "governor", "filter", "tank", "pipe"]
OTHERS = ["invoice", "refund", "account", "password", "delivery", "voucher", "address", "order", "parcel", "return"]


def asked(
    number: int, seed: int, subjects: list[str], release: str = OLD, words: int = 9
) -> Counter[tuple[str, str, int]]:
    """So many questions, each about one subject, and their answers."""
    draw, found = random.Random(seed), Counter[tuple[str, str, int]]()
    for _ in range(number):
        question = (
            f"What is the {draw.choice(subjects)} of {' '.join(draw.choices(subjects, k=draw.randint(1, 12)))} for"
        )
        refused = draw.random() < 0.1
        answer = "" if refused else "word " * draw.randint(1, 2 * words)
        found += Counter(drift.seen(release, question, answer, "abstained" if refused else "answered"))
    return found


@pytest.fixture
def counts(tmp_path: Path) -> Counts:
    """27 days with forty questions each, before the last."""
    made = Counts(tmp_path)
    for day in range(1, 28):
        made.see(LAST - day * DAY, asked(40, day, SUBJECTS))
    return made


def shifted(counts: Counts) -> set[tuple[str, str | None]]:
    return {(one.what, one.release) for one in drift.shifts(counts, LAST) if one.beyond(0.2)}


def test_a_day_like_the_others_is_none(counts: Counts) -> None:
    counts.see(LAST, asked(200, 99, SUBJECTS))
    assert shifted(counts) == set()
    assert {one.what for one in drift.shifts(counts, LAST) if one.distance is not None} == {
        "question", "words", "answer", "outcome",
    }  # fmt: skip


def test_chance_is_not_taken_for_a_shift() -> None:
    """A hundred days of a hundred questions from one distribution, each against a thousand more."""
    before = asked(1000, -1, SUBJECTS)
    wrong = [
        one
        for day in range(100)
        for one in drift._between(asked(100, day, SUBJECTS), before)
        if one.beyond(0.0)  # whatever the convention says
    ]
    assert len(wrong) <= 3


def test_other_subjects_are_seen_in_what_is_asked(counts: Counts) -> None:
    counts.see(LAST, asked(200, 99, OTHERS))
    assert shifted(counts) == {("words", None)}


def test_longer_answers_of_the_same_release_are_seen_and_those_of_another_are_its_own(counts: Counts) -> None:
    counts.see(LAST, asked(150, 98, SUBJECTS, words=90))
    assert shifted(counts) == {("answer", OLD)}
    counts.see(LAST, asked(150, 97, SUBJECTS, release=NEW, words=90))
    assert ("answer", NEW) not in shifted(counts)


def test_refusals_are_seen(counts: Counts) -> None:
    seen = Counter[tuple[str, str, int]]()
    for _ in range(150):
        seen += Counter(drift.seen(OLD, "What is the pump of valve for", "", "blocked"))
    counts.see(LAST, seen)
    assert ("outcome", OLD) in shifted(counts)


def test_too_few_questions_tell_nothing(counts: Counts) -> None:
    counts.see(LAST, asked(99, 99, OTHERS))
    assert {one.distance for one in drift.shifts(counts, LAST)} == {None}


def test_days_without_a_shift_are_counted(counts: Counts) -> None:
    assert drift.days(counts, LAST, 0.2) == (0, 0)  # forty questions a day tell nothing
    for day in range(1, 28):
        counts.see(LAST - day * DAY, asked(80, 1000 + day, SUBJECTS))
    assert drift.days(counts, LAST, 0.2) == (27, 27)
    counts.see(LAST, asked(120, 99, OTHERS))
    assert drift.days(counts, LAST, 0.2) == (27, 28)


def test_no_text_is_kept(counts: Counts) -> None:
    counts.see(LAST, drift.seen(OLD, "Where does ingrid.svensson@kvarn.example live?", "In Zanzibar", "answered"))
    with sqlite3.connect(counts.path) as db:
        kept = "\n".join(str(row) for row in db.execute("select * from seen"))
    held = kept + counts.path.read_bytes().decode("latin-1")
    assert not [word for word in ("ingrid", "Zanzibar", "kvarn") if word in held]
