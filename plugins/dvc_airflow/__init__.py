"""DVC on Airflow: any dvc.yaml as a DAG, every stage in a private clone, one publisher.

pipeline  a DVC project as plain data
store     where things are kept: Git, DVC's cache, clones
stage     one stage, run once, without Airflow
night     a night, as Airflow has it

Each imports only from those above it. Airflow is in `night` alone; DVC where a project is read and a stage is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc_airflow.night.render import DvcDag, DvcTaskGroup

__all__ = ["DvcDag", "DvcTaskGroup"]


def __getattr__(name: str) -> Any:
    """What a DAG's file imports; not before, since a stage's child must not import Airflow."""
    if name not in __all__:
        raise AttributeError(name)
    from dvc_airflow.night import render

    return getattr(render, name)
