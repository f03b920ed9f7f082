"""The night, from dvc.yaml: pin, every stage, publish, and what follows a release."""

import os
from pathlib import Path

from airflow.timetables.trigger import CronTriggerTimetable
from ruamel.yaml import YAML

from dvc_airflow.render import DvcDag

ROOT = Path(__file__).resolve().parent.parent
HOME = {
    name: os.environ.get(name, str(ROOT / place))
    for name, place in [("NIGHTSHIFT_STATE", ".nightshift"), ("NIGHTSHIFT_HOME", "var"), ("NIGHTSHIFT_SOURCES", "")]
}
when = YAML(typ="safe").load(ROOT / "params.yaml")["night"]

nightly = DvcDag(
    "nightly",
    ROOT,
    schedule=CronTriggerTimetable(when["schedule"], timezone=when["timezone"]) if when["schedule"] else None,
    branch="nightly",
    refs="refs/nightshift",
    env={**HOME, "PYTHONPATH": "{clone}/include"},
    publish="python -m nightshift.release.publish",
    after={"deploy": "python -m nightshift.release.deploy"},
    headline={"verdict": "gate.verdict"},
    prices=when["prices"],
    record=Path(HOME["NIGHTSHIFT_STATE"]) / "runs",
)
