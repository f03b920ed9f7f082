"""A night, as Airflow has it: the DAG, its tasks, and what they leave.

settings  what a DAG's author may say of a night, and what its tasks share of that
render    a project as a DAG or a group in one: a task a stage, pin before and publish after
form      what of params.yaml a run may override, as Airflow shows and checks it
pod       of a stage whose task is Kubernetes' to run
operator  the tasks of a night, and what they share
approve   the task in which a person decides about what a stage made
pin       the first: what this night runs
publish   what a night made as one commit on its branch, or kept until that is possible
end       the last: what the night was, and nothing is left behind
account   what a night took
changes   its metrics, beside what they were
links     to commits, in Airflow's UI
lineage   what OpenLineage is told of a stage
late      a night over its deadline
retries   how often a task is tried again
secrets   variables of stages from Airflow's secrets backend
plugin    by which Airflow imports all this once, before it forks
"""
