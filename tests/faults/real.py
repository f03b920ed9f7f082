"""A real Airflow of three processes, each of which can be stopped, killed and started again, and a project for it.

Its first stage runs for as long as a test wants: it writes a line every half second, and has two children that do not
end on SIGTERM, as helpers of real stages do. A folder in their command lines tells its processes from all others.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from dvc_engine.git import git
from nightshift import port
from tests.dvc_airflow.conftest import Toy, repository

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("api-server", "scheduler", "dag-processor")
ENDED = ("success", "failed")
SLOW = """\
import subprocess, sys, time
from pathlib import Path

marks, out = Path(sys.argv[1]), sys.argv[2]
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
children = [subprocess.Popen([sys.executable, "-c", stubborn, str(marks)]) for _ in range(2)]
for step in range(1000):
    if (marks / "enough").exists():
        break
    with (marks / "steps").open("a") as log:
        log.write(f"{step}\\n")
    time.sleep(0.5)
for child in children:
    child.kill()
Path(out).write_text(Path("seed.txt").read_text())
"""
DAG = """\
from datetime import timedelta
from pathlib import Path

from dvc_airflow import DvcDag

toy = DvcDag("toy", Path({root!r}), schedule=None{options})
"""


@dataclass
class Real:
    """A project, the Airflow that runs it, and what its tasks leave."""

    folder: Path
    toy: Toy
    environ: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)

    @property
    def marks(self) -> Path:
        """In the command line of every process of the slow stage."""
        return self.folder / "marks"

    @property
    def url(self) -> str:
        return self.environ["AIRFLOW__API__BASE_URL"]

    def start(self, *parts: str) -> None:
        """Start these of its processes, each in a session of its own."""
        for part in parts:
            with (self.folder / f"{part}.log").open("ab") as log:
                command = [sys.executable, "-m", "airflow", part]
                self.running[part] = subprocess.Popen(
                    command, cwd=self.folder, env=self.environ, stdout=log, stderr=log, start_new_session=True
                )
                self.sessions.add(self.running[part].pid)

    def signal(self, part: str, number: int) -> None:
        """A signal to one of them and its workers of the same kind, but not to tasks."""
        os.killpg(self.running[part].pid, number)

    def kill(self, part: str) -> None:
        """SIGKILL to that process alone, as by the kernel; its children stay."""
        self.running[part].kill()
        self.running[part].wait()

    def stop(self) -> None:
        """End all of it, and whatever a test left running."""
        for one in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGCONT)
                os.killpg(one.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and any(one.poll() is None for one in self.running.values()):
            time.sleep(0.2)
        for one in self.all_processes():
            with suppress(psutil.Error):
                one.kill()

    def all_processes(self) -> list[psutil.Process]:
        """Every process that was started for this Airflow; an executor's worker writes its title over its variables."""
        found = []
        for one in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                ours = os.getsid(one.pid) in self.sessions or self._marked(one)
                if ours or one.environ().get("AIRFLOW_HOME") == self.environ["AIRFLOW_HOME"]:
                    found.append(one)
        return found

    def stage(self) -> list[psutil.Process]:
        """What runs of the slow stage: its commands and its children."""
        found = []
        for one in psutil.process_iter():
            with suppress(psutil.Error):
                if self._marked(one) and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
        return found

    def _marked(self, one: psutil.Process) -> bool:
        return str(self.marks) in one.cmdline()

    def task(self) -> psutil.Process:
        """The process of Airflow's task that the slow stage runs in, which has its leash."""
        shell = next(one for one in self.stage() if "slow.py" in one.cmdline())
        led = [one for one in shell.parents() if "dvc_engine.stage.child" in " ".join(one.cmdline())]
        found = led[-1].parent()  # that of the leader, which names the child too
        assert found is not None
        return found

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """One call of its REST API."""
        answer = httpx.request(method, f"{self.url}/api/v2/{path}", json=body, headers=self._head(), timeout=30)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def _head(self) -> dict[str, str]:
        token = httpx.get(f"{self.url}/auth/token", timeout=30).json()["access_token"]
        return {"Authorization": f"Bearer {token}"}

    def trigger(self) -> str:
        """Begin a night."""
        asked = {"logical_date": None}
        return str(self.request("POST", "dags/toy/dagRuns", asked)["dag_run_id"])

    def tasks(self, run: str) -> dict[str, dict[str, Any]]:
        """Task → what Airflow says of it."""
        found = self.request("GET", f"dags/toy/dagRuns/{run}/taskInstances")["task_instances"]
        return {one["task_id"]: one for one in found}

    def state(self, run: str) -> str:
        return str(self.request("GET", f"dags/toy/dagRuns/{run}")["state"])

    def ended(self, run: str, within_s: float = 240) -> str:
        """Wait for a night's end; its state."""
        until(lambda: self.state(run) in ENDED, within_s, lambda: self.told(run))
        return self.state(run)

    def told(self, run: str) -> str:
        """What a person would look at, of a night that goes wrong."""
        states = {name: (one["state"], one["try_number"]) for name, one in self.tasks(run).items()}
        logs = sorted((self.folder / "airflow" / "logs").rglob("*.log"), key=lambda one: one.stat().st_mtime)
        return "\n".join([str(states), *(f"{one}\n{one.read_text()[-3000:]}" for one in logs[-4:])])

    def steps(self) -> int:
        """How many lines the slow stage has written, over all of its attempts."""
        with suppress(FileNotFoundError):
            return len((self.marks / "steps").read_text().splitlines())
        return 0

    def enough(self, said: bool = True) -> None:
        """Let the slow stage end, at each attempt from now on; or not any more."""
        (self.marks / "enough").touch()
        if not said:
            (self.marks / "enough").unlink()

    def in_the_middle(self, run: str) -> None:
        """Wait until the slow stage and its children have run for two seconds from now."""
        before = self.steps()
        until(lambda: self.steps() >= before + 4 and len(self.stage()) >= 3, 180, lambda: self.told(run))

    def nights(self) -> int:
        """Commits on the branch of nights that the engine made."""
        with suppress(Exception):
            return int(git(self.toy.root, "rev-list", "--count", "--author=^dvc-airflow ", "dvc-airflow"))
        return 0

    def night(self, run: str) -> dict[str, Any]:
        """night.json."""
        name = re.sub(r"[^A-Za-z0-9-]+", "-", run).strip("-")
        place = self.toy.root / ".dvc" / "tmp" / "runs" / "toy" / name / "night.json"
        said: dict[str, Any] = json.loads(place.read_text())
        return said


def until(holds: Callable[[], Any], within_s: float, told: Callable[[], str] = lambda: "") -> Any:
    """What holds in the end; an API that does not answer is asked again."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if found := holds():
                return found
        time.sleep(0.1)
    raise AssertionError(f"it did not happen within {within_s} s: {told()}")


def make(folder: Path, files: Mapping[str, str], options: str = "", **settings: str) -> Real:
    """A project with these files, and an Airflow whose database is made and that is not started."""
    toy = Toy(repository(folder / "project", files))
    toy.commit({})
    (folder / "marks").mkdir()
    dags = folder / "airflow" / "dags"
    dags.mkdir(parents=True)
    (dags / "toy.py").write_text(DAG.format(root=str(toy.root), options=options))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "DVC_", "NIGHTSHIFT"))}
    address = port.unused()
    url = f"http://127.0.0.1:{address}"
    ours = dict(
        line.split("=", 1)
        for name in ("telemetry.env", "airflow.env")
        for line in (ROOT / "deploy" / name).read_text().splitlines()
        if line and not line.startswith("#")
    ) | {
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__PARALLELISM": "6",
        "AIRFLOW__API__PORT": str(address),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": "of-a-test",
        "AIRFLOW__API_AUTH__JWT_SECRET": "of-a-test-that-is-long-enough-for-a-hash",
        "AIRFLOW__CORE__FERNET_KEY": "",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(port.unused()),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(folder)]),
    }
    made = Real(folder, toy, kept | ours | settings)
    migrate = [sys.executable, "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env=made.environ, check=True, capture_output=True)
    return made


@contextmanager
def running(real: Real) -> Iterator[Real]:
    """Start it, and leave nothing of it."""
    try:
        up(real)
        yield real
    finally:
        real.stop()


def up(real: Real, parts: Sequence[str] = PARTS) -> None:
    """Start it, and wait until a night can be asked for."""
    real.start(*parts)
    until(lambda: real.request("GET", "dags/toy"), 90, lambda: (real.folder / "dag-processor.log").read_text()[-3000:])
