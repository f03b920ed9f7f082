"""DVC on Airflow: any dvc.yaml as a DAG, every stage in a private clone, one publisher.

project    a project as plain data: stages, and which rests on which
reading    any DVC project read into that, as DVC reads it
meta       what a stage asks for in `meta.airflow`
check      what DVC takes and a night cannot run
selection  which stages run
render     a project as a DAG or a group in one: a task a stage, pin before and publish after
operator   the tasks of a night, and what they share; pin and end, its first and its last
snapshot   the commit that a night runs: HEAD, a changed work tree, overridden params
repository where nights are published: the checkout's own, or a remote of it
lease      one night at a time, by the compare-and-swap of a Git ref
plan       what need not run, from lock entries alone
lock       lock entries as data: read, merge, write
objects    objects of the cache, hashed where DVC trusts
workspace  a private clone for one task, one shared cache
uncached   outs that DVC keeps no object of, kept for other clones
attempt    one attempt at one stage, without Airflow: decide, clone, reproduce, report
process    its process: a session of its own, on a leash
venvs      environments of stages that have requirements of their own
child      what that does: check out and reproduce one stage
account    what a night took
outcome    what a night fixed, what a stage returns, and what its end means
recorder   the shell that DVC starts commands with: exit code, last lines
gc         what of the cache may go
publish    what a night made as one commit on its branch, or kept until that is possible
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dvc_airflow.render import DvcDag, DvcTaskGroup

__all__ = ["DvcDag", "DvcTaskGroup"]


def __getattr__(name: str) -> Any:
    """What a DAG's file imports; not before, since a stage's child must not import Airflow."""
    if name not in __all__:
        raise AttributeError(name)
    from dvc_airflow import render

    return getattr(render, name)
