"""A golden answer passes while it is as good as when it was judged, and not because a model is bad."""

from __future__ import annotations

import pytest

from nightshift.golden import Golden, grade

RIGHT = Golden("1", "What does a pump do?", "pump", "It moves water from the well.", "It moves water.", True)
WRONG = Golden("2", "What does a valve do?", "valve", "It shuts the pipe.", "Large red tomatoes in Spain", False)


@pytest.mark.parametrize(
    ("one", "answer", "sections", "passes"),
    [
        (RIGHT, "It moves water.", ["pump", "valve"], True),
        (RIGHT, "it moves the WATER", ["pump"], True),
        (RIGHT, "It moves water.", ["valve"], False),  # the index lost the section
        (RIGHT, "It moves water.", [], False),
        (RIGHT, "It moves water from the well.", ["pump"], True),  # better than it was
        (RIGHT, "qzx qzx qzx qzx", ["pump"], False),  # garbage at status 200
        (RIGHT, "", ["pump"], False),
        (RIGHT, "I cannot answer this from the documents that I have.", ["pump"], False),
        # a model that was wrong when it was judged passes as long as it says the same, or what is right
        (WRONG, "Large red tomatoes", [], True),
        (WRONG, "It shuts the pipe", [], True),
        (WRONG, "A shop far away", [], False),
        (WRONG, "", [], False),
    ],
)
def test_an_answer_is_as_good_as_the_one_that_was_judged(
    one: Golden, answer: str, sections: list[str], passes: bool
) -> None:
    assert grade(one, answer, sections) == passes
