"""An entry of dvc.lock as JSON, and back as it was: YAML has keys that are no texts.

Entries travel from task to task by Airflow, which knows JSON alone, and hold values of params.yaml. Were `{0: cat}` to
come back as `{"0": cat}`, the lock file would say what DVC does not, and the stage run again the next night.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

ITEMS = "dvc-airflow: items"  # of a mapping that JSON does not have
LEAST, MOST = -(1 << 63), (1 << 64) - 1  # MessagePack's integers, by which Airflow's processes talk to each other
DIGITS = 20  # of the longest of them


def dumps(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(_plain(value), default=str)


def loads(text: str) -> Any:
    """The value that `dumps` wrote."""
    return json.loads(text, object_hook=_again if ITEMS in text else None)


def carried(value: Any) -> bool:
    """Whether Airflow carries a value as it is: JSON has it, and its integers are of 64 bits. A seed may have 128."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and carried(one) for key, one in value.items())
    if isinstance(value, list):
        return all(map(carried, value))
    if isinstance(value, float):
        return isfinite(value)
    return value is None or isinstance(value, str | bool) or (isinstance(value, int) and LEAST <= value <= MOST)


def measured(text: str | bytes) -> Any:
    """What a JSON text says, in which a number that Airflow does not carry is a text. Raises ValueError for no JSON."""
    return json.loads(text, parse_constant=str, parse_int=_integer, parse_float=_float)


def _integer(said: str) -> Any:
    return int(said) if len(said.lstrip("-")) <= DIGITS and carried(int(said)) else said


def _float(said: str) -> Any:
    return float(said) if isfinite(float(said)) else said


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        if ITEMS not in value and all(isinstance(key, str) for key in value):
            return {key: _plain(one) for key, one in value.items()}
        return {ITEMS: [[key, _plain(one)] for key, one in value.items()]}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _again(said: dict[str, Any]) -> Any:
    return dict(said[ITEMS]) if ITEMS in said else said
