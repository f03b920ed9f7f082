"""Items ask what a section answers; what they ask is taken from training; pairs find their own section."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from nightshift import commit, documents
from nightshift.data import augment, debias, decontaminate, items, questions
from nightshift.errors import DataRefused
from nightshift.sections import Augment, Debias, Decontaminate, Dedup, Items
from nightshift.stage import Work
from tests.data.conftest import Table, section

PARAMETERS = """a : array_like
    Elements that are to be summed over the axis.
axis : int, optional
    Axis along which it sums."""
GOOGLE = """Do.

Args:
    a (int): Elements that are to be summed over the axis.
    axis: Axis along which it sums."""
ITEMS = Items(choices=9, retrievals=9, answers=9, distractors=2, per_document=20)
EQUAL = Dedup(threshold=0.8, permutations=112, shingle_words=3, max_dropped=0.9)
LEAKS = Decontaminate(ngram_words=6, max_holders=2, max_dropped=0.5)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (">>> x = 1\n\nAdd two arrays of numbers. And more.", "Add two arrays of numbers."),
        ("As follows here:\n\nThe real sentence stands here.", "The real sentence stands here."),
        ("| a | b |\n|---|---|", ""),
        ("Too short.", ""),
        ("Uses e.g. the norm, i.e. a length of a vector. Then", "Uses e.g. the norm, i.e. a length of a vector."),
    ],
)
def test_the_first_sentence_of_prose(body: str, sentence: str) -> None:
    assert questions.first_sentence(body) == sentence


@pytest.mark.parametrize(
    ("title", "body"),
    [
        ("m.f > Parameters", PARAMETERS),
        ("m.f", GOOGLE),
        ("m.f", ":param a: Elements that are to be summed over the axis.\n:param int axis: Axis along which it sums."),
    ],
)
def test_parameters_are_read_in_the_three_usual_styles(title: str, body: str) -> None:
    found = dict(questions.parameters(title, body))
    assert found == {"a": "Elements that are to be summed over the axis.", "axis": "Axis along which it sums."}


def test_every_kind_of_item_belongs_to_its_section(table: Table, tmp_path: Path, work: Work) -> None:
    rows = [
        ("m.py", "m.f", "Compute weighted average values using supplied elements and masks."),
        ("m.py", "m.f > Parameters", PARAMETERS),
        ("m.py", "m.f > Returns", "The value that comes back after everything was done."),
        ("m.py", "m.f > Notes", "Rounding may differ between machines, and that is expected."),
        ("m.py", "m.f > See Also", "m.g : Weighted average using supplied masks.\nother : Not in this document."),
        ("m.py", "m.g", "Do it again, but slowly and with care. It is not fast."),
    ]
    unique = table("unique", rows)
    sides(tmp_path, unique, "test")
    items.run(unique, tmp_path / "sides", tmp_path / "validation", tmp_path / "test", ITEMS, work)
    made = pl.read_parquet(tmp_path / "test" / "items.parquet")
    assert pl.read_parquet(tmp_path / "validation" / "items.parquet").is_empty()
    assert set(made["kind"]) == {"choice", "retrieval", "answer"}
    bodies = dict(documents.read(unique).select("id", "body").iter_rows())
    for row in made.filter(pl.col("kind") == "answer").iter_rows(named=True):
        assert row["answer"] in " ".join(bodies[row["section"]].split())
    for row in made.filter(pl.col("kind") == "choice").iter_rows(named=True):
        assert row["choices"][row["label"]] == row["answer"]
        assert len(set(row["choices"])) == 3


def test_a_retrieval_question_is_not_in_the_sections_own_wording(table: Table, tmp_path: Path, work: Work) -> None:
    rows = [
        ("m.py", "m.mean", "Compute the average of all elements of an array."),
        ("m.py", "m.median", "Compute the middle of all elements of an array."),
        (
            "m.py",
            "m.f > See Also",
            "mean : Weighted mean value using supplied masks.\nmedian : Compute the middle of all.",
        ),
        ("g.md", "g.md > Pumps", "Everything here moves water uphill to the old tank."),
        ("g.md", "g.md > Pumps > Oil", "It is changed every spring by the keeper of the mill."),
    ]
    unique = table("unique", rows)
    sides(tmp_path, unique, "test")
    items.run(unique, tmp_path / "sides", tmp_path / "validation", tmp_path / "test", ITEMS, work)
    made = pl.read_parquet(tmp_path / "test" / "items.parquet").filter(pl.col("kind") == "retrieval")
    assert sorted(made.select("question", "answer").rows()) == [
        ("Where is this described: Everything here moves water uphill to the old tank?", "g.md > Pumps > Oil"),
        ("Where is this described: Weighted value using supplied masks?", "m.mean"),
    ]


def test_training_rows_that_hold_an_item_go(table: Table, tmp_path: Path, work: Work) -> None:
    leak = "alpha beta gamma delta epsilon zeta eta theta"
    rows = [
        ("train.md", "T", f"Before it {leak} after it"),
        ("fine.md", "F", "Nothing of that kind stands in this one."),
    ]
    unique = table("unique", [*rows, ("test.md", "Q", leak)])
    sides(tmp_path, unique, "train", {"test.md": "test"})
    item(tmp_path / "test", leak)
    item(tmp_path / "validation", "something that is nowhere else at all today")
    names = [tmp_path / one for one in ("sides", "validation", "test", "train")]
    metrics = decontaminate.run(unique, *names, LEAKS, EQUAL, work)
    assert documents.read(tmp_path / "train")["title"].to_list() == ["F"]
    assert metrics["dropped"] == {"shares-a-run": 1}


def test_a_run_that_many_documents_hold_is_common_speech(table: Table, tmp_path: Path, work: Work) -> None:
    common = "see the notes at the end of this page"
    unique = table("unique", [(f"{n}.md", f"T{n}", f"{common} number {n}") for n in range(4)])
    sides(tmp_path, unique, "train")
    item(tmp_path / "test", common)
    item(tmp_path / "validation", common)
    names = [tmp_path / one for one in ("sides", "validation", "test", "train")]
    strict = EQUAL.model_copy(update={"threshold": 1.0})
    decontaminate.run(unique, *names, LEAKS, strict, work)
    assert len(documents.read(tmp_path / "train")) == 4


def test_a_split_that_leaks_is_refused(table: Table, tmp_path: Path, work: Work) -> None:
    leak = "alpha beta gamma delta epsilon zeta eta theta"
    unique = table("unique", [("a.md", "A", f"{leak} one"), ("test.md", "Q", leak)])
    sides(tmp_path, unique, "train", {"test.md": "test"})
    item(tmp_path / "test", leak)
    item(tmp_path / "validation", leak)
    with pytest.raises(DataRefused, match="1 of 1 training sections"):
        names = [tmp_path / one for one in ("sides", "validation", "test", "train")]
        decontaminate.run(unique, *names, LEAKS, EQUAL, work)


def test_too_few_mentions_are_not_measured(table: Table, tmp_path: Path, work: Work) -> None:
    params = Debias(
        groups={"w": ["she"], "m": ["he"]}, attributes={"work": ["office"]}, min_mentions=50, max_weight=3.0
    )
    metrics = debias.run(table("train", [("a.md", "A", "She is in the office")]), tmp_path / "out", params, work)
    assert metrics["association"] == "too few to measure"
    assert pl.read_parquet(tmp_path / "out" / "weights.parquet")["weight"].to_list() == [1.0]


def test_a_planted_association_is_found_and_weighed_against(table: Table, tmp_path: Path, work: Work) -> None:
    params = Debias(
        groups={"w": ["she"], "m": ["he"]}, attributes={"work": ["office"]}, min_mentions=50, max_weight=5.0
    )
    planted = [("she", "office", 10), ("she", "garden", 90), ("he", "office", 80), ("he", "garden", 20)]
    rows = [
        (f"{who}-{where}-{n}.md", f"{who} {n}", f"{who} was in the {where}")
        for who, where, count in planted
        for n in range(count)
    ]
    metrics = debias.run(table("train", rows), tmp_path / "out", params, work)
    found, left = metrics["association"]["m/work"], metrics["association_weighted"]["m/work"]
    assert found["low"] > 2.5 < found["log_odds"] < 4.5  # ln(80·90 / (20·10)) = 3.58
    assert left["low"] < 0 < left["high"]
    assert metrics["association"]["w/work"]["log_odds"] == pytest.approx(-found["log_odds"])
    weights = pl.read_parquet(tmp_path / "out" / "weights.parquet")["weight"]
    assert weights.mean() == pytest.approx(1.0)


def test_a_pair_stays_only_when_its_question_finds_its_section(table: Table, tmp_path: Path, work: Work) -> None:
    rows = [
        ("m.py", "m.total", "Compute the sum of all elements of an array."),
        ("guide.md", "Guide > Install", "Use the installer that comes with it."),
    ]
    rows += [(f"{n}.md", f"x{n} what is total for", "what is total for " * 9) for n in range(12)]
    balanced = table("balanced", rows)
    weigh(balanced)
    params = Augment(max_pairs=50, per_document=5, rank=10, max_answer_characters=100)
    metrics = augment.run(balanced, tmp_path / "pairs", params, work)
    pairs = pl.read_parquet(tmp_path / "pairs" / "pairs.parquet")
    assert metrics["dropped"]["not-found"] == 1
    assert "What is said under “Guide > Install”?" in pairs["question"].to_list()
    assert "What is “m.total” for?" not in pairs["question"].to_list()


def test_caps_hold_and_no_pairs_is_absent(table: Table, tmp_path: Path, work: Work) -> None:
    rows = [
        ("a.md", f"A > {word}", f"The {word} is described in this sentence.") for word in ("pump", "valve", "gauge")
    ]
    balanced = table("balanced", rows)
    weigh(balanced)
    params = Augment(max_pairs=50, per_document=2, rank=10, max_answer_characters=100)
    assert augment.run(balanced, tmp_path / "pairs", params, work)["pairs"] == 2
    none = params.model_copy(update={"max_pairs": 0})
    augment.run(balanced, tmp_path / "none", none, work)
    assert commit.why_absent(tmp_path / "none")


def sides(tmp_path: Path, unique: Path, default: str, named: dict[str, str] | None = None) -> None:
    """Write sides: `default`, but for documents named by path."""
    rows = documents.read(unique).select("document", "path").unique().sort("document").rows()
    with commit.folder(tmp_path / "sides") as draft:
        found = {"document": [one for one, _ in rows], "side": [(named or {}).get(path, default) for _, path in rows]}
        documents.store(draft / "sides.parquet", pl.DataFrame(found))


def item(out: Path, answer: str) -> None:
    """Write one item with this answer."""
    row = dict.fromkeys(items.ITEM.names(), "x") | {
        "question": "What",
        "answer": answer,
        "choices": [],
        "label": -1,
        "groups": ["public"],
    }
    with commit.folder(out) as draft:
        documents.store(draft / "items.parquet", pl.DataFrame([row], schema=items.ITEM))


def weigh(balanced: Path) -> None:
    """Give every row of a table the weight 1."""
    ids = documents.read(balanced)["id"]
    (balanced / commit.MANIFEST).unlink()
    rows = pl.read_parquet(balanced / "rows.parquet")
    with commit.folder(balanced) as draft:
        documents.store(draft / "rows.parquet", rows)
        documents.store(draft / "ledger.parquet", pl.DataFrame(schema=documents.LEDGER))
        documents.store(draft / "weights.parquet", pl.DataFrame({"id": ids, "weight": [1.0] * len(ids)}))


def test_what_not_everyone_may_see_is_trained_on_by_nobody(table: Table, tmp_path: Path, work: Work) -> None:
    rows = [
        section("a.md", "Pump", "The pump moves water from the well to the tank."),
        section("b.md", "Safe", "The safe stands behind the picture in the hall.", groups=["staff"]),
        section("c.md", "Valve", "The valve shuts the pipe.", groups=["staff", "public"]),
    ]
    unique = table("unique", rows)
    sides = pl.DataFrame({"document": [row["document"] for row in rows], "side": ["train"] * 3})
    with commit.folder(tmp_path / "sides") as draft:
        documents.store(draft / "sides.parquet", sides)
    with commit.folder(tmp_path / "items") as draft:
        documents.store(draft / "items.parquet", pl.DataFrame(schema=items.ITEM))
    held_out = (tmp_path / "items", tmp_path / "items")
    metrics = decontaminate.run(unique, tmp_path / "sides", *held_out, tmp_path / "train", LEAKS, EQUAL, work)
    assert sorted(documents.read(tmp_path / "train")["title"]) == ["Pump", "Valve"]
    assert metrics["dropped"] == {"not-public": 1}
