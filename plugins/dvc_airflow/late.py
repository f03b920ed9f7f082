"""A night that is late: told by a command of the project. Nothing is ended: it may still come to its end.

Airflow's deadline alerts notice it. They need no triggerer: the command runs where tasks run, once a slot is free. Two
things of Airflow 3.3.2 are kept away from here. Of a run that failed before its deadline it tells too
(apache/airflow#60927): that is no late night. And an executor that takes no callbacks, such as KubernetesExecutor, ends
the scheduler with an exception when one is due, at each start anew.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from typing import Any

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback  # type: ignore[attr-defined]
from airflow.sdk.configuration import conf

from dvc_engine.pipeline.project import ProjectError
from dvc_engine.stage.command import Command, words
from dvc_engine.stage.process import scrubbed

ENDED = ("success", "failed")
ABLE = ("LocalExecutor", "CeleryExecutor")  # that take callbacks

log = logging.getLogger(__name__)


def alert(after: timedelta, command: str, root: str, env: Mapping[str, str]) -> DeadlineAlert:
    """What Airflow is told of a night that may take so long from when it was asked for. Raises ProjectError."""
    names = [one.strip() for one in conf.get("core", "executor").split(",")]
    able = next((one for one in names if one.rpartition(":")[2].rpartition(".")[2] in ABLE), None)
    if able is None:
        what = f"late_after: {names[0]} cannot run on_late, {' and '.join(ABLE)} can"
        raise ProjectError(f"{what}; add one to Airflow's [core] executor, or leave late_after out")
    alias = None if able == names[0] else able.partition(":")[0]
    call = SyncCallback(tell, kwargs={"command": command, "root": root, "env": dict(env)}, executor=alias)
    return DeadlineAlert(reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=after, callback=call, name="late")


def tell(command: str, root: str, env: dict[str, str], context: dict[str, Any]) -> None:
    """Run the command in the checkout of record; {run} in it becomes the night's name. Raises CalledProcessError."""
    from dvc_airflow.settings import run_name

    said = context["dag_run"]
    if said["state"] in ENDED:
        log.info("%s ended before its deadline: it %s", said["dag_run_id"], said["state"])
        return
    run = run_name(said["dag_run_id"])
    around = scrubbed() | {name: value.replace("{clone}", root) for name, value in env.items()}
    split = [word.replace("{run}", run) for word in words(command)]
    with TemporaryDirectory() as folder:
        code, out, errors = Command(command).run(split, Path(folder), Path(root), around | {"DVC_AIRFLOW_RUN": run})
    log.info("%s\n%s%s", shlex.join(split), out, errors)
    if code:
        raise CalledProcessError(code, split)
