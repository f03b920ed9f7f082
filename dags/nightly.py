"""The night, from dvc.yaml: pin, every stage, publish, and what follows a release.

It starts by the clock, and where params.yaml says so by an alert too (dags/watch.py). One that ends badly, or is late,
is told by the same command that watches, in a process of its own: it goes on where the Airflow of a single night is
stopped.

Where workers share no disk (docs/cluster.md), NIGHTSHIFT_REMOTE is the Git repository of record, each worker has a
checkout of it at NIGHTSHIFT_CHECKOUT, and NIGHTSHIFT_KEEPER is the queue of the one that has NIGHTSHIFT_HOME.
"""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

from airflow.sdk import Asset
from airflow.timetables.assets import AssetOrTimeSchedule
from airflow.timetables.trigger import CronTriggerTimetable
from ruamel.yaml import YAML

from dvc_airflow import DvcDag

ROOT = Path(__file__).resolve().parent.parent
REMOTE, CHECKOUT = os.environ.get("NIGHTSHIFT_REMOTE", ""), os.environ.get("NIGHTSHIFT_CHECKOUT")
PROJECT = Path(CHECKOUT or ROOT)  # as a worker has it; ROOT may be a copy that Airflow made of the repository
PLACES = {"STATE": ".nightshift", "SCRATCH": ".nightshift", "HOME": "var", "SOURCES": ""}
places = {
    f"NIGHTSHIFT_{name}": os.environ.get(f"NIGHTSHIFT_{name}") or str(PROJECT / at) for name, at in PLACES.items()
}
params = YAML(typ="safe").load(ROOT / "params.yaml")
when = params["night"]
# not at once for a time that is past: `False`, the default, runs what was due in the last tenth of the interval
later = {"run_immediately": timedelta()}
clock = CronTriggerTimetable(when["schedule"], timezone=when["timezone"], **later) if when["schedule"] else None
alert = [Asset("nightshift://alert")] if params["watch"]["retrain_on_alert"] else None


def tell(context):
    """Tell people now, not at the next look."""
    around = os.environ | {"PYTHONPATH": str(PROJECT / "include")}
    command = [sys.executable, "-m", "nightshift.cli", "watch"]
    subprocess.Popen(command, cwd=PROJECT, env=around, start_new_session=True)


nightly = DvcDag(
    "nightly",
    ROOT,
    schedule=AssetOrTimeSchedule(timetable=clock, assets=alert) if clock and alert else clock or alert,
    on_failure_callback=tell,
    late_after=timedelta(hours=when["deadline_hours"]) if when["deadline_hours"] else None,
    on_late="python -m nightshift.cli watch --late {run}" if when["deadline_hours"] else None,
    branch="nightly",
    refs="refs/nightshift",
    remote=REMOTE,
    checkout=CHECKOUT,
    queue=os.environ.get("NIGHTSHIFT_KEEPER"),
    env={**places, "PYTHONPATH": "{clone}/include"},
    publish="python -m nightshift.release.publish",
    after={"deploy": "python -m nightshift.release.deploy", "certify": "python -m nightshift.release.certify"},
    register="nightshift[@#]*",
    headline={"verdict": "gate.verdict"},
    prices=when["prices"],
    record=f"{places['NIGHTSHIFT_STATE'].rstrip('/')}/runs",
    keep_nights=when["keep_nights"],
    keep_bytes=int(when["keep_gb"] * 1e9) if when["keep_gb"] else None,
)
