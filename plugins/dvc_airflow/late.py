"""A night that is late: told by a command of the project. Nothing is ended: it may still come to its end.

Airflow's deadline alerts notice it. They need no triggerer: the command runs where tasks run, once a slot is free. Two
things of Airflow 3.3.2 are kept away from here. Of a run that failed before its deadline it tells too
(apache/airflow#60927): that is no late night. And an executor that takes no callbacks, such as KubernetesExecutor, ends
the scheduler with an exception when one is due, at each start anew.
"""

from __future__ import annotations

import logging
import shlex
from datetime import timedelta
from pathlib import Path
from subprocess import CalledProcessError
from tempfile import TemporaryDirectory
from typing import Any

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback  # type: ignore[attr-defined]
from airflow.sdk.configuration import conf

from dvc_airflow.settings import Settings, run_name
from dvc_engine.pipeline.project import ProjectError
from dvc_engine.stage.command import Command, words
from dvc_engine.stage.process import scrubbed
from dvc_engine.store.repository import checked_out

ENDED = ("success", "failed")
ABLE = ("LocalExecutor", "CeleryExecutor")  # that take callbacks

log = logging.getLogger(__name__)


def alert(after: timedelta, command: str, settings: Settings) -> DeadlineAlert:
    """What Airflow is told of a night that may take so long from when it was asked for. Raises ProjectError."""
    names = [one.strip() for one in conf.get("core", "executor").split(",")]
    able = next((one for one in names if one.rpartition(":")[2].rpartition(".")[2] in ABLE), None)
    if able is None:
        what = f"late_after: {names[0]} cannot run on_late, {' and '.join(ABLE)} can"
        raise ProjectError(f"{what}; add one to Airflow's [core] executor, or leave late_after out")
    alias = None if able == names[0] else able.partition(":")[0]
    checkout = {"root": settings.root, "checkout": settings.checkout, "remote": settings.remote}
    call = SyncCallback(tell, kwargs={"command": command, "env": dict(settings.env), **checkout}, executor=alias)
    return DeadlineAlert(reference=DeadlineReference.DAGRUN_QUEUED_AT, interval=after, callback=call, name="late")


def tell(command: str, env: dict[str, str], root: str, checkout: str, remote: str, context: dict[str, Any]) -> None:
    """Run the command in the checkout of record; {run} in it becomes the night's name.

    Args:
        env: variables of stages and commands.
        root: of the project in the checkout of record.
        checkout: that the engine makes of `remote` where this worker has none yet; "" where people made it.
        context: of the callback, by Airflow.

    Raises:
        GitError: this worker has no checkout, and cannot make one.
        CalledProcessError: the command did not end with 0.
    """
    said = context["dag_run"]
    if said["state"] in ENDED:
        log.info("%s ended before its deadline: it %s", said["dag_run_id"], said["state"])
        return
    if checkout:
        checked_out(Path(checkout), remote)
    run = run_name(said["dag_run_id"])
    around = scrubbed() | {name: value.replace("{clone}", root) for name, value in env.items()}
    around |= {"DVC_AIRFLOW_REPOSITORY": root, "DVC_AIRFLOW_RUN": run}
    split = [word.replace("{run}", run) for word in words(command)]
    with TemporaryDirectory() as folder:
        code, out, errors = Command(command).run(split, Path(folder), Path(root), around)
    log.info("%s\n%s%s", shlex.join(split), out, errors)
    if code:
        raise CalledProcessError(code, split)
