"""The trigger form: what of params.yaml a run may override, and with values of which kind.

A run's conf is what the form sent, or what somebody wrote. Airflow checks it where a field has a schema, and lets keys
in that no field has; so the pin checks it again, against the params file of the commit that runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError

from dvc_engine.pipeline import kept, reading
from dvc_engine.store import params
from dvc_engine.store.snapshot import Refused

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


def form(project: Path, file: str = params.FILE) -> dict[str, Param]:
    """A typed field for every value of a params file, with what it is now as default.

    `profile`, where it names one of the file's `profiles`, is a choice among them.
    """
    path, folder = project / file, kept.folder(project)
    text = path.read_bytes() if path.is_file() else b""
    name = f"form-{hashlib.sha256(text).hexdigest()[:24]}"
    found = kept.read(folder, name)
    if found is None:
        found = _read(path)
        kept.write(folder, name, found)
    profiles = {"profile": Param(found["chosen"], enum=found["profiles"])} if found["profiles"] else {}
    return profiles | {key: Param(value, **_schema(value)) for key, value in found["values"].items()}


def _read(path: Path) -> dict[str, Any]:
    """What a params file has for the form. Raises ProjectError for one that is no YAML."""
    document = dict(reading.document(path)) if path.is_file() else {}
    profiles, chosen = params.profiles(document), document.get("profile")
    if profiles:
        del document["profiles"], document["profile"]
    values = {key: value for key, value in params.leaves(document).items() if _is_json(value)}
    return {"profiles": list(profiles), "chosen": chosen, "values": values}


def refuse(overrides: Mapping[str, Any], values: Mapping[str, Any], file: str) -> None:
    """Raises Refused for a value of another kind than the params file has there.

    Args:
        overrides: dotted key → value.
        values: dotted key → value of the file; a key that it lacks is passed over.
        file: its name.
    """
    for key, value in overrides.items():
        now = values.get(key)
        if now is None or not _is_json(now):
            continue
        try:
            Param(now, **_schema(now)).resolve(value)
        except ParamValidationError:
            kind = _JSON[type(now)]
            raise Refused(f"{key} is {value!r}, and {file} has {now!r} there: write a JSON {kind}") from None


def _is_json(value: Any) -> bool:
    """Whether a value can be a field: a date cannot, nor infinity, nor what holds one."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return type(value) in _JSON  # an ordered mapping is another


def _schema(value: Any) -> dict[str, Any]:
    """JSON schema of a field; a list with mappings says so, else the form shows them as '[object Object]'."""
    nested = isinstance(value, list) and any(isinstance(one, dict) for one in value)
    alike = nested and all(isinstance(one, dict) for one in value)
    items = {"type": "object" if alike else ["object", "array", "string", "number", "boolean", "null"]}
    return {"type": _JSON[type(value)]} | ({"items": items} if nested else {})
