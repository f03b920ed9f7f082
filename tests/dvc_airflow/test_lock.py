"""dvc.lock is written as DVC writes it, whichever emitter does."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
from ruamel.yaml import YAML

from dvc_engine.pipeline import lock

WORDS = [
    *("plain", "yes", "null", "~", "1e3", "0x1f", "12:30", "2020-01-01", "- a", "a: b", "a #b", "*a", "<<", "%a", ""),
    *(
        "'a'",
        "it's",
        'say "a"',
        "'a' && \"b\"",
        "a\nb",
        "a\tb",
        "a\\b",
        "é",
        "😀",
        "\u2028",
        "${item}",
        "# a",
        "? a",
        "|",
    ),
    *(" a ", f'python train.py --out {"a" * 30} && python report.py "x y" {"b" * 40} # more of it, over several lines'),
]
VALUES = [*WORDS, None, True, 0, -1.5, 1e-5, 1e300, float("nan"), [], {}, [1, [2, "a"]], {"a": {"b": [{"c": None}]}}]


def as_dvc(stages: dict[str, Any]) -> str:
    """As dvc.utils.serialize writes one."""
    yaml, out = YAML(), io.StringIO()
    yaml.default_flow_style = False
    yaml.dump({"schema": "2.0", "stages": stages}, out)
    return out.getvalue()


def entry(cmd: Any, path: str, value: Any) -> dict[str, Any]:
    held = {"path": path, "hash": "md5", "md5": "0" * 32, "size": 3}
    return {"cmd": cmd, "deps": [held], "params": {"params.yaml": {"a.b": value}}, "outs": [dict(held)]}


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_an_entry_is_written_as_dvc_writes_it(value: Any) -> None:
    one = {"a@b": entry("true", "x", value), "next": entry(["true", "false"], "y", 1)}
    assert lock._dump({"schema": "2.0", "stages": one}) == as_dvc(one)


def test_entries_of_all_kinds_are_written_as_dvc_writes_them() -> None:
    made = random.Random(7)
    for _ in range(60):
        names = made.sample([f"{word}-{n}" for n, word in enumerate(WORDS)], 4)
        stages = {one: entry(made.choice(WORDS), made.choice(WORDS), made.choice(WORDS)) for one in names}
        assert lock._dump({"schema": "2.0", "stages": stages}) == as_dvc(stages)
