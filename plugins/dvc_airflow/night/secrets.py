"""Variables of a stage that come from Airflow's secrets backend, and are repeated nowhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from airflow.sdk import Connection, Variable
from airflow.sdk.log import mask_secret

from dvc_airflow.stage.outcome import Result


def secret(value: str) -> str:
    """A stage's variable: 'airflow://variables/NAME' and 'airflow://connections/ID' from Airflow's secrets backend.

    What comes from there is masked wherever Airflow logs it.
    """
    kind, _, name = value.removeprefix("airflow://").partition("/")
    if not value.startswith("airflow://") or kind not in ("variables", "connections"):
        return value
    found = str(Variable.get(name) if kind == "variables" else Connection.get(name).get_uri())
    mask_secret(found)
    return found


def hidden(result: Result, secrets: Sequence[str]) -> Result:
    """A result whose words show none of these."""
    sentence, report = result.sentence, json.dumps(result.report)
    for one in filter(None, secrets):
        sentence, report = sentence.replace(one, "***"), report.replace(json.dumps(one)[1:-1], "***")
    return replace(result, sentence=sentence, report=json.loads(report))
