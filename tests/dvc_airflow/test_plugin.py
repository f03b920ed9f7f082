"""The engine is imported where Airflow starts, and not again by each process that it forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

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
IN_A_TASK = """
import json
from airflow.sdk import plugins_manager
plugins, errors = plugins_manager._get_plugins()
print(json.dumps([[one.name for one in plugins], errors]))
"""


def said(asks: str, home: Path, *paths: Path) -> Any:
    """What a script prints last, as JSON, where Airflow's folder of plugins is this project's."""
    around = os.environ | {"AIRFLOW_HOME": str(home), "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins")}
    around["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    ended = subprocess.run([sys.executable, "-c", asks], env=around, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def test_what_a_parse_and_a_task_need_is_there_before_airflow_forks(tmp_path: Path) -> None:
    names, errors, modules = said(STARTS, tmp_path)
    assert names.count("dvc_airflow") == 1
    assert not errors
    assert {"dvc_airflow.render", "dvc_engine.night.publish", "dvc_engine.stage.attempt"} <= set(modules)
    assert "dvc" not in modules  # it is large, and what a stage's own process imports


def test_beside_an_installed_engine_no_other_plugin_is_lost(tmp_path: Path) -> None:
    """Airflow's tasks pass over whatever comes after a second plugin of one name."""
    for name, value in (("dvc_airflow", "dvc_airflow.plugin:DvcAirflow"), ("other", "other:Other")):
        held = tmp_path / f"{name}-1.dist-info"
        held.mkdir()
        (held / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (held / "entry_points.txt").write_text(f"[airflow.plugins]\n{name} = {value}\n")
    other = "from airflow.plugins_manager import AirflowPlugin\n\n\nclass Other(AirflowPlugin):\n    name = 'other'\n"
    (tmp_path / "other.py").write_text(other)
    for asks in (STARTS, IN_A_TASK):
        names, errors, *_ = said(asks, tmp_path, tmp_path, ROOT / "plugins")
        assert (names.count("dvc_airflow"), names.count("other")) == (1, 1)
        assert not errors
