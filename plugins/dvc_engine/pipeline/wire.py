"""An entry of dvc.lock as JSON, and back as it was: YAML has keys that are no texts.

Entries travel from task to task by Airflow, which knows JSON alone, and hold values of params.yaml. Were `{0: cat}` to
come back as `{"0": cat}`, the lock file would say what DVC does not, and the stage run again the next night.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ITEMS = "dvc-airflow: items"  # of a mapping that JSON does not have


def dumps(value: Any) -> str:
    """A value as JSON."""
    return json.dumps(_plain(value), default=str)


def loads(text: str) -> Any:
    """The value that `dumps` wrote."""
    return json.loads(text, object_hook=_again if ITEMS in text else None)


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
