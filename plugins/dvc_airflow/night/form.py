"""The trigger form: what of params.yaml a run may override, and with values of which kind.

A run's conf is what the form sent, or what somebody wrote. Airflow checks it where a field has a schema, and lets keys
in that no field has; so the pin checks it again, against the params file of the commit that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError
from ruamel.yaml import YAML

from dvc_airflow.store import snapshot

# JSON schema's name of a value's type; None may become anything
_JSON: dict[type, Any] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    type(None): ["null", "string", "number"],
}


def form(project: Path, file: str = snapshot.PARAMS) -> dict[str, Param]:
    """A typed field for every value of a params file, with what it is now as default.

    `profile`, where the file has `profiles`, is a choice among them.
    """
    path = project / file
    document = (YAML(typ="safe").load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}
    profiles = document.pop("profiles", None) or {}
    chosen = document.pop("profile", None)
    values = {key: value for key, value in snapshot.leaves(document).items() if type(value) in _JSON}  # no dates
    fields = {key: Param(value, **_schema(value)) for key, value in values.items()}
    return ({"profile": Param(chosen, enum=list(profiles))} if profiles else {}) | fields


def refuse(overrides: Mapping[str, Any], values: Mapping[str, Any], file: str) -> None:
    """Raises Refused for a value of another kind than the params file has there.

    Args:
        overrides: dotted key → value.
        values: dotted key → value of the file; a key that it lacks is passed over.
        file: its name.
    """
    for key, value in overrides.items():
        now = values.get(key)
        if now is None or type(now) not in _JSON:
            continue
        try:
            Param(now, **_schema(now)).resolve(value)
        except ParamValidationError:
            kind = _JSON[type(now)]
            raise snapshot.Refused(f"{key} is {value!r}, and {file} has {now!r} there: write a JSON {kind}") from None


def _schema(value: Any) -> dict[str, Any]:
    """JSON schema of a field; a list of mappings says so, else the form shows it as '[object Object]'."""
    nested = isinstance(value, list) and any(isinstance(one, dict) for one in value)
    return {"type": _JSON[type(value)]} | ({"items": {"type": "object"}} if nested else {})
