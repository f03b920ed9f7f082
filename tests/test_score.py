"""What an answer is worth, by cases worked by hand."""

from __future__ import annotations

import math

import pytest

from nightshift import score


@pytest.mark.parametrize(
    ("answer", "wanted", "exact", "f1"),
    [
        ("", "", 1.0, 1.0),
        ("", "a word", 0.0, 0.0),
        ("The Eiffel Tower!", "eiffel tower", 1.0, 1.0),
        ("a red car", "a blue bus", 0.0, 0.0),
        ("red car", "red bus", 0.0, 0.5),  # one of two words on either side
        ("red red car", "red car", 0.0, 0.8),  # precision 2/3, recall 1
    ],
)
def test_words_are_compared_as_squad_does(answer: str, wanted: str, exact: float, f1: float) -> None:
    assert score.exact_match(answer, wanted) == exact
    assert score.token_f1(answer, wanted) == pytest.approx(f1)


def test_a_long_choice_is_not_wrong_for_being_long() -> None:
    assert score.chosen([-10.0, -12.0], ["short", "a much longer choice"]) == 1
    assert score.chosen([-1.0, -1.0], ["same", "size"]) == 0


def test_bits_per_byte_count_bytes_and_bits() -> None:
    assert score.bits_per_byte(-math.log(2) * 8, "abcd") == pytest.approx(2.0)
    assert score.bits_per_byte(-math.log(2) * 8, "éé") == pytest.approx(2.0)


def test_mistyping_changes_letters_inside_words_and_is_repeatable() -> None:
    text = "Which of these paragraphs belongs to the function that normalises vectors?"
    one = score.mistyped(text, "seed")
    assert one == score.mistyped(text, "seed") != text
    assert [len(word) for word in one.split()] == [len(word) for word in text.split()]
    assert sorted(one) == sorted(text)
    assert score.mistyped("a bc def", "seed") == "a bc def"


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ("The pump moves water.", 1.0),
        ("the PUMP moves a pump", 2 / 3),  # said twice, stands there once
        ("The pump moves oil", 2 / 3),
        ("bananas", 0.0),
        ("", 1.0),  # nothing was made up
        ("The.", 1.0),
    ],
)
def test_an_answer_is_grounded_as_far_as_its_words_stand_in_the_sections(answer: str, share: float) -> None:
    assert score.grounded(answer, ["The pump", "moves water"]) == pytest.approx(share)
