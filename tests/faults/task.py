"""A task of a night without Airflow, in a process of its own: what it returns is a file, where Airflow has XCom.

It ends with 0, or with 75 where another attempt may mend it, or with 1. SIGTERM is what clearing a running task is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from dvc_engine.git import tags_of
from dvc_engine.night import publish
from dvc_engine.pipeline import kept, project, reading
from dvc_engine.stage import leash, process
from dvc_engine.stage.attempt import Attempt
from dvc_engine.stage.outcome import RETRIED, Night, Result
from dvc_engine.store import history, lease, repository, snapshot, workspace
from dvc_engine.store.commit import Commit

AGAIN = 75
RUN = "tonight"


def spawn(folder: Path, reads: int, env: Any) -> Popen[bytes]:
    """The engine's child, its points watched too."""
    kept = {name: os.environ[name] for name in ("FAULT", "FAULTS")}
    around = {**env, **kept, "PYTHONPATH": os.environ["PYTHONPATH"]}
    command = [sys.executable, "-m", "tests.faults.struck", "child", str(folder)]
    return leash.start(reads, True, command, PIPE, env=around)


def main(words: list[str]) -> int:
    """Pin, run a stage, publish, or end."""
    process.spawn = spawn
    root, state, what, *rest = words
    record = repository.of(Path(root))
    if what == "pin":
        return _pin(Path(root), record, Path(state))
    if what == "end":
        lease.release(record, RUN)
        return 0
    night, known = _pinned(Path(state))
    if what == "publish":
        results = _results(Path(state), list(known.stages))
        clones = night.root / ".dvc" / "tmp" / "clones"
        done = publish.publish(night, known, results, record, None, {}, clones)
        _write(Path(state) / "published.json", asdict(done))
        return 0
    return _stage(night, known, Path(state), what, int(rest[0]))


def _pin(root: Path, record: repository.Repository, state: Path) -> int:
    lease.take(record, RUN, socket.gethostname(), time.time())
    commit, tags, job = snapshot.take(root), tags_of(root), root / ".dvc" / "tmp" / "clones" / f"{RUN}-pin"
    workspace.sweep(job.parent)
    clone = workspace.make(record.path, commit, job, tags, workspace.cache_of(root))
    known = reading.read(clone, kept.folder(root))
    workspace.remove(job)
    every = history.newest(record, Commit(record.path, commit), known)
    night = Night(str(record.path), commit, tags, every, RUN, "", record.tip)
    _write(state / "pin.json", {"night": night.dumps(), "project": project.dumps(known)})
    return 0


def _stage(night: Night, known: project.Project, state: Path, name: str, number: int) -> int:
    clones, env = night.root / ".dvc" / "tmp" / "clones", {"FAULT": os.environ["FAULT"], "FAULTS": os.environ["FAULTS"]}
    attempt = Attempt(night, known, name, lambda names: _results(state, names), clones, env, number)
    signal.signal(signal.SIGTERM, lambda *_: attempt.kill())  # as Airflow's on_kill
    result = attempt.run()
    if result.well:
        _write(state / f"{name.replace('/', '.')}.result.json", result.as_json())
        return 0
    print(f"{name}: {result.outcome}: {result.sentence}", file=sys.stderr)
    return AGAIN if result.outcome in RETRIED else 1


def _pinned(state: Path) -> tuple[Night, project.Project]:
    said = json.loads((state / "pin.json").read_text())
    return Night.loads(said["night"]), project.loads(said["project"])


def _results(state: Path, names: list[str]) -> dict[str, Result]:
    places = {name: state / f"{name.replace('/', '.')}.result.json" for name in names}
    return {name: Result.of(json.loads(place.read_text())) for name, place in places.items() if place.is_file()}


def _write(place: Path, said: Any) -> None:
    draft = place.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(said, default=str))
    draft.replace(place)
