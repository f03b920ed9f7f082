"""A wrong field is said by its place and in words of JSON, however our types are called."""

from __future__ import annotations

from typing import Any

import pytest

from nightshift.serve import body
from nightshift.serve.refused import Refused
from nightshift.serve.request import Chat

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"stop": [""]}, "'stop[0]' should have at least 1 character."),
    ({"stop": ["a", "b" * 65]}, "'stop[1]' should have at most 64 characters."),
    ({"stop": "b" * 65}, "'stop' should have at most 64 characters."),
    ({"stop": 5}, "'stop' should be a valid string."),
    ({"stop": ["a", 5]}, "'stop[1]' should be a valid string."),
    ({"nightshift": "x"}, "'nightshift' should be an object."),
    ({"nightshift": {"section": True}}, "'nightshift.section' is not a parameter of this endpoint."),
    ({"logit_bias": "x"}, "'logit_bias' should be an object."),
    ({"messages": ["x"]}, "'messages[0]' should be an object."),
    ({"messages": []}, "'messages' should have at least 1 item after validation, not 0."),
    ({"temperature": 3}, "'temperature' should be less than or equal to 2."),
    ({"stop": [""], "n": 9}, "'stop[0]' should have at least 1 character."),
]


@pytest.mark.parametrize(("fields", "said"), WRONG)
def test_a_wrong_field_is_said_in_words_of_json(fields: dict[str, Any], said: str) -> None:
    asked = {"model": "nightshift", "messages": [{"role": "user", "content": "Hello"}]}
    with pytest.raises(Refused) as refused:
        body.typed(asked | fields, Chat)
    assert str(refused.value) == said
