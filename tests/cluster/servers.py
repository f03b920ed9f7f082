"""What a cluster stands on, as real servers on loopback: PostgreSQL, Redis, S3 (moto's), and Git's own daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3
import psycopg2
import redis

from nightshift import port
from tests.programs import LIBRARIES, program

ROOT = Path(__file__).resolve().parents[2]
BRINGS = "deploy/system.sh cluster"
NOBODY = 65534
UNPRIVILEGED = {"user": NOBODY, "group": NOBODY} if os.getuid() == 0 else {}  # PostgreSQL does not run as root
BUCKETS = ("dvc", "state")


@contextmanager
def process(words: Sequence[str], log: Path, env: Mapping[str, str] | None = None, **who: int) -> Iterator[int]:
    """A process in a group of its own, killed with all of it at the end; gives its pid. `who`: its user and group."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        made = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True, **who
        )
    try:
        yield made.pid
    finally:
        end(made.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            made.wait(timeout=10)
        end(made.pid, signal.SIGKILL)
        made.wait()


def end(group: int, by: signal.Signals) -> None:
    """Send a process group a signal; one that is gone is no error."""
    with suppress(ProcessLookupError):
        os.killpg(group, by)


def until(said: Callable[[], object], log: Path, within_s: float = 60) -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            said()
            return
        except Exception:
            if time.monotonic() > deadline:
                raise AssertionError(log.read_text()[-3000:] if log.is_file() else str(log)) from None
            time.sleep(0.2)


@contextmanager
def postgres() -> Iterator[str]:
    """A database `airflow` of a user `airflow`; gives the address after the scheme."""
    open_to_all = tempfile.TemporaryDirectory(prefix="postgres-")  # pytest's own folders are closed to `nobody`
    with open_to_all as folder, _postgres(Path(folder)) as address:
        yield address


@contextmanager
def _postgres(folder: Path) -> Iterator[str]:
    data, at, log = folder / "data", port.unused(), folder / "postgres.log"
    if UNPRIVILEGED:
        os.chown(folder, NOBODY, NOBODY)
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "LD_LIBRARY_PATH": str(LIBRARIES)}
    initdb, server = (program(one, BRINGS, "lib/postgresql/15/bin") for one in ("initdb", "postgres"))
    made = [initdb, "--pgdata", str(data), "--username", "airflow", "--auth", "trust", "--no-sync"]
    subprocess.run(made, env=env, check=True, capture_output=True, **UNPRIVILEGED)
    run = [server, "-D", str(data), "-p", str(at), "-k", str(folder), "-h", "127.0.0.1"]
    run += ["-c", "fsync=off", "-c", "max_connections=300"]
    with process(run, log, env, **UNPRIVILEGED):
        address = f"airflow@127.0.0.1:{at}"
        until(lambda: psycopg2.connect(f"postgresql://{address}/postgres").close(), log)
        made_here = psycopg2.connect(f"postgresql://{address}/postgres")
        made_here.autocommit = True
        made_here.cursor().execute("create database airflow")
        made_here.close()
        yield f"{address}/airflow"


@contextmanager
def queue(folder: Path) -> Iterator[str]:
    """Redis, in memory alone; gives its URL."""
    at, log = port.unused(), folder / "redis.log"
    env = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(LIBRARIES)}
    run = [program("redis-server", BRINGS), "--port", str(at), "--bind", "127.0.0.1"]
    run += ["--save", "", "--appendonly", "no"]
    with process(run, log, env):
        until(lambda: redis.Redis(port=at).ping(), log)
        yield f"redis://127.0.0.1:{at}/0"


@contextmanager
def buckets(folder: Path) -> Iterator[dict[str, str]]:
    """S3 with the buckets `dvc` and `state`; gives AWS's own settings for it."""
    at, log = port.unused(), folder / "s3.log"
    around = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{at}", "AWS_DEFAULT_REGION": "us-east-1"}
    around |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with process([sys.executable, "-m", "moto.server", "-p", str(at)], log):
        asked = {"endpoint_url": around["AWS_ENDPOINT_URL"], "region_name": "us-east-1"}
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        s3 = boto3.client("s3", **asked, **keys)
        until(s3.list_buckets, log)
        for name in BUCKETS:
            s3.create_bucket(Bucket=name)
        yield around


@contextmanager
def git_daemon(folder: Path) -> Iterator[str]:
    """Git's daemon over the bare repository `project.git`, which takes pushes; gives the URL of that."""
    bare, at, log = folder / "project.git", port.unused(), folder / "git.log"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(bare)], check=True)
    run = ["git", "daemon", "--reuseaddr", "--listen=127.0.0.1", f"--port={at}", f"--base-path={folder}"]
    with process([*run, "--export-all", "--enable=receive-pack", str(folder)], log):
        url = f"git://127.0.0.1:{at}/project.git"
        until(lambda: subprocess.run(["git", "ls-remote", url], check=True, capture_output=True), log)
        yield url


def kill(pid: int) -> None:
    """Kill a process; one that is gone is no error."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
