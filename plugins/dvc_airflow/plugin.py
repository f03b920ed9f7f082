"""The engine as a plugin of Airflow's, so that it is imported once where Airflow forks, and not in every fork.

Airflow's DAG processor parses each file in a process of its own, every half minute, and LocalExecutor runs each task in
one. What a file imports of Airflow is there already; the engine was not, and that was two thirds of what a small DAG
cost to parse. Airflow loads plugins before it forks. A plugin need not offer anything else.
"""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from dvc_airflow import lineage, render, secrets
from dvc_engine.night import changes, publish
from dvc_engine.stage import attempt

# what a parse needs, and what a task of a stage and the publication need beside it
NEEDED = (render, attempt, lineage, secrets, publish, changes)


class DvcAirflow(AirflowPlugin):
    """What Airflow's list of plugins shows."""

    name = "dvc_airflow"
