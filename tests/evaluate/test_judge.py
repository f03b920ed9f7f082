"""What a system says to the judge is kept, to be asked of it again by day."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from nightshift.data.items import ITEM
from nightshift.evaluate import judge
from nightshift.evaluate.ask import Request
from nightshift.serving import Engines
from nightshift.stage import Work
from tests import models
from tests.evaluate.test_ask import PARAMS, ROWS, item

ITEMS = [item(0, "answer"), item(1, "answer", groups=["board"]), item(2, "answer"), item(0, "choice")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(__file__).resolve().parents[2]
    return models.system(tmp_path_factory.mktemp("judged") / "plain", root, ROWS)


def said(folder: Path, work: Work, monkeypatch: pytest.MonkeyPatch, engine_items: int) -> list[judge.Spoken]:
    """With a model that says nothing to one question, and an engine that says something else."""
    table = pl.DataFrame(ITEMS, schema=ITEM)
    params = PARAMS.model_copy(update={"generated": 3, "engine_items": engine_items})
    asked: list[Request] = []

    def engine(_: Path, requests: list[Request], *__: object) -> list[str]:
        asked.extend(requests)
        return [f"engine {place}" for place in range(len(requests))]

    texts = [{"text": "answer 0"}, {"text": ""}, {"text": "answer 2"}]
    monkeypatch.setattr(judge, "answers", lambda *_: (texts, 0))
    monkeypatch.setattr(judge, "_engine", engine)
    found = judge.spoken(folder, table, params, models.COMPUTE, Engines(kind="openvino"), work)
    assert len(asked) == min(engine_items, 1)  # what was not answered cannot be compared
    return found


def test_questions_that_everyone_may_ask_are_kept_with_what_was_said(
    folder: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = said(folder, work, monkeypatch, engine_items=1)
    kept = judge.kept(found)
    asked = {one.item["id"] for one in found if one.ours and one.item["groups"] == ["public"]}
    assert {one.id for one in kept} == asked
    assert asked
    by_item = {one.item["id"]: one for one in found}
    for one in kept:
        spoken = by_item[one.id]
        assert one.said == (spoken.theirs or spoken.ours) != ""
        assert one.shown == (one.section in spoken.shown)
        assert one.wanted == spoken.item["answer"]


def test_the_engine_agrees_where_it_says_the_same(folder: Path, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    found = said(folder, work, monkeypatch, engine_items=2)
    rows = judge.agreement(folder, found)
    assert rows.select("metric", "value").rows() == [("engine_agreement", 0.0)]
    same = [judge.Spoken(one.item, one.shown, one.ours, one.ours) for one in found]
    assert set(judge.agreement(folder, same)["value"]) == {1.0}
    assert judge.agreement(folder, said(folder, work, monkeypatch, engine_items=0)).is_empty()
