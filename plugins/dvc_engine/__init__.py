"""A night of a DVC project, without Airflow or any other scheduler: what `dvc_airflow` has its tasks do.

pipeline  a DVC project as plain data
store     where things are kept: Git, DVC's cache, clones
stage     one stage, run once
night     what all of them made: as one commit, beside what was, and what it took

Each imports only from those above it, and `git`, Git as all of them ask it. DVC is imported where a project is read and
a stage is run.

Seven modules tell it whole, in this order; the others are what they call:

    pipeline: project, lock     what is known of a stage, and what DVC's lock file says of it
    stage: plan, attempt        need it run; a clone, a process, a result
    stage: process, child       that process, and what it asks of DVC
    night: publish              the night as one commit
"""
