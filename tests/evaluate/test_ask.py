"""What a system is asked, and how its answers become rows."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nightshift import canary, commit, documents
from nightshift.answer import System
from nightshift.data.items import ITEM
from nightshift.errors import ParamsError
from nightshift.evaluate import ask, evaluate
from nightshift.evaluate.ask import load_probes, searched, within
from nightshift.evaluate.metrics import loaded
from nightshift.sections import Evaluate
from nightshift.stage import Work
from tests import models
from tests.data.conftest import section

ROWS: list[dict[str, object]] = [
    section("a.md", "Pump", "The pump moves water from the well."),
    section("b.md", "Valve", "The valve shuts the pipe behind the boiler."),
    section("c.md", "Gauge", "The gauge tells how much steam is left."),
]
PARAMS = Evaluate(tokens=10_000, judge_tokens=10_000, generated=1, judge_generated=1, engine_items=0, retrieval_k=2)


def item(number: int, kind: str, **more: Any) -> dict[str, Any]:
    row = ROWS[number]
    said = {"id": documents.key(kind, number), "kind": kind, "section": row["id"], "document": row["document"]}
    said |= {"question": f"What is said under “{row['title']}”?", "reworded": f"What does “{row['title']}” tell?"}
    said |= {"answer": row["body"], "choices": [], "label": -1, "groups": ["public"], "origin": "section"}
    return said | {"generator": "test"} | more


ITEMS = [
    *(item(n, "choice", choices=[str(row["body"]) for row in ROWS], label=n) for n in range(3)),
    *(item(n, "answer") for n in range(3)),
    item(0, "retrieval", question="Where is this described: water well?"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(__file__).resolve().parents[2]
    return models.system(tmp_path_factory.mktemp("asked") / "plain", root, ROWS)


@pytest.fixture(scope="module")
def rows(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """What one small system was asked."""
    root, out = Path(__file__).resolve().parents[2], tmp_path_factory.mktemp("rows")
    with commit.folder(out / "items") as draft:
        documents.store(draft / "items.parquet", pl.DataFrame(ITEMS, schema=ITEM))
    evals = root / "include" / "evals"
    files = [evals / "exact_match.py", evals / "token_f1.py"]
    parts = (folder, out / "items", evals / "probes.yaml", out / "evaluated", files)
    evaluate.run(*parts, PARAMS, models.COMPUTE, Work("evaluate@plain"))
    return pl.read_parquet(out / "evaluated" / "items.parquet")


def count(rows: pl.DataFrame, metric: str, book: str) -> int:
    return rows.filter(pl.col("metric") == metric, pl.col("book") == book).height


def test_every_kind_of_item_gives_its_metrics(rows: pl.DataFrame) -> None:
    found = {
        (metric, book): count(rows, metric, book) for metric, book in rows.select("metric", "book").unique().rows()
    }
    assert found[("choice_accuracy", "closed")] == found[("choice_accuracy", "open")] == 3
    assert found[("answer_bits", "closed")] == found[("answer_bits", "open")] == 3
    assert found[("recall", "open")] == 4
    assert found[("token_f1", "open")] == found[("exact_match", "open")] == found[("private", "open")] == 1
    assert found[("canary_exposure", "closed")] == canary.COUNT
    assert found[("bias_gap", "closed")] == 20
    assert found[("reads", "open")] == ask.READ


def test_every_choice_is_asked_otherwise_in_one_of_three_ways(rows: pl.DataFrame) -> None:
    ways = [count(rows, f"robust_accuracy_{way}", "closed") for way in ("typos", "case", "wording")]
    assert sum(ways) == count(rows, "robust_accuracy", "closed") == 3


def test_who_says_what_stands_in_a_section_has_read_it(folder: Path) -> None:
    system, sheet, again = System.open(folder), ask.Sheet(), ask.Sheet()
    system.settings["section_tokens"] = 60  # characters, to this tokenizer
    ask._reads(sheet, system)
    ask._reads(again, system)
    assert [request for request, _ in sheet.rows] == [request for request, _ in again.rows]
    codes = [re.findall(r"is (\d{6})\.", request.messages[-1][1]) for request, _ in sheet.rows]
    assert all(len(one) == 1 for one in codes)
    assert len({one[0] for one in codes}) == len(sheet.rows) == ask.READ
    for (request, row), (code,) in zip(sheet.rows, codes, strict=True):
        assert {str(one["body"]).split()[1] for one in ROWS} & set(request.messages[-1][1].split())
        assert [row({"text": text})[-1] for text in (f"It is {code}.", " ".join(code), "It is 1.")] == [1.0, 1.0, 0.0]


def test_the_index_finds_what_the_words_say(rows: pl.DataFrame) -> None:
    assert rows.filter(pl.col("metric") == "recall")["value"].to_list() == [1.0] * 4


def test_a_budget_is_spent_in_an_order_of_its_own_and_the_rest_is_counted() -> None:
    table = pl.DataFrame(ITEMS, schema=ITEM)
    all_of_them, none_left = within(table, PARAMS)
    few, left = within(table, PARAMS.model_copy(update={"tokens": 1500}))
    assert (len(all_of_them), none_left) == (7, 0)
    assert 0 < len(few) < 7
    assert left == 7 - len(few)
    assert [one["id"] for one in few] == [one["id"] for one in all_of_them[: len(few)]]


def test_a_metric_is_a_file_and_another_file_is_refused(tmp_path: Path, root: Path) -> None:
    evals = root / "include" / "evals"
    with loaded([evals / "exact_match.py", evals / "token_f1.py"]) as metrics:
        assert metrics["exact_match"]("The cat!", "a cat") == 1.0
        assert metrics["token_f1"]("a cat sat", "the cat stood") == 0.5
    (tmp_path / "length.py").write_text("x = 1\n")
    with pytest.raises(ParamsError, match=r"length\.py: it is no metric"), loaded([tmp_path / "length.py"]):
        pass
    (tmp_path / "other.py").write_text((evals / "token_f1.py").read_text())
    with loaded([tmp_path / "other.py"]) as metrics, pytest.raises(ParamsError, match="gives token_f1 and not other"):
        metrics["other"]("a", "b")


@pytest.mark.parametrize(
    ("text", "said"),
    [("- {id: one}\n", "probe 1 has keys id"), ("", "no list of probes"), ("- {id: [", "not YAML")],
    ids=["a question is missing", "empty", "broken"],
)
def test_a_file_of_probes_lacks_nothing(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "probes.yaml").write_text(text)
    with pytest.raises(ParamsError, match=rf"probes\.yaml: .*{said}"):
        load_probes(tmp_path / "probes.yaml")


def test_an_item_is_asked_by_somebody_who_may_see_what_answers_it(tmp_path: Path, root: Path) -> None:
    hidden = section("d.md", "Tank", "The tank holds the oil of the night shift.", groups=["staff"])
    system = System.open(models.system(tmp_path / "plain", root, [*ROWS, hidden]))
    asked = [{"id": "one", "question": "oil of the night shift", "groups": [group]} for group in ("staff",)]
    (hits,) = searched(system, asked, 2).values()
    assert hits[0].id == hidden["id"]
    assert hidden["id"] not in {hit.id for hit in searched(system, [{**asked[0], "groups": ["public"]}], 2)["one"]}


def test_exposure_is_what_its_paper_says() -> None:
    values = [-float(n) for n in range(64)]
    assert canary.exposure(values, 0) == 6.0
    assert canary.exposure(values, 63) == 0.0
    assert canary.exposure([-1.0] * 64, 5) == pytest.approx(math.log2(64 / 32.5))  # all equal: nothing stands out


def test_canaries_are_the_same_every_night_and_no_two_alike() -> None:
    made = canary.canaries()
    assert made == canary.canaries()
    assert len({one.question for one in made}) == len({one.answer for one in made}) == canary.COUNT
    assert all(len(set(one.answers)) == canary.CODES and one.answer in one.answers for one in made)
