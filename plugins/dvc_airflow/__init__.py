"""DVC on Airflow: any dvc.yaml as a DAG, every stage in a private clone, one publisher.

project    dvc.yaml and its params, read into plain dataclasses
plan       what need not run, from lock entries alone
lock       lock entries as data: read, merge, write
objects    objects of the cache, hashed where DVC trusts
workspace  a private clone for one task, one shared cache
child      the process that checks out and reproduces one stage
recorder   the shell that DVC starts commands with: exit code, last lines
"""
