#!/usr/bin/env bash
# The three processes of a local Airflow, in one process group: when one ends, all do. Logs go to $AIRFLOW_HOME/logs.
# The environment comes from `nightshift up`, which knows the group by this process: it ends after the others.
set -m
trap 'wait; exit' TERM
mkdir -p "$AIRFLOW_HOME/logs"
for process in api-server scheduler dag-processor; do
    set +m
    airflow "$process" >>"$AIRFLOW_HOME/logs/$process.log" 2>&1 &
done
wait -n
kill -TERM 0
