"""Parse one DAG file again and again, as Airflow's DAG processor does: each time in a fork of a process that has
Airflow, its plugins, and the modules of Airflow that the file names, already imported. What else is imported counts.

    python processor.py FILE

Reads a line for each parse ('time'; 'describe' for what it holds, too), and answers with a line of JSON. Plugins are
those of the environment and of $AIRFLOW__CORE__PLUGINS_FOLDER.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from typing import Any

from airflow.dag_processing.dagbag import DagBag
from airflow.listeners.listener import get_listener_manager
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.file import iter_airflow_imports


def parsed(file: str, how: str) -> dict[str, Any]:
    """Seconds, also of processors; where asked for, what the DAG holds and its size in Airflow's database."""
    began, used = time.perf_counter(), processors()
    bag = DagBag(file)
    said: dict[str, Any] = {"seconds": time.perf_counter() - began, "cpu_seconds": processors() - used}
    if bag.import_errors or not bag.dags:
        return {"error": next(iter(bag.import_errors.values()), "no DAG is there")}
    if how == "describe":
        (dag,) = bag.dags.values()
        tasks = sorted(dag.tasks, key=lambda one: one.task_id)
        said["tasks"] = [one.task_id for one in tasks]
        said["edges"] = sorted([above, one.task_id] for one in tasks for above in one.upstream_task_ids)
        said["groups"] = sorted(filter(None, dag.task_group_dict))
        said["outlets"] = {one.task_id: [asset.uri for asset in one.outlets] for one in tasks if one.outlets}
        said["texts"] = {one.task_id: [one.doc_md, one.task_display_name] for one in tasks if one.outlets}
        said["params"] = dag.params.dump()
        said["serialised_bytes"] = len(json.dumps(DagSerialization.to_dict(dag)))
    return said


def processors() -> float:
    """Seconds of processors that this process and what it started have used."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def main(file: str) -> None:
    """Answer until stdin ends."""
    get_listener_manager()  # as the job of Airflow's does when it starts: this loads the plugins
    for name in iter_airflow_imports(file):
        __import__(name)
    gc.freeze()  # as Airflow's does
    for line in sys.stdin:
        reads, writes = os.pipe()
        if not (child := os.fork()):
            with os.fdopen(writes, "w") as out:
                json.dump(parsed(file, line.strip()), out)
            os._exit(0)
        os.close(writes)
        with os.fdopen(reads) as said:
            print(said.read(), flush=True)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1])
