"""One night as a person sees it: trigger or follow, a line a stage, and a summary.

What is shown of a night that ended comes from its `night.json`, never from memory: the same summary can be printed the
next morning.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from nightshift import registry, rollouts, storage
from nightshift.airflow import Airflow
from nightshift.errors import CacheCorrupt, NightBroke, RepositoryError, full, no_room
from nightshift.registry import BRANCH, Assignment
from nightshift.summary import summary

DAG = "nightly"
RECORD, APPROVED = "night.json", "approved.json"  # of a run, under NIGHTSHIFT_STATE/runs
ENDED = {"success", "failed"}
POLL_S = 1.0  # twice a second took a tenth of a core from the stages
PATIENCE_S = 30.0  # that polls may fail for: on a busy night SQLite is locked, or Airflow answers late


@dataclass(frozen=True)
class Run:
    """A run of the DAG: Airflow's id, and whether this call started it."""

    id: str
    started: bool


def begin(airflow: Airflow, conf: Mapping[str, Any], within_s: float = 60.0) -> Run:
    """Follow the run that is under way, or trigger one. Raises NightBroke when the DAG is not known in time."""
    known = _until_known(airflow, within_s)
    with airflow.alone("triggering"):
        if other := _under_way(airflow):
            return Run(other, started=False)
        if known.get("is_paused"):
            airflow.request("PATCH", f"dags/{DAG}", {"is_paused": False})
        made = airflow.request("POST", f"dags/{DAG}/dagRuns", {"logical_date": None, "conf": dict(conf)})
        return Run(made["dag_run_id"], started=True)


def under_way(airflow: Airflow) -> str | None:
    """The id of the run that is under way; None where there is none, or Airflow does not say."""
    with suppress(NightBroke):
        return _under_way(airflow) if airflow.alive else None
    return None


def follow(
    airflow: Airflow,
    run: Run,
    out: TextIO,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """Show the run until it ends; returns 'success' or 'failed'. A terminal gets a list rewritten in place.

    Raises NightBroke once Airflow is gone, or polls have failed for half a minute.
    """
    shown: dict[str, str] = {}
    height = 0
    while True:
        state, tasks = _polled(airflow, run, sleep, clock)
        tasks.sort(key=lambda task: (task["start_date"] is None, task["start_date"] or "", task["task_id"]))
        lines = {task["task_display_name"]: _line(task) for task in tasks}
        if out.isatty():
            height = _rewrite(out, list(lines.values()), height)
        else:
            for name, line in lines.items():
                if shown.get(name) != line and not line.startswith("·"):
                    print(line, file=out, flush=True)
            shown = lines
        if state in ENDED:
            return state
        sleep(POLL_S)


def _polled(
    airflow: Airflow, run: Run, sleep: Callable[[float], None], clock: Callable[[], float]
) -> tuple[str, list[dict[str, Any]]]:
    """The run's state, and its tasks; asked again while that fails and Airflow lives."""
    since: float | None = None
    while True:
        try:
            state = str(airflow.request("GET", f"dags/{DAG}/dagRuns/{run.id}")["state"])
            tasks = airflow.request("GET", f"dags/{DAG}/dagRuns/{run.id}/taskInstances?limit=500")["task_instances"]
            return state, tasks
        except NightBroke:
            since = clock() if since is None else since
            if not airflow.alive:
                where = str(airflow.home / "logs")
                raise NightBroke("Airflow ended during the night", where, "`make nightly` goes on with it") from None
            if clock() - since > PATIENCE_S:
                raise
        sleep(POLL_S)


def last(state: Path | str) -> dict[str, Any]:
    """night.json of the newest night. Raises NightBroke where there is none, or it is damaged.

    Here and below `state` is NIGHTSHIFT_STATE, a folder or an S3 prefix.
    """
    found = _nights(state)
    if not found:
        raise NightBroke("no night has run here yet", str(state), "type `make nightly`")
    return _read(found[0])


@dataclass(frozen=True)
class _Record:
    """A night.json: the folder or prefix of its run, when it was written, and whether a person said something since."""

    place: str
    written: float
    noted: bool

    @property
    def run(self) -> str:
        return self.place.rpartition("/")[2]


def _nights(state: Path | str) -> list[_Record]:
    """Every night.json, newest first."""
    place = f"{state}/runs"
    written = {one.name: one.written for one in storage.held(place)}
    runs = [name.removesuffix(f"/{RECORD}") for name in written if name.endswith(f"/{RECORD}")]
    found = [_Record(f"{place}/{run}", written[f"{run}/{RECORD}"], f"{run}/{APPROVED}" in written) for run in runs]
    return sorted(found, key=lambda one: one.written, reverse=True)


def _read(record: _Record) -> dict[str, Any]:
    """What it says, with what a person did since."""
    place = f"{record.place}/{RECORD}"
    with suppress(ValueError):
        night = json.loads(storage.read(place))
        if isinstance(night, dict) and "run" in night and isinstance(night.get("stages"), dict):
            if record.noted:
                night["approved"] = json.loads(storage.read(f"{record.place}/{APPROVED}"))
            return night
    raise NightBroke("the record of this night is damaged", place, "remove that file")


def _before(state: Path | str, run: str) -> dict[str, Any] | None:
    """The newest other night that can be read; a damaged one is said and passed over."""
    for record in _nights(state):
        try:
            night = _read(record)
        except NightBroke as error:
            print(f"nightshift: {error}", file=sys.stderr)
            continue
        if night["run"] != run:
            return night
    return None


def recorded(state: Path | str) -> list[dict[str, Any]]:
    """Every night that can be read, newest first; one that does not say when it ended did when it was written."""
    found = []
    for record in _nights(state):
        with suppress(NightBroke):
            found.append({"ended": record.written} | _read(record))
    return found


def of(state: Path | str, run_id: str) -> dict[str, Any]:
    """night.json of one run. Raises NightBroke where it did not get so far."""
    for record in _nights(state):
        if _plain(record.run) == _plain(run_id):
            return _read(record)
    raise NightBroke(f"the night {run_id} ended before it was pinned", "", "read the log of `pin` in Airflow")


def approved(root: Path, state: Path | str, made: Assignment) -> None:
    """Note beside the record of the published night, where it is still there, that a person let its candidate out."""
    tip = _git(root, "rev-parse", BRANCH).stdout.strip()
    note = {"version": made.release.version, "digest": made.release.digest, "environment": made.environment}
    for record in _nights(state):
        with suppress(NightBroke):
            if _read(record).get("published") == tip:
                storage.write(f"{record.place}/{APPROVED}", json.dumps(note, indent=2).encode())
                return


def ended(state: Path | str, run_id: str) -> bool:
    """Whether a run was published and recorded."""
    try:
        return bool(of(state, run_id)["published"])
    except NightBroke:
        return False


def told(state: Path | str, home: Path, night: Mapping[str, Any], up: bool = False) -> str:
    """The summary of a night, beside the one before it, with what became of its release since.

    `up`: whether the endpoint runs.
    """
    return summary(_since(home, night), _before(state, night["run"]), up)


def _since(home: Path, night: Mapping[str, Any]) -> Mapping[str, Any]:
    """The record, where a person let its release out, with what the endpoint said of it meanwhile."""
    note = night.get("approved") or {}
    if note.get("environment") != registry.CANARY or (entry := rollouts.last(home, note.get("digest", ""))) is None:
        return night
    became = {"environment": registry.PROD} if entry.outcome == "promoted" else {}
    became |= {"went_back": entry.told} if entry.outcome == "back" else {}
    return {**night, "approved": note | became}


def pull(root: Path) -> None:
    """Bring the last night's lock file, metrics and outs into the tree.

    Raises RepositoryError where there is none or Git does not write it, CacheCorrupt for outs that the cache lacks.
    """
    listed = _git(root, "ls-tree", "--name-only", BRANCH, "dvc.lock", "metrics", "plots")
    names = listed.stdout.split()
    if listed.returncode != 0 or not names:
        raise RepositoryError(f"there is no branch {BRANCH} yet", str(root), "type `make nightly`")
    restored = _git(root, "restore", f"--source={BRANCH}", "--worktree", "--", *names)
    if restored.returncode != 0:
        raise RepositoryError(f"Git did not bring them ({restored.stderr.strip()})", str(root), "do what Git says")
    asked = [sys.executable, "-m", "dvc", "checkout", "--force"]
    done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    if full(OSError(done.stderr)):
        raise no_room(str(root))
    if done.returncode != 0:
        do = "`dvc fetch` it from a remote, or run the night again, which makes it anew; then pull again"
        raise CacheCorrupt(f"not everything is in DVC's cache ({done.stderr.strip()})", str(root / "dvc.lock"), do)


def broken(night: Mapping[str, Any]) -> NightBroke:
    """The error of a night that did not end well: the first stage that failed, and what it said."""
    for name, stage in night["stages"].items():
        if stage["outcome"] not in ("ran", "cached", "unchanged"):
            said = str(stage["sentence"]).rstrip(".")
            return NightBroke(f"the night broke at {name} ({stage['outcome']}): {said}")
    if night.get("sentence"):
        return NightBroke(f"the night was refused: {str(night['sentence']).rstrip('.')}")
    return NightBroke("the night broke; nothing was published", "", "read the logs of the failed task in Airflow")


def _under_way(airflow: Airflow) -> str | None:
    for state in ("running", "queued"):
        found = airflow.request("GET", f"dags/{DAG}/dagRuns?state={state}&limit=1")["dag_runs"]
        if found:
            return str(found[0]["dag_run_id"])
    return None


def _until_known(airflow: Airflow, within_s: float) -> dict[str, Any]:
    deadline = time.monotonic() + within_s
    while True:
        try:
            known: dict[str, Any] = airflow.request("GET", f"dags/{DAG}")
            return known
        except NightBroke:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def _line(task: Mapping[str, Any]) -> str:
    marks = {"success": "✓", "failed": "✗", "running": "▸", "up_for_retry": "↻", "skipped": "–", "upstream_failed": "✗"}
    state = task["state"] or "waiting"
    seconds = f"{task['duration']:7.1f} s" if task["duration"] and state in ("success", "failed") else ""
    return f"{marks.get(state, '·')} {task['task_display_name']:<24}{state:<14}{seconds}".rstrip()


def _rewrite(out: TextIO, lines: list[str], height: int) -> int:
    """Write the lines over the `height` that were written before; no more than the terminal shows."""
    room = max(1, shutil.get_terminal_size().lines - 2)
    shown = lines if len(lines) <= room else [line for line in lines if not line.startswith("·")][-room:]
    print(f"\x1b[{height}F\x1b[J" if height else "", "\n".join(shown), sep="", file=out, flush=True)
    return len(shown)


def _git(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False)


def _plain(name: str) -> str:
    return "".join(letter for letter in name if letter.isalnum())


def say(text: str) -> None:
    """Print for a person, at once."""
    print(text, file=sys.stdout, flush=True)
