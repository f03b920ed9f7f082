"""Every fifteen minutes: the report of every release, messages, and an asset event for what another night may mend."""

import json
import os
import subprocess
import sys
from pathlib import Path

from airflow.sdk import DAG, Asset, task
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from airflow.timetables.trigger import CronTriggerTimetable

ROOT = Path(__file__).resolve().parent.parent
PROJECT = Path(os.environ.get("NIGHTSHIFT_CHECKOUT") or ROOT)
KEEPER = {"queue": os.environ["NIGHTSHIFT_KEEPER"]} if os.environ.get("NIGHTSHIFT_KEEPER") else {}
ALERT = Asset("nightshift://alert")  # dags/nightly.py may be started by it

EVERY = CronTriggerTimetable("*/15 * * * *", timezone="UTC")

with DAG("watch", schedule=EVERY, catchup=False, max_active_runs=1) as watch:

    @task(**KEEPER)
    def look() -> list[str]:
        """Look, and take what is new; fails with the command's own sentence."""
        command = [sys.executable, "-m", "nightshift.cli", "watch", "--json", "--take"]
        around = os.environ | {"PYTHONPATH": str(PROJECT / "include")}
        if not PROJECT.is_dir():
            raise AirflowSkipException("this worker has no checkout yet; its first night makes it")
        ended = subprocess.run(command, cwd=PROJECT, env=around, stdout=subprocess.PIPE, text=True, check=False)
        if ended.returncode != 0:
            raise AirflowException(f"`nightshift watch` ended with {ended.returncode}; its sentence is above")
        return list(json.loads(ended.stdout)["taken"])

    @task(outlets=[ALERT], retries=2)  # what is taken is given once
    def alert(taken: list[str], *, outlet_events=None) -> None:
        """Emit the asset event, where there is something to be told."""
        if not taken:
            raise AirflowSkipException("nothing that another night may mend")
        outlet_events[ALERT].extra = {"alerts": taken}

    alert(look())
