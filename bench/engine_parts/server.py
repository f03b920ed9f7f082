"""An Airflow on this machine, with the settings of deploy/airflow.env: SQLite, LocalExecutor, three processes."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from bench.engine_parts.projects import HERE

from nightshift import port

SPARE = 4  # slots above the cores, as the night of this checkout has
HEALTHY_WITHIN_S = 180
RUN_WITHIN_S = 1800


class Broke(Exception):
    """A run that did not end well, or an Airflow that did not start: what, and where its logs are."""


@dataclass
class Airflow:
    """One that runs. `dags` is its folder of DAG files."""

    home: Path
    url: str
    process: subprocess.Popen[bytes]
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))

    @property
    def dags(self) -> Path:
        return self.home / "dags"

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the REST API. Raises Broke with what it answered."""
        answer = self.client.request(method, f"{self.url}/api/v2/{path}", json=body)
        if answer.is_error:
            raise Broke(f"Airflow answered {answer.status_code} at {path}: {answer.text[:300]}")
        return answer.json()

    def write(self, dag: str, text: str, tasks: int) -> None:
        """A DAG file; returns when Airflow has it with so many tasks."""
        (self.dags / f"{dag}.py").write_text(text)
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while time.monotonic() < deadline:
            with suppress(Broke):
                if self.request("GET", f"dags/{dag}/tasks")["total_entries"] == tasks:
                    return
            time.sleep(0.5)
        raise Broke(f"Airflow does not know {dag} with {tasks} tasks; {self.home}/logs says why")

    def run(self, dag: str, watch: Watch | None = None) -> Run:
        """Trigger a DAG, and wait for its end. Raises Broke when that is none."""
        used = self.used()
        began = self.request("POST", f"dags/{dag}/dagRuns", {"logical_date": None})
        place, deadline = f"dags/{dag}/dagRuns/{began['dag_run_id']}", time.monotonic() + RUN_WITHIN_S
        while (said := self.request("GET", place))["state"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise Broke(f"{dag} did not end within {RUN_WITHIN_S} s")
            if watch:
                watch.look()
            time.sleep(1)
        used = self.used() - used
        tasks: list[dict[str, Any]] = []
        while (
            len(tasks)
            < (answer := self.request("GET", f"{place}/taskInstances?limit=100&offset={len(tasks)}"))["total_entries"]
        ):
            tasks += answer["task_instances"]
        if said["state"] != "success":
            failed = [one["task_id"] for one in tasks if one["state"] == "failed"]
            raise Broke(f"{dag}: {', '.join(failed)} failed; see {self.home}/logs")
        return Run(said, {one["task_id"]: one for one in tasks}, used)

    def used(self) -> float:
        """Seconds of processors that its processes took until now, and those that they started and that have ended."""
        found = 0.0
        for one in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                found += sum(one.cpu_times()[:4])
        return found


@dataclass
class Run:
    """A run that ended well, as Airflow has it, and the seconds of processors that Airflow took meanwhile."""

    said: Mapping[str, Any]
    tasks: Mapping[str, Mapping[str, Any]]
    cpu_seconds: float

    @property
    def seconds(self) -> float:
        """From when the scheduler saw it to the end, by Airflow's own clock; the wait before, up to 1 s, is chance."""
        return moment(self.said["end_date"]) - moment(self.said["start_date"])

    def task_seconds(self, task: str) -> float:
        """Of one task's process, from its start to its end."""
        one = self.tasks[task]
        return moment(one["end_date"]) - moment(one["start_date"])


def moment(said: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(said.replace("Z", "+00:00")).timestamp()


@contextmanager
def started(home: Path) -> Iterator[Airflow]:
    """Run one until the block ends. Raises Broke where it does not start."""
    (home / "dags").mkdir(parents=True)
    number = port.unused(2)
    around = environment(home, number)
    subprocess.run(["airflow", "db", "migrate"], env=around, check=True, capture_output=True)
    with (home / "airflow.log").open("wb") as log:
        words = [str(HERE / "deploy" / "airflow.sh")]
        process = subprocess.Popen(words, cwd=home, env=around, stdout=log, stderr=log, start_new_session=True)
    try:
        made = Airflow(home, f"http://127.0.0.1:{number}", process)
        until_healthy(made)
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(3)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until_healthy(made: Airflow) -> None:
    """Wait for its API and its scheduler, and take a token."""
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError, Broke, KeyError, TypeError):
            health = made.request("GET", "monitor/health")
            if {health[one]["status"] for one in ("scheduler", "dag_processor")} == {"healthy"}:
                token = made.client.get(f"{made.url}/auth/token").json()["access_token"]
                made.client.headers["Authorization"] = f"Bearer {token}"
                return
        if made.process.poll() is not None:
            break
        time.sleep(0.5)
    raise Broke(f"Airflow did not start; read {made.home}/logs")


def environment(home: Path, number: int) -> dict[str, str]:
    """Variables for its processes."""
    taken = ("AIRFLOW", "DVC_", "NIGHTSHIFT", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(taken)}
    for file in ("telemetry.env", "airflow.env"):
        lines = (HERE / "deploy" / file).read_text().splitlines()
        kept |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    address, cores = f"http://127.0.0.1:{number}", len(os.sched_getaffinity(0))
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(HERE / "plugins"),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__PARALLELISM": str(cores + SPARE),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(HERE / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__API__PORT": str(number),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port.unused()),
    }


class Watch:
    """The most memory that the scheduler, one task and one stage's child took, in bytes, where shared pages are shared.

    Args:
        leader: process id of Airflow's shell.
    """

    def __init__(self, leader: int) -> None:
        self.leader, self.most = leader, {"scheduler": 0, "task": 0, "stage": 0, "all": 0}

    def look(self) -> None:
        """Look at every process once."""
        total, most = 0, self.most
        for one in psutil.Process(self.leader).children(recursive=True):
            with suppress(psutil.Error):
                held, kind = one.memory_full_info().pss, kind_of(one)
                total += held
                if kind:
                    most[kind] = max(most[kind], held)
        most["all"] = max(most["all"], total)


def kind_of(one: psutil.Process) -> str:
    """What a process of Airflow is, by its command line; "" for others."""
    words = " ".join(one.cmdline())
    if "dvc_engine.stage.child" in words:
        return "stage"
    if "LocalExecutor" in words:  # the executor's worker supervises, and a child of it runs the task
        parent = one.parent()
        return "task" if parent and "LocalExecutor" in " ".join(parent.cmdline()) else ""
    return "scheduler" if words.endswith("scheduler") else ""
