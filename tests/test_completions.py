"""Tokens become text, and stop where they were told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nightshift.completions import Text
from tests import models


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer of single bytes."""
    from tokenizers import Tokenizer

    base = models.base(tmp_path_factory.mktemp("completions") / "base")
    return Tokenizer.from_file(str(base / "tokenizer.json"))


def written(tokenizer: Any, said: str, stops: list[str], step: int = 1) -> tuple[list[str], bool]:
    """What is said piece by piece, and whether a stop sequence ended it."""
    text, pieces = Text(tokenizer, stops), []
    ids = tokenizer.encode(said, add_special_tokens=False).ids
    parts = [ids[start : start + step] for start in range(0, len(ids), step)]
    for number, part in enumerate(parts, 1):
        pieces.append(text.add(part, number == len(parts)))
        if text.stopped:
            break
    return pieces, text.stopped


@pytest.mark.parametrize("step", [1, 3, 50])
@pytest.mark.parametrize(
    ("said", "stops", "text"),
    [
        ("one two three", [], "one two three"),
        ("one two three", ["two"], "one "),
        ("one two three", ["three", "two"], "one "),
        ("one two three", ["four"], "one two three"),
        ("one two thr", ["three"], "one two thr"),
        ("aaab", ["aab"], "a"),
        ("abab", ["abc", "bab"], "a"),
        ("two", ["two"], ""),
        ("größer als ß", ["ß als"], "größer als ß"),
        ("größer als ß", ["r als"], "größe"),
    ],
)
def test_it_ends_before_the_first_stop_sequence(
    tokenizer: Any, said: str, stops: list[str], text: str, step: int
) -> None:
    pieces, stopped = written(tokenizer, said, stops, step)
    assert "".join(pieces) == text
    assert stopped == (text != said)


def test_only_what_may_be_the_beginning_of_one_is_held_back(tokenizer: Any) -> None:
    assert written(tokenizer, "a tw two", ["two"])[0] == ["a", " ", "", "", "tw ", "", "", ""]


def test_half_a_character_waits_for_the_other(tokenizer: Any) -> None:
    text = Text(tokenizer, [])
    first, second = tokenizer.encode("ß", add_special_tokens=False).ids
    assert (text.add([first], False), text.add([second], False)) == ("", "ß")


def test_special_tokens_are_no_text(tokenizer: Any, tmp_path: Path) -> None:
    assert Text(tokenizer, []).add([0], True) == ""
