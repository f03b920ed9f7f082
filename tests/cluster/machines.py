"""Airflow on several machines: each has folders of its own, and none looks into another's.

They are processes of one kernel. Where this user may, each machine is in a mount namespace in which the folders of the
others are empty, so that what works here works on machines that share no disk.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nightshift import port
from nightshift.airflow import settings
from tests.cluster import servers

APART = ["unshare", "--mount", "--propagation", "private"]
# covers the servers' files and every machine's folder, also those that are made later, and puts its own back; $0 is the
# machine's name, $1 the cluster's folder, then comes the command
ALONE = """
mkdir -p "$1/own"
mount --bind "$1/machines/$0" "$1/own"
mount -t tmpfs none "$1/servers"
mount -t tmpfs none "$1/machines"
mkdir "$1/machines/$0"
mount --move "$1/own" "$1/machines/$0"
shift
exec "$@"
"""
NAME = "NIGHTSHIFT_TEST_MACHINE"


def hostname() -> str:
    """The machine's name, for Airflow."""
    return os.environ.get(NAME, "nobody")


def apart() -> bool:
    """Whether this user may give a machine its own view of the disk."""
    return shutil.which("unshare") is not None and subprocess.run([*APART, "true"], capture_output=True).returncode == 0


@dataclass
class Cluster:
    """Servers, and machines that find one another by their addresses alone.

    Args:
        folder: where all of it lies: `servers`, and a folder a machine.
        image: the project's files that every machine has, as in one image.
        around: variables that all machines share.
        remote: the Git repository of record.
    """

    folder: Path
    image: Path
    around: dict[str, str]
    remote: str
    url: str
    password: str
    running: ExitStack = field(default_factory=ExitStack)
    pids: dict[str, int] = field(default_factory=dict)

    def environment(self, machine: str) -> dict[str, str]:
        """Variables of the processes of a machine."""
        own = self.folder / "machines" / machine
        for name in ("home", "tmp", "airflow"):
            (own / name).mkdir(parents=True, exist_ok=True)
        return self.around | {
            NAME: machine,
            "HOME": str(own / "home"),
            "TMPDIR": str(own / "tmp"),
            "AIRFLOW_HOME": str(own / "airflow"),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(own / "bundles"),
            "NIGHTSHIFT_CHECKOUT": str(own / "checkout"),
            "NIGHTSHIFT_HOME": str(own / "var"),
        }

    def start(self, machine: str, *words: str) -> None:
        """Start one of Airflow's processes on a machine."""
        command, log = ["airflow", *words], self.folder / "logs" / f"{machine}-{words[0]}.log"
        env = self.environment(machine)
        if apart():
            command = [*APART, "sh", "-ec", ALONE, machine, str(self.folder), *command]
        self.pids[f"{machine} {words[0]}"] = self.running.enter_context(servers.process(command, log, env))

    def worker(self, machine: str, *queues: str) -> None:
        """Start a machine that takes tasks from these queues, two at a time."""
        which = ["--queues", ",".join(queues), "--concurrency", "2", "--celery-hostname", f"{machine}@%h"]
        self.start(machine, "celery", "worker", *which, "--skip-serve-logs")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call of Airflow's REST API."""
        who = {"username": "admin", "password": self.password}
        token = httpx.post(f"{self.url}/auth/token", json=who, timeout=60).json()["access_token"]
        head = {"Authorization": f"Bearer {token}"}
        answer = httpx.request(method, f"{self.url}/api/v2/{path}", json=body, headers=head, timeout=60)
        assert not answer.is_error, answer.text
        return answer.json()

    def trigger(self, conf: Mapping[str, Any], within_s: float = 180) -> str:
        """Start a night, once the DAG is known; gives the run's id."""
        servers.until(
            lambda: self.ask("GET", "dags/nightly"), self.folder / "logs" / "head-dag-processor.log", within_s
        )
        made = self.ask("POST", "dags/nightly/dagRuns", {"logical_date": None, "conf": dict(conf)})
        return str(made["dag_run_id"])

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        """Task → what Airflow says of it."""
        found = self.ask("GET", f"dags/nightly/dagRuns/{run}/taskInstances?limit=500")["task_instances"]
        return {one["task_display_name"]: one for one in found}

    def end(self, run: str, within_s: float) -> None:
        """Wait until a run has ended well."""
        deadline = time.monotonic() + within_s
        while (state := self.ask("GET", f"dags/nightly/dagRuns/{run}")["state"]) in ("queued", "running"):
            assert time.monotonic() < deadline, self.told(run)
            time.sleep(1)
        assert state == "success", self.told(run)

    def told(self, run: str) -> str:
        """Of a run that did not end well: where its tasks are, and the last words of those that failed."""
        tasks = self.tasks(run)
        lines = [f"{name}: {one['state']} on {one['hostname']}" for name, one in tasks.items()]
        for one in tasks.values():
            if one["state"] in ("failed", "up_for_retry", "running"):
                for log in sorted((self.folder / "machines").glob(f"*/airflow/logs/**/task_id={one['task_id']}/*.log")):
                    lines += [str(log), log.read_text()[-3000:]]
        return "\n".join(lines)


@contextmanager
def cluster(folder: Path, image: Path, environ: Mapping[str, str]) -> Any:
    """The servers, and the head: API server, DAG processor and two schedulers. Workers are started by the test."""
    with ExitStack() as stack:
        place = folder / "servers"
        database = stack.enter_context(servers.postgres())
        broker = stack.enter_context(servers.queue(place / "redis"))
        s3 = stack.enter_context(servers.buckets(place / "s3"))
        (place / "git").mkdir()
        remote = stack.enter_context(servers.git_daemon(place / "git"))
        at, password = port.unused(), secrets.token_hex(8)
        passwords = folder / "passwords.json"
        passwords.write_text(json.dumps({"admin": password}))
        passwords.chmod(0o644)
        keeping = {"tracking_ref": "main", "repo_url": remote, "prune_dotgit_folder": False, "subdir": "dags"}
        git = "airflow.providers.git.bundles.git.GitDagBundle"
        url = f"http://127.0.0.1:{at}"
        around = {
            **{name: value for name, value in environ.items() if not name.startswith("NIGHTSHIFT_")},
            **settings(image / "deploy" / "telemetry.env"),
            **settings(image / "deploy" / "cluster.env"),
            **s3,
            "PYTHONPATH": os.pathsep.join([str(image / "include"), str(image)]),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(image / "plugins"),
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{__name__}.hostname",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{database}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql+psycopg2://{database}",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(
                [{"name": "nightshift", "classpath": git, "kwargs": keeping}]
            ),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(at),
            "AIRFLOW__API__BASE_URL": url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "NIGHTSHIFT_STATE": "s3://state/night",
            "NIGHTSHIFT_REMOTE": remote,
            "NIGHTSHIFT_KEEPER": "keeper",
        }
        made = Cluster(folder, image, around, remote, url, password)
        with made.running:
            env = made.environment("head")
            done = subprocess.run(["airflow", "db", "migrate"], env=env, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-3000:]
            yield made
