"""Sections are cleaned, deduplicated and split by rules that look at nothing but the sections."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from nightshift import documents
from nightshift.data import dedup, sanitise, split
from nightshift.errors import DataRefused
from nightshift.sections import Dedup, Sanitise, Split
from nightshift.stage import Work
from tests.data.conftest import Table, section

CLEAN = Sanitise(min_characters=20, boilerplate_documents=3, max_dropped=0.5)
DEDUP = Dedup(threshold=0.8, permutations=112, shingle_words=3, max_dropped=0.9)
LONG = "The quick brown fox jumps over the lazy dog while the rain falls on the old stone bridge near the mill."


@pytest.fixture
def verdict(tmp_path: Path) -> Path:
    path = tmp_path / "raw.verdict.json"
    path.write_text('{"accepted": true}')
    return path


def test_a_corpus_of_scraps_is_refused(table: Table, verdict: Path, tmp_path: Path, work: Work) -> None:
    raw = table("raw", [("a.md", "A", "short"), ("b.md", "B", "tiny"), ("c.md", "C", LONG)])
    with pytest.raises(DataRefused, match="2 of 3 sections"):
        sanitise.run(raw, verdict, tmp_path / "clean", CLEAN, work)
    assert not (tmp_path / "clean").exists()


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("cafe\u0301", "café"),
        ("a\u200bb\x07c\u202e", "abc"),
        ("see [the guide](https://x.org/y) <br> now", "see the guide  now"),
        ("use :func:`~numpy.dot` here", "use numpy.dot here"),
        ("![logo](a.png) text", "logo text"),
        ("one\n\n\n\ntwo  ", "one\n\ntwo"),
        ("a < b and c > d", "a < b and c > d"),
    ],
)
def test_characters_and_markup_are_cleaned(dirty: str, clean: str) -> None:
    assert sanitise.clean(dirty) == clean


def test_what_goes_and_what_is_masked_stands_in_the_ledger(
    table: Table, verdict: Path, tmp_path: Path, work: Work
) -> None:
    rows = [("a.md", "A", f"{LONG} Ask jane@doe.org."), ("b.md", "B", "short"), ("c.md", "C", LONG)]
    metrics = sanitise.run(table("raw", rows), verdict, tmp_path / "clean", CLEAN, work)
    ledger = pl.read_parquet(tmp_path / "clean" / "ledger.parquet")
    assert sorted(ledger.select("reason", "detail").rows()) == [("masked", "EMAIL:1"), ("too-short", "5")]
    assert metrics["masked"] == {"EMAIL": 1}
    assert "jane" not in "".join(documents.read(tmp_path / "clean")["body"])


def test_a_line_of_many_documents_is_boilerplate(table: Table, verdict: Path, tmp_path: Path, work: Work) -> None:
    footer = "Copyright of the example company."
    rows = [(f"{n}.md", f"T{n}", f"{LONG} Number {n}.\n{footer}") for n in range(3)]
    sanitise.run(table("raw", rows), verdict, tmp_path / "clean", CLEAN, work)
    assert not any(footer in body for body in documents.read(tmp_path / "clean")["body"])


def test_a_night_cleans_only_what_changed(table: Table, verdict: Path, tmp_path: Path, work: Work) -> None:
    rows = [(f"{n}.md", f"T{n}", f"{LONG} Number {n}.") for n in range(5)]
    sanitise.run(table("raw", rows), verdict, tmp_path / "clean", CLEAN, work)
    rows[2] = ("2.md", "T2", f"{LONG} Number two.")
    again = Work("sanitise", work.state)
    sanitise.run(table("raw2", rows), verdict, tmp_path / "clean2", CLEAN, again)
    assert (again.count.computed, again.count.reused) == (1, 4)


def test_of_repeats_the_smallest_rank_and_id_stays_whatever_the_order(table: Table, tmp_path: Path, work: Work) -> None:
    near = LONG.replace("old stone", "old grey stone")
    rows = [
        section("a.md", "A", LONG, rank=1),
        section("b.md", "B", LONG.upper(), rank=0),
        section("c.md", "C", near, rank=2),
        section("d.md", "D", "Something else altogether, about pumps and valves and gauges."),
    ]
    loose = DEDUP.model_copy(update={"threshold": 0.6})
    metrics = dedup.run(table("one", rows), tmp_path / "unique", loose, work)
    dedup.run(table("two", rows[::-1]), tmp_path / "again", loose, Work("dedup"))
    assert sorted(documents.read(tmp_path / "unique")["title"]) == ["B", "D"]
    assert metrics["dropped"] == {"exact-repeat": 1, "near-repeat": 1}
    assert (tmp_path / "unique" / "rows.parquet").read_bytes() == (tmp_path / "again" / "rows.parquet").read_bytes()


def test_a_corpus_of_repeats_is_refused(table: Table, tmp_path: Path, work: Work) -> None:
    rows = [(f"{n}.md", f"T{n}", LONG) for n in range(30)]
    with pytest.raises(DataRefused, match="29 of 30 sections repeat another"):
        dedup.run(table("one", rows), tmp_path / "unique", DEDUP, work)


def test_a_side_depends_on_the_document_alone(table: Table, tmp_path: Path, work: Work) -> None:
    params = Split(validation=0.3, test=0.3, salt="s")
    rows = [(f"{n}.md", f"T{n}", LONG) for n in range(40)]
    split.run(table("all", rows), tmp_path / "all-sides", params, work)
    split.run(table("half", rows[::2]), tmp_path / "half-sides", params, work)
    sides = dict(pl.read_parquet(tmp_path / "all-sides" / "sides.parquet").rows())
    assert dict(pl.read_parquet(tmp_path / "half-sides" / "sides.parquet").rows()).items() <= sides.items()
    assert set(sides.values()) == {"train", "validation", "test"}


def test_personal_data_in_a_heading_stays_in_no_column(table: Table, verdict: Path, tmp_path: Path, work: Work) -> None:
    rows = [
        ("a.md", "Guide > Ask jane@corp.example", LONG),
        ("a.md", "Guide > Ask jane@corp.example > When", LONG.replace("old", "new")),
    ]
    sanitise.run(table("raw", rows), verdict, tmp_path / "clean", CLEAN, work)
    found = documents.read(tmp_path / "clean")
    assert "jane" not in found.write_json()
    assert found.sort("title")["within"][1] == found.sort("title")["title"][0] == "Guide > Ask <EMAIL>"
