"""A model is asked what it can read, and says nothing to more."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightshift.likelihood import UNREAD, Model
from tests import models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(models.base(tmp_path_factory.mktemp("base") / "base"), None, models.COMPUTE)


def asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_choices_are_as_likely_together_as_alone(model: Model) -> None:
    choices = ["red", "a longer blue one", "green"]
    alone = [model.choices(asked("Which?"), [one])[0] for one in choices]
    assert model.choices(asked("Which?"), choices) == pytest.approx(alone, abs=1e-3)


def test_to_more_than_it_reads_it_says_nothing(model: Model) -> None:
    long = asked("word " * model.context)
    assert model.choices(long, ["red", "blue"]) == [UNREAD, UNREAD]
    assert model.generate(long, 4) == ""


def test_what_it_reads_and_writes_is_counted(model: Model, tmp_path: Path) -> None:
    before = model.tokens
    model.choices(asked("Which?"), ["ab", "cde"])
    assert model.tokens - before == len(model.prompt(asked("Which?"))) + 5
