"""Read the bytes of a body as strict JSON, and a value of it as one of our types.

Duplicate keys, numbers that are not finite, lone surrogates and deep nesting are refused rather than guessed at. An
unknown field is refused by name, a wrong one by its place and what it may be; what stands in it is never repeated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from nightshift.serve.refused import Refused

NUMBER_DIGITS = 64  # a longer number is an attack on the parser
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)  # or a whole string, whose brackets do not count
# of pydantic's sentences: ours is the field
_SUBJECT = re.compile(r"^(Input|String|List|Dictionary|Value) (?=should )")


class Body(BaseModel):
    """A request's body: no unknown fields, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


B = TypeVar("B", bound=Body)


def parse(body: bytes, depth: int) -> dict[str, Any]:
    """The JSON object in these bytes, nested at most this deep. Raises Refused."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("invalid_unicode", "The body is not UTF-8.") from None
    if _deeper(text, depth):
        raise Refused("invalid_json", f"The body is nested more than {depth} deep.")
    try:
        asked = json.loads(
            text, object_pairs_hook=_once, parse_constant=_not_finite, parse_float=_float, parse_int=_int
        )
    except (ValueError, RecursionError):
        raise Refused("invalid_json", "The body is not JSON.") from None
    try:
        json.dumps(asked, ensure_ascii=False).encode("utf-8")  # a lone surrogate is text in JSON, and nowhere else
    except UnicodeEncodeError:
        raise Refused("invalid_unicode", "The body holds half of a surrogate pair.") from None
    if not isinstance(asked, dict):
        raise Refused("invalid_json", "The body is not a JSON object.")
    return asked


def typed(asked: Mapping[str, Any], kind: type[B]) -> B:
    """These fields as a request. Raises Refused for the first that is wrong."""
    try:
        return kind.model_validate(asked)
    except ValidationError as error:
        raise _wrong(error) from None


def _wrong(error: ValidationError) -> Refused:
    """What to say of the first field that is wrong; an unknown one first, since it explains a missing one."""
    found = error.errors(include_url=False, include_input=False)
    first = next((one for one in found if one["type"] == "extra_forbidden"), _nearest(found))
    param = _place(first["loc"])
    match first["type"]:
        case "extra_forbidden":
            return Refused("unknown_parameter", f"'{param}' is not a parameter of this endpoint.", param)
        case "missing":
            return Refused("missing_field", f"'{param}' is missing.", param)
        case "value_error":
            return Refused("invalid_value", f"'{param}' {first['ctx']['error']}.", param)
        case "model_type" | "model_attributes_type" | "dict_type":  # pydantic names a class or a type of Python
            return Refused("invalid_value", f"'{param}' should be an object.", param)
    said = _SUBJECT.sub("", first["msg"])
    return Refused("invalid_value", f"'{param}' {said[0].lower()}{said[1:]}.", param)


def _nearest(found: list[ErrorDetails]) -> ErrorDetails:
    """The first error; of a value that may be one or another, the one of the alternative that got furthest."""
    place = _place(found[0]["loc"])
    alike = [one for one in found if re.fullmatch(rf"{re.escape(place)}([.\[].*)?", _place(one["loc"]))]
    return max(alike, key=lambda one: len(one["loc"]))


def _place(location: tuple[int | str, ...]) -> str:
    """`messages[0].content` of a pydantic location, without the names of the alternatives of a union."""
    said = ""
    for one in location:
        if isinstance(one, int):
            said += f"[{one}]"
        elif not said:
            said = str(one)[:64]
        elif one.isidentifier() and one.islower() and one not in ("str", "list", "int", "float"):
            said += f".{one[:64]}"
    return said.encode("ascii", "replace").decode()


def _deeper(text: str, depth: int) -> bool:
    """Whether brackets outside of strings nest deeper than this: the parser itself recurses on them."""
    if text.count("{") + text.count("[") <= depth:
        return False
    now = 0
    for found in _BRACKET.finditer(text):
        now += {"{": 1, "[": 1, "}": -1, "]": -1}.get(found[0], 0)
        if now > depth:
            return True
    return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Refused("duplicate_key", "A key stands twice in the body.")
    return made


def _not_finite(text: str) -> Any:
    raise Refused("non_finite_number", f"{text} is not a number.")


def _float(text: str) -> float:
    found = float(text)
    if found in (float("inf"), float("-inf")):
        raise Refused("non_finite_number", "A number is larger than any that can be read.")
    return found


def _int(text: str) -> int:
    if len(text) > NUMBER_DIGITS:
        raise Refused("invalid_json", f"A number has over {NUMBER_DIGITS} digits.")
    return int(text)
