"""One night at a time: a lease that is a ref of the repository of record, and the ref's compare-and-swap.

The lease is a commit at `<refs>/running` whose message names the run (by Airflow's id) and its host, and when it was
renewed. Whoever moves the ref from the value that it read holds it; the loser is told who does. Stages of one run renew
it side by side: who loses to another of them has it renewed. A lease that was not renewed for ten minutes may be taken
over, and so may one whose run Airflow says has ended.
"""

from __future__ import annotations

import json
import logging
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dvc_engine.git import GitError, git, without_login
from dvc_engine.store.repository import WHO, Repository

STALE_S = 600.0
RENEW_S = 60.0
LAST_S = 30.0  # that a renewal under way is waited for
RUNNING = "running"

log = logging.getLogger(__name__)


class Held(Exception):
    """Another run holds the lease; `run` is its name, "" where it was another that took it at the same time."""

    def __init__(self, record: Repository, run: str = "", host: str = "") -> None:
        self.run = run
        who = f"the night {run} on {host}" if run else "another night"
        remote, ref = without_login(record.remote), f"{record.refs}/{RUNNING}"
        free = ["push", remote, f":{ref}"] if remote else ["update-ref", "-d", ref]
        command = shlex.join(["git", "-C", str(record.path), *free])
        what = f"follow it, or wait until it ends; where nothing of it runs any more, `{command}`"
        super().__init__(f"{who} is under way; {what}")


@dataclass(frozen=True)
class Lease:
    """A lease as it was read or taken."""

    run: str
    host: str
    renewed: float
    commit: str
    owner: str = ""

    def of(self, run: str, owner: str) -> bool:
        """Whether it is this run's of this owner."""
        return (self.run, self.owner) == (run, owner)


def read(record: Repository) -> Lease | None:
    """The lease that is held, or None."""
    commit = record.read(RUNNING)
    if commit is None:
        return None
    return Lease(**json.loads(git(record.path, "show", "-s", "--format=%B", commit)), commit=commit)


def take(
    record: Repository,
    run: str,
    host: str,
    now: float,
    ended: Callable[[str], bool] = lambda run: False,
    owner: str = "",
    running: Callable[[str], bool] = lambda run: False,
) -> Lease:
    """Take the lease for `run`, or renew it. Raises Held, and GitError when Git does not write it.

    Args:
        now: seconds since the epoch.
        ended: whether a run of this owner is known to have ended; `running`, to be under way, however long nothing
            renewed it. Of another owner's only its age tells.
        owner: whose run it is: two DAGs, and two installations, may call theirs the same.
    """
    held = read(record)
    if held and not held.of(run, owner):
        fresh, ours = now - held.renewed < STALE_S, held.owner == owner
        if (fresh or (ours and running(held.run))) and not (ours and ended(held.run)):
            raise Held(record, held.run, held.host)
    if (taken := _moved(record, held, run, host, now, owner)) is None:
        raise Held(record)
    return taken


def renew_once(record: Repository, run: str, host: str, now: float, owner: str, older_s: float) -> None:
    """Renew the lease of `run` where that is so many seconds old; one that was given back stays so. Raises Held."""
    held = read(record)
    if held is None:
        return
    if not held.of(run, owner):
        raise Held(record, held.run, held.host)
    if now - held.renewed >= older_s:
        _moved(record, held, run, host, now, owner)


def _moved(record: Repository, held: Lease | None, run: str, host: str, now: float, owner: str) -> Lease | None:
    """The lease of `run`, moved from the one that was read; that of another of its stages, where it was faster.

    None where there is none any more. Raises Held where another run was faster, and GitError.
    """
    commit = _commit(record.path, {"run": run, "host": host, "renewed": now, "owner": owner})
    try:
        record.swap(RUNNING, commit, held.commit if held else None)
    except GitError as error:
        other = read(record)
        if other == held:  # nobody was faster: Git itself could not
            if not record.remote:
                raise
            what = f"it is the lease of a night, so the remote has to take refs below {record.refs}"
            raise GitError(f"{error}; {what}, or others that the DAG names as `refs`") from None
        if other and not other.of(run, owner):
            raise Held(record, other.run, other.host) from None
        return other
    return Lease(run, host, now, commit, owner)


@contextmanager
def renewed(record: Repository, run: str, host: str, every_s: float = RENEW_S, owner: str = "") -> Iterator[None]:
    """Renew the lease of `run` while the block runs; a renewal that fails is logged, and the next is tried."""
    done = threading.Event()

    def renew() -> None:
        wait = 0.0  # what a night waited for may have taken long: a slot, a person
        while not done.wait(wait):
            wait = every_s
            try:
                renew_once(record, run, host, time.time(), owner, every_s / 2)
            except (Held, GitError, OSError) as error:
                log.warning("the lease was not renewed: %s", error)

    renewing = threading.Thread(target=renew, daemon=True)
    renewing.start()
    try:
        yield
    finally:
        done.set()
        renewing.join(LAST_S)  # else it may be renewed after it was given back


def release(record: Repository, run: str, owner: str = "") -> bool:
    """Give the lease back; False when `run` does not hold it."""
    held = read(record)
    if held is None or not held.of(run, owner):
        return False
    try:
        record.swap(RUNNING, None, held.commit)
    except GitError:
        return False
    return True


def _commit(repository: Path, fields: dict[str, object]) -> str:
    tree = git(repository, "hash-object", "-t", "tree", "-w", "--stdin", stdin="")
    return git(repository, "commit-tree", tree, "-m", json.dumps(fields), env=WHO)
