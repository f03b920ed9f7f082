"""DVC on Airflow: any dvc.yaml as a DAG, every stage in a private clone, one publisher.

pipeline  a DVC project as plain data
store     where things are kept: Git, DVC's cache, clones
stage     one stage, run once, without Airflow
night     a night, as Airflow has it

Each imports only from those above it. Airflow is in `night` alone; DVC where a project is read and a stage is run.

Ten modules tell it whole, in half an hour and in this order; the others are what they call:

    project, lock       what is known of a stage, and what DVC's lock file says of it
    render, operator    the DAG, and its tasks
    pin                 the first: which commit, from which entries
    plan, attempt       a stage: need it run; a clone, a process, a result
    process, child      that process, and what it asks of DVC
    publish             the night as one commit
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
