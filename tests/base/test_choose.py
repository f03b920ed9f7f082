"""A base model is chosen on evidence, and what no file says counts nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nightshift import commit, documents
from nightshift.base import assess, choose
from nightshift.data.items import ITEM
from nightshift.errors import DataRefused
from nightshift.sections import Assess, Choose
from nightshift.stage import Work
from tests import models

PARAMS = Choose(transparent=1.0, robust=1.0, accessible=1.0, unbiased=1.0, countered=1.0, quality=5.0)
UNKNOWN = {name: {"answer": "unknown", "evidence": []} for name in choose.QUESTIONS}


def assessed(folder: Path, name: str, accuracy: float | None, context: int = 2048, **answers: str) -> list[Path]:
    """A base model and its assessment; returns both paths."""
    base, out = folder / "base" / name, folder / "assessed" / name
    with commit.folder(base) as draft:
        (draft / "facts.json").write_text(commit.dumps({"name": name, "context": context}))
    said = UNKNOWN | {question: {"answer": answer, "evidence": []} for question, answer in answers.items()}
    measured = {"accuracy": accuracy, "robust_accuracy": accuracy, "bias_gap": 0.1}
    content: dict[str, Any] = {"model": name, "base": commit.digest(base), "answers": said, "measured": measured}
    with commit.folder(out) as draft:
        (draft / "assessment.json").write_text(commit.dumps(content))
    return [base, out]


def chosen(folder: Path, pairs: list[Path]) -> Any:
    return choose.run(folder / "chosen", folder / "decision.md", pairs, PARAMS, models.SETTINGS, Work("choose"))


def test_a_model_that_cannot_read_a_question_is_left_out(tmp_path: Path) -> None:
    short = assessed(tmp_path, "a", 0.9, context=64)
    metrics = chosen(tmp_path, [*short, *assessed(tmp_path, "b", 0.1)])
    assert metrics["chosen"] == "b"
    assert metrics["left_out"]["a"].startswith("it reads 64 tokens")
    assert chosen(tmp_path / "alone", assessed(tmp_path / "alone", "a", 0.9, context=64))["absent"]


def test_pairs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, other = assessed(tmp_path, "a", 0.5), assessed(tmp_path, "b", 0.5)
    with pytest.raises(DataRefused, match="not of one model"):
        chosen(tmp_path, [one[0], other[1]])


@pytest.mark.parametrize(
    ("one", "other", "best"),
    [
        ({"accuracy": 0.4}, {"accuracy": 0.5}, "b"),
        ({"accuracy": 0.4, "transparent": "yes"}, {"accuracy": 0.5}, "a"),
        ({"accuracy": 0.5, "unbiased": "no"}, {"accuracy": 0.5}, "b"),
        ({"accuracy": 0.5}, {"accuracy": 0.5}, "a"),
        ({"accuracy": None}, {"accuracy": 0.1}, "b"),
    ],
)
def test_what_is_known_decides(one: Any, other: Any, best: str, tmp_path: Path) -> None:
    metrics = chosen(tmp_path, [*assessed(tmp_path, "a", **one), *assessed(tmp_path, "b", **other)])
    assert metrics["chosen"] == best
    assert commit.digest(tmp_path / "chosen") == commit.digest(tmp_path / "base" / best)
    assert f"**{best}**" in (tmp_path / "decision.md").read_text()


def test_an_absent_model_is_left_out_and_named(tmp_path: Path) -> None:
    gone = [tmp_path / "base" / "ours", tmp_path / "assessed" / "ours"]
    for path in gone:
        commit.absent(path, "too little text")
    metrics = chosen(tmp_path, [*gone, *assessed(tmp_path, "a", 0.5)])
    assert metrics["left_out"] == {"ours": "too little text"}
    assert "ours is absent: too little text" in (tmp_path / "decision.md").read_text()
    assert "absent" in choose.run(
        tmp_path / "none", tmp_path / "none.md", gone, PARAMS, models.SETTINGS, Work("choose")
    )


@pytest.mark.parametrize(
    ("text", "question", "answer"),
    [
        ("Nothing of it.", "accessible", "unknown"),
        ("The training data is public.", "accessible", "yes"),
        ("The training data are not available.", "accessible", "no"),
        ("The training data is public. The training data are not released.", "accessible", "unknown"),
        ("It may contain bias.", "unbiased", "no"),
    ],
)
def test_an_answer_is_what_a_file_says(text: str, question: str, answer: str, tmp_path: Path) -> None:
    base = models.base(tmp_path / "base")
    (base / "evidence").mkdir()
    (base / "evidence" / "card.md").write_text(text)
    found = assess.answers(base)[question]
    assert found["answer"] == answer
    assert all(one["sha256"] == commit.sha256(base / one["file"]) for one in found["evidence"])


def test_the_small_run_stays_within_its_budget(tmp_path: Path) -> None:
    base = models.base(tmp_path / "base")
    row = dict.fromkeys(ITEM.names(), "x") | {"kind": "choice", "choices": ["one", "two"], "label": 0, "groups": []}
    rows = [row | {"id": f"{n}", "question": "Which of these? " * 20} for n in range(9)]
    with commit.folder(tmp_path / "items") as draft:
        documents.store(draft / "items.parquet", pl.DataFrame(rows, schema=ITEM))
    params = Assess(tokens=700, items=9, bias_pairs=2)
    metrics = assess.run(base, tmp_path / "items", tmp_path / "out", params, models.COMPUTE, Work("assess"))
    assert 0 < metrics["items"] < 9
    assert metrics["items"] + metrics["left_out"] == 9
    assert json.loads((tmp_path / "out" / "assessment.json").read_text())["base"] == commit.digest(base)
