"""The engine is imported where Airflow starts, and not again by each process that it forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# what a job of Airflow's does first (airflow/jobs/job.py), and so its DAG processor and its scheduler
STARTS = """
import json, sys
from airflow.listeners.listener import get_listener_manager
get_listener_manager()
from airflow import plugins_manager
names = [one["name"] for one in plugins_manager.get_plugin_info()]
print(json.dumps([names, plugins_manager.get_import_errors(), sorted(sys.modules)]))
"""


def test_what_a_parse_and_a_task_need_is_there_before_airflow_forks(tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    around = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins")}
    said = subprocess.run([sys.executable, "-c", STARTS], env=kept | around, capture_output=True, text=True, check=True)
    names, errors, modules = json.loads(said.stdout.splitlines()[-1])
    assert names.count("dvc_airflow") == 1
    assert not errors
    assert {f"dvc_airflow.{one}" for one in ("night.render", "night.publish", "stage.attempt")} <= set(modules)
    assert "dvc" not in modules  # it is large, and what a stage's own process imports
