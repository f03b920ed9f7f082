"""The local Airflow of this project: set up, start, ask over REST, stop. Airflow itself is never imported.

Everything lies in `.airflow/` (ignored by Git): SQLite, logs, a generated password and secrets, all readable by the
owner only. It listens on loopback. Its three processes are one process group, so that stopping leaves none behind.
A night stops the Airflow that it started, unless `up` asked meanwhile that it stay.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from nightshift import commit, pools
from nightshift.errors import NightBroke, NightshiftError, full, no_room
from nightshift.port import free, unused
from nightshift.process import Process, log_file

PORT = 8080
HEALTHY_WITHIN_S = 90.0
STOPPED_WITHIN_S = 20.0
# worker processes beyond the slots of the pool `cpu`: one may be held for a second after its task's end, and what takes
# no slot must run. No more than that, since the first task of each costs half a second
SPARE = 4


@dataclass(frozen=True)
class Airflow:
    """The Airflow of the project at `root`; `environ` is the environment that its processes start from."""

    root: Path
    environ: Mapping[str, str]

    @property
    def home(self) -> Path:
        """AIRFLOW_HOME."""
        return self.root / ".airflow"

    @property
    def process(self) -> Process:
        """The leader of its group; `stays` of what is kept with it says that a night's end leaves it running."""
        return Process(self.home / "airflow.json")

    @property
    def alive(self) -> bool:
        """Whether it runs, healthy or not."""
        return self.process.pid is not None

    @property
    def stays(self) -> bool:
        """Whether `up` asked that it stay."""
        return self.alive and bool(self.process.kept.get("stays"))

    @property
    def url(self) -> str:
        """Where its UI and REST API are."""
        return f"http://127.0.0.1:{self.process.kept.get('port', PORT)}"

    @property
    def passwords(self) -> Path:
        """The file that holds the password of the user `admin`."""
        return self.home / "passwords.json"

    @property
    def password(self) -> str:
        """Of the user `admin`."""
        return str(json.loads(self.passwords.read_text(encoding="utf-8"))["admin"])

    def healthy(self) -> bool:
        """Whether scheduler and DAG processor answer, and are this project's."""
        if not self.alive:
            return False
        with suppress(httpx.HTTPError, ValueError, KeyError):
            said = _client().get(f"{self.url}/api/v2/monitor/health", timeout=5).json()
            return all(said[part]["status"] == "healthy" for part in ("scheduler", "dag_processor"))
        return False

    def start(self, port: int = PORT, waiting: Callable[[], None] = lambda: None, stay: bool = False) -> None:
        """Start it, once for all who ask, and wait until it is healthy. Raises PortInUse, NightBroke.

        One that runs and does not answer has too much to do, or is coming up: it is waited for, and none started beside
        it. `waiting` is called when somebody else is starting it already. With `stay`, a night's end leaves it running.
        """
        with self.alone("starting", waiting):
            if self.alive:
                self._until_healthy("Airflow runs and does not answer", "stop it with `make down`, and try again")
                self._make_pools()
            else:
                self._start(port)
            if stay:
                self.stay(True)

    def _start(self, port: int) -> None:
        free(port, "stop it, or set NIGHTSHIFT_AIRFLOW_PORT")
        self._prepare(port)
        log = log_file(self.home / "logs" / "airflow.log")
        started = subprocess.Popen(
            [str(self.root / "deploy" / "airflow.sh")],
            cwd=self.root,
            env=self.environment(port),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        self.process.keep(started.pid, port)
        try:
            self._until_healthy("Airflow did not start", "read the logs there")
            self._make_pools()
        except BaseException:
            self.stop()
            raise

    def _until_healthy(self, what: str, do: str) -> None:
        """Wait for it. Raises NightBroke, with these words, where it ends meanwhile or takes too long."""
        deadline = time.monotonic() + HEALTHY_WITHIN_S
        while not self.healthy():
            if not self.alive or time.monotonic() > deadline:
                raise NightBroke(what, str(self.home / "logs"), do)
            time.sleep(0.3)

    @contextmanager
    def alone(self, what: str, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold a lock on `what` that ends with this process, however it ends; `waiting` is called when it is held."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / what).open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def stop(self) -> None:
        """Stop all of its processes; does nothing when none runs."""
        self.process.stop(STOPPED_WITHIN_S)

    def stay(self, stays: bool) -> None:
        """Say whether a night's end leaves it running."""
        self.process.note(stays=stays)

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Keep it for a night that is followed here: it is not stopped before everybody who follows one has left."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "followed").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH)
            yield

    @property
    def needed(self) -> bool:
        """Whether it stays, or somebody else follows a night."""
        with (self.home / "followed").open("w") as handle, suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return self.stays
        return True

    def leave(self) -> None:
        """Stop it at the end of a night, unless it is needed; `up` comes before that or starts it anew."""
        with self.alone("starting"):
            if not self.needed:
                self.stop()

    def environment(self, port: int) -> dict[str, str]:
        """Variables for Airflow's processes: the settings of deploy/airflow.env, folders, addresses, secrets."""
        home, address = self.home, f"http://127.0.0.1:{port}"
        kept = self._secrets()
        return {
            **self.environ,
            **settings(self.root / "deploy" / "telemetry.env"),
            **settings(self.root / "deploy" / "airflow.env"),
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__PARALLELISM": str(pools.cores() + SPARE),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.root / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.root / "plugins"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.passwords),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": address,
            "AIRFLOW__API__SECRET_KEY": kept["api"],
            "AIRFLOW__API_AUTH__JWT_SECRET": kept["jwt"],
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(unused()),
        }

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """One call of Airflow's REST API, as admin. Raises NightBroke with what it answered."""
        try:
            answer = self._ask(method, path, body, _token(self.url, self.password))
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                _token.cache_clear()
                answer = self._ask(method, path, body, _token(self.url, self.password))
            if not answer.is_error:
                return answer.json()
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise NightBroke(f"Airflow did not answer ({error})", self.url, "look into .airflow/logs") from None
        raise NightBroke(f"Airflow answered {answer.status_code}: {answer.text[:300]}", path)

    def _ask(self, method: str, path: str, body: Any, token: str) -> httpx.Response:
        head = {"Authorization": f"Bearer {token}"}
        return _client().request(method, f"{self.url}/api/v2/{path}", json=body, headers=head)

    def _prepare(self, port: int) -> None:
        """Folders, secrets and database; a second time only what is missing."""
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o700)
        if not self.passwords.is_file():
            _secret(self.passwords, {"admin": secrets.token_urlsafe(12)})
        if self._prepared().get("airflow") == self._version():
            return
        words = ["airflow", "db", "migrate"]
        ended = subprocess.run(words, env=self.environment(port), capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise _unprepared("db", ended.stderr, self.home)

    def _make_pools(self) -> None:
        """Give a running Airflow the pools that dvc.yaml names, where they are not those that it was given last."""
        slots = pools.wanted(self.root / "dvc.yaml", pools.cores())
        wanted = {"airflow": self._version(), "pools": slots}
        if self._prepared() == wanted:
            return
        entities = [{"name": name, "slots": size} for name, size in slots.items()]
        action = {"action": "create", "action_on_existence": "overwrite", "entities": entities}
        self.request("PATCH", "pools", {"actions": [action]})
        commit.file(self.home / "prepared.json", json.dumps(wanted))

    def _prepared(self) -> dict[str, Any]:
        """For which version the database was made, and with which pools; empty before the first start."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.home / "prepared.json").read_text(encoding="utf-8")))
        return {}

    def _version(self) -> str:
        """Airflow's, by the lock."""
        lock = (self.root / "requirements.txt").read_text(encoding="utf-8")
        return lock.partition("\napache-airflow==")[2].split()[0]

    def _secrets(self) -> dict[str, str]:
        path = self.home / "secrets.json"
        if not path.is_file():
            _secret(path, {"api": secrets.token_hex(32), "jwt": secrets.token_hex(64)})
        kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return kept


def _unprepared(command: str, said: str, home: Path) -> NightshiftError:
    """The error of a command that sets Airflow up; its last line is what went wrong."""
    error = OSError((said.strip().splitlines() or ["it said nothing"])[-1])
    if full(error):
        return no_room(str(home))
    return NightBroke(f"`airflow {command}` failed ({error})", str(home), "remove that folder and try again")


@cache
def _token(url: str, password: str) -> str:
    """A token of the user `admin`; asked for once, since each costs the server a hash of the password."""
    who = {"username": "admin", "password": password}
    return str(_client().post(f"{url}/auth/token", json=who).json()["access_token"])


@cache
def _client() -> httpx.Client:
    """One client for all calls: each new one reads every certificate of the machine, and these calls need none."""
    return httpx.Client(timeout=60, verify=False)


def settings(path: Path) -> dict[str, str]:
    """Variables of an env file: NAME=value lines, comments left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _secret(path: Path, value: Mapping[str, Any]) -> None:
    commit.file(path, json.dumps(value), 0o600)
