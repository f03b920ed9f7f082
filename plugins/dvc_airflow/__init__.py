"""DVC on Airflow: any dvc.yaml as a DAG, every stage in a private clone, one publisher.

This package is all that knows of Airflow. What a task does, of a project, a stage or a night, is in `dvc_engine`, which
does not. Six modules tell it whole, in this order:

    settings   what a DAG's author may say of a night, and what its tasks share of that
    render     a project as a DAG or a group in one: a task a stage, pin before and publish after
    operator   what the tasks share, with their links to commits, and the task of a stage
    pin        the first task: what this night runs, and what of params.yaml a run may override
    publish    what a night made as one commit, and the commands behind it
    end        the last: what the night was, and nothing is left behind

The others are each one thing that a project may ask for, or be shown:

    approve    a person decides about what a stage made
    secrets    variables of stages from Airflow's secrets backend
    pod        of a stage whose task is Kubernetes' to run
    late       a night over its deadline
    lineage    what OpenLineage is told of a stage
    plugin     by which Airflow imports all this once, before it forks
    __main__   what a project is, and what of its cache may go, at a terminal
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc_airflow.render import DvcDag, DvcTaskGroup

__all__ = ["DvcDag", "DvcTaskGroup"]


def __getattr__(name: str) -> Any:
    """What a DAG's file imports; not before, since `python -m dvc_airflow` does without Airflow."""
    if name not in __all__:
        raise AttributeError(name)
    from dvc_airflow import render

    return getattr(render, name)
