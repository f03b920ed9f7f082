"""DVC on Airflow: any dvc.yaml as a DAG, every stage in a private clone, one publisher.

project    dvc.yaml and its params, read into plain dataclasses
render     a project as a DAG: a task a stage, pin before and publish after
operator   the tasks of a night: pin, stage, publish, commands after it, end
snapshot   the commit that a night runs: HEAD, a changed work tree, overridden params
lease      one night at a time, by the compare-and-swap of a Git ref
plan       what need not run, from lock entries alone
lock       lock entries as data: read, merge, write
objects    objects of the cache, hashed where DVC trusts
workspace  a private clone for one task, one shared cache
attempt    one attempt at one stage, without Airflow: decide, clone, reproduce, report
child      the process that checks out and reproduces one stage
recorder   the shell that DVC starts commands with: exit code, last lines
publish    what a night made as one commit on its branch, or kept until that is possible
"""
