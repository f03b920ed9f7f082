"""Search finds what may be seen, and a section without a vector loses nothing by it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nightshift import documents
from nightshift.lexical import Lexical, slip
from nightshift.retrieve import Filter, Index, fuse
from tests.data.conftest import section

TEXTS = ["the red apple", "the green pear", "the red cherry and the red plum", "an old car"]


def index(folder: Path, rows: list[dict[str, object]]) -> Index:
    table = pl.DataFrame(rows, schema=documents.SECTION).sort("id")
    folder.mkdir()
    documents.store(folder / "sections.parquet", table)
    Lexical.build([f"{t}\n{b}" for t, b in table.select("title", "body").iter_rows()]).save(folder / "bm25")
    np.save(folder / "vectors.npy", np.zeros((len(table), 4), dtype=np.float16))
    np.save(folder / "dense.npy", np.zeros(len(table), dtype=np.bool_))
    said = {"dense_weight": 0.0, "depth": 10, "first_tokens": 16, "dtype": "float32"}
    (folder / "retrieval.json").write_text(json.dumps(said))
    return Index.open(folder)


def test_a_section_that_may_not_be_seen_is_neither_found_nor_in_the_way(tmp_path: Path) -> None:
    rows = [section(f"{n}.md", f"Secret {n}", "the plan of the pump house", groups=["board"]) for n in range(9)]
    rows.append(section("open.md", "Open", "the plan of the garden"))
    made = index(tmp_path / "index", rows)
    assert [hit.title for hit in made.search("plan of the pump house", 3)] == ["Open"]
    assert "Open" not in [hit.title for hit in made.search("plan of the pump house", 3, ["board"])]
    assert len(made.search("plan", 20, ["board", "public"])) == 10


@pytest.mark.parametrize(
    ("only", "found"),
    [
        (Filter(), ["Pump > Oil", "Pump > Paint", "Valve > Oil"]),
        (Filter(sources=["notes"]), ["Pump > Oil", "Pump > Paint"]),
        (Filter(sources=[]), []),
        (Filter(path="plant/"), ["Pump > Paint", "Valve > Oil"]),
        (Filter(title="Pump > O"), ["Pump > Oil"]),
        (Filter(licences={"MIT"}), ["Valve > Oil"]),
        (Filter(sources=["notes"], path="plant/", licences=["CC0-1.0"]), ["Pump > Paint"]),
        (Filter(sources=["nothing of that name"]), []),
    ],
)
def test_a_filter_leaves_out_before_anything_is_ranked(tmp_path: Path, only: Filter, found: list[str]) -> None:
    rows = [section(f"{n}.md", f"Secret {n}", "the oil of the pump", groups=["board"]) for n in range(9)]
    rows += [
        section("a.md", "Pump > Oil", "the oil of the pump"),
        section("plant/b.md", "Pump > Paint", "the paint of the pump"),
        section("plant/c.md", "Valve > Oil", "the oil of the valve", source="manual", licence="MIT"),
    ]
    made = index(tmp_path / "index", rows)
    assert sorted(hit.title for hit in made.search("oil of the pump", 3, only=only)) == found
    assert made.search("oil of the pump", 9, ["public", "board"]) == made.search(
        "oil of the pump", 9, ["public", "board"], Filter(path="")
    )


def test_the_nearest_by_vector_are_those_that_may_be_found(tmp_path: Path) -> None:
    rows = [section(f"{n}.md", f"Title {n}", "text", groups=["board" if n == 3 else "public"]) for n in range(5)]
    made = index(tmp_path / "index", rows)
    made.vectors = np.eye(5, 4, dtype=np.float16)
    made.dense = np.array([True, True, True, True, False])
    titles = made.sections["title"].to_list()
    asked = np.array([0.5, 1, 0.25, 0], dtype=np.float32)
    seen = [title for title in (titles[1], titles[0], titles[2], titles[3]) if title != "Title 3"]
    assert [(hit.title, hit.score) for hit in made.nearest(asked, 2)] == [
        (title, float(asked[titles.index(title)])) for title in seen[:2]
    ]
    assert [hit.title for hit in made.nearest(asked, 9, only=Filter(path="2"))] == ["Title 2"]


def test_words_rank_the_text_that_says_them_most() -> None:
    found = Lexical.build(TEXTS).rank(["red", "pear", "nothing of it"], k=2)
    assert [[place for place, _ in one] for one in found] == [[2, 0], [1], []]


def test_a_number_of_one_digit_is_a_word() -> None:
    built = Lexical.build([f"Pump {number} stands in house {number}" for number in range(1, 9)])
    assert [place for place, _ in built.rank(["Where does pump 7 stand?"], k=1)[0]] == [6]


def test_equal_scores_stand_in_the_order_of_places_and_survive_saving(tmp_path: Path) -> None:
    built = Lexical.build(["same words"] * 5 + ["other"])
    built.save(tmp_path / "bm25")
    for one in (built, Lexical.load(tmp_path / "bm25")):
        assert [place for place, _ in one.rank(["same"], k=3)[0]] == [0, 1, 2]


def test_nothing_to_index_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to index"):
        Lexical.build([])


def test_without_vectors_fusion_is_the_lexical_order() -> None:
    none = np.zeros(10, dtype=np.bool_)
    assert [row for row, _ in fuse([4, 2, 7], [], none, 0.5, 100)] == [4, 2, 7]


def test_half_the_vectors_do_not_push_the_other_half_down() -> None:
    # 0 is best by words and has no vector; 1 has one, and is last by words and first by meaning
    half = np.array([False, True, True, True])
    fused = [row for row, _ in fuse([0, 2, 3, 1], [1, 2, 3], half, 0.3, 100)]
    assert fused[0] == 0


def test_both_sides_together_lift_what_both_find() -> None:
    every = np.ones(4, dtype=np.bool_)
    assert next(row for row, _ in fuse([0, 1, 2], [1, 3, 0], every, 0.5, 100)) == 1


def test_a_question_is_covered_by_one_section_and_not_by_scraps_of_several(tmp_path: Path) -> None:
    rows = [section("a.md", "Pump", "The pump moves water."), section("b.md", "Boiler", "The boiler makes steam.")]
    made = index(tmp_path / "index", rows)
    hits = made.search("pump water boiler steam", 2)
    assert made.coverage("Does the pump move the water?", []) == 0
    assert made.coverage("pump water", hits) == 1
    assert made.coverage("pump water boiler steam", hits) == pytest.approx(0.5)
    assert made.coverage("pmup wter", hits) == 1  # nothing is called so, and two words nearly are
    assert made.coverage("capital of France", hits) == 0
    assert made.coverage("It is the?", hits) == 1  # nothing that could be looked for


def test_a_rare_word_that_is_missing_counts_more_than_a_common_one(tmp_path: Path) -> None:
    rows = [section(f"{n}.md", f"Part {n}", "the engine turns") for n in range(8)]
    rows.append(section("z.md", "Governor", "the governor limits the engine"))
    made = index(tmp_path / "index", rows)
    engine, governor = made.search("part engine turns", 1), made.search("governor", 1)
    assert made.coverage("engine governor", engine) < 0.25 < made.coverage("turns governor", governor)


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("pandas", "pandas", True),
        ("pandas", "padnas", True),
        ("pandas", "panda", True),
        ("pandas", "spandas", True),
        ("pandas", "pandos", True),
        ("pandas", "padnos", False),
        ("pandas", "pan", False),
        ("dot", "dog", False),  # too short to tell
    ],
)
def test_a_slip_of_the_keys_is_one_letter(one: str, other: str, near: bool) -> None:
    assert slip(one, other) == slip(other, one) == near
