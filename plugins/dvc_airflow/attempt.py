"""One attempt at one stage, without Airflow: decide, clone, reproduce, report.

The same function serves the operator and the tests. It starts the child in a session of its own on a leash, and
reads what the recorder kept, since DVC itself says only that something failed. Attempts may overlap (a lost
worker's and its retry's): nothing outside the clone is written but content-addressed objects, so that harms
nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc_airflow import lock, plan, uncached, workspace
from dvc_airflow.lock import Entry
from dvc_airflow.outcome import Night, Result, failure
from dvc_airflow.project import Project, Stage

GRACE_S = 4.0
MOST_UNDECLARED = 20  # paths that are told of a stage
LARGEST_TOLD = 1 << 16  # bytes of a `cache: false` out that night.json may take numbers from


class Attempt:
    """One try at one stage.

    Args:
        night: what the pin fixed.
        project: the pinned commit's project.
        stage: which stage.
        results: of these stages tonight, by stage; those that there are. Each may cost a request.
        clones: folder for clones.
        env: variables for the stage alone; {clone} in a value becomes the clone's path.
        number: of this try, from 1.
    """

    def __init__(
        self,
        night: Night,
        project: Project,
        stage: str,
        results: Callable[[list[str]], Mapping[str, Result]],
        clones: Path,
        env: Mapping[str, str],
        number: int = 1,
    ) -> None:
        self.night, self.project, self.results, self.env = night, project, results, env
        self.above: Mapping[str, Result] = {}  # all that it rests on, as soon as a clone needs it
        self.stage: Stage = project.stages[stage]
        self.repository = Path(night.repository)
        self.cache = workspace.cache_of(self.repository)
        self.job = clones / f"{night.run}-{stage.replace('/', '.')}-{number}"
        self.child: subprocess.Popen[bytes] | None = None
        self.killed = False

    def run(self) -> Result:
        """Do it. Never raises for what the stage does; the outcome tells."""
        began = time.monotonic()
        try:
            kept = self._kept()
            if kept is not None:
                return kept
            self.above = self.results(self.project.ancestors(self.stage.name))
            clone = self._clone()
            if self.killed:
                return self._cancelled(began)
            self._start(clone)
            return self._wait(clone, began)
        except (workspace.GitError, OSError) as error:
            said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
            return Result(self.stage.name, "storage", time.monotonic() - began, sentence=said)

    def kill(self) -> None:
        """End the stage and all that it started: SIGTERM, at most four seconds, SIGKILL; for a signal handler."""
        self.killed = True
        child = self.child
        if child is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_S
            while time.monotonic() < deadline and _living(child.pid):
                time.sleep(0.05)
            os.killpg(child.pid, signal.SIGKILL)

    def _kept(self) -> Result | None:
        """The newest entry as tonight's result, when nothing that it rests on changed, or the stage is frozen."""
        name = self.stage.name
        entry = self.night.entries.get(name)
        if self.stage.frozen and entry:  # what it makes is looked at where it is read
            return self._unchanged(entry)
        above = self.results(self.project.upstream(name))
        commit = plan.Commit(self.repository, self.night.commit)
        made = {**self.project.tracked(name), **self._hashes(above)}
        if not plan.unchanged(self.stage, entry, made, commit, self.cache):
            return None
        assert entry is not None
        return self._unchanged(entry)

    def _hashes(self, above: Mapping[str, Result]) -> dict[str, str]:
        """Path → md5 of what these stages made tonight."""
        found: dict[str, str] = {}
        for name, said in above.items():
            found |= lock.hashes(self.project.stages[name], said.entry or {}, "outs")
        return found

    def _unchanged(self, entry: Entry) -> Result | None:
        """The entry as tonight's result; None where an out that DVC does not cache is not to be had."""
        name, md5 = self.stage.name, lock.hashes(self.stage, entry, "outs")
        held = plan.Commit(self.repository, self.night.came[name])
        for path in (out.path for out in self.stage.outs if not out.cached):
            if uncached.present(md5[path], self.cache):
                continue
            content = held.content(path)
            if content is None or plan.md5(content) != md5[path]:
                return None
            uncached.take(content, md5[path], self.cache)
        return Result(name, "unchanged", entry=entry, files=self._told(entry))

    def _told(self, entry: Entry) -> dict[str, str]:
        """The `cache: false` outs that are short texts, as they are kept."""
        md5, found = lock.hashes(self.stage, entry, "outs"), {}
        for path in (out.path for out in self.stage.outs if not out.cached and not md5[out.path].endswith(".dir")):
            ((_, held),) = uncached.files(path, md5[path], self.cache)
            if held.stat().st_size <= LARGEST_TOLD:
                with suppress(UnicodeDecodeError):
                    found[path] = held.read_text(encoding="utf-8")
        return found

    def _clone(self) -> Path:
        clone = workspace.make(self.repository, self.night.commit, self.job / "clone", self.night.tags, self.cache)
        entries = {name: result.entry for name, result in self.above.items() if result.entry is not None}
        own = self.night.entries.get(self.stage.name)
        if own is not None:
            entries[self.stage.name] = own
        for path in {stage.lock for stage in self.project.stages.values()}:
            (clone / path).unlink(missing_ok=True)  # tonight's entries, and no others
        for path, text in lock.files(self.project, entries).items():
            (clone / path).write_text(text, encoding="utf-8")
        return clone

    def _start(self, clone: Path) -> None:
        made = {out.path for name in self.above for out in self.project.stages[name].outs if out.cached}
        made |= set(self.project.tracked(self.stage.name))
        deps = [dep for dep in self.stage.deps if any(_inside(dep, path) for path in made)]
        kept = lock.hashes(self.stage, self.night.entries.get(self.stage.name) or {}, "outs")
        deps += [out.path for out in self.stage.outs if out.persist and out.cached and out.path in kept]
        deps += [path for path in sorted(made) if any(path.startswith(f"{dep}/") for dep in self.stage.deps)]
        env = {name: value.replace("{clone}", str(clone)) for name, value in self.env.items()}
        env |= {"DVC_AIRFLOW_OUTCOME": str(self.job / "outcome.json"), "DVC_AIRFLOW_RUN": self.night.run}
        env |= {"PYTHONUNBUFFERED": "1"}
        job = {"clone": str(clone), "stage": self.stage.name, "deps": deps, "env": env, "push": _remote(clone)}
        job |= {"cache": str(self.cache), "needed": self._needed(made), "own": self._own()}
        job |= {"restore": self._read(), "keep": [out.path for out in self.stage.outs if not out.cached]}
        (self.job / "job.json").write_text(json.dumps(job), encoding="utf-8")
        here = Path(__file__).resolve().parent
        reads, self._leash = os.pipe()
        around = {
            "SHELL": str(here / "recorder.py"),
            "DVC_AIRFLOW_RECORD": str(self.job / "record.jsonl"),
            "PYTHONPATH": str(here.parent),
            "DVC_NO_ANALYTICS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-c", _START, str(self.job / "job.json"), str(reads)]
        self.child = subprocess.Popen(
            command, cwd=clone, env=scrubbed() | around, start_new_session=True, pass_fds=[reads]
        )
        os.close(reads)
        if self.killed:  # between the last look and here
            self.kill()

    def _needed(self, made: set[str]) -> dict[str, str]:
        """Path → md5 of the outs that this stage reads."""
        held = dict(self.project.tracked(self.stage.name))
        for name, result in self.above.items():
            held |= lock.objects(self.project.stages[name], result.entry or {})
        read = {path for path in made if any(_inside(dep, path) or _inside(path, dep) for dep in self.stage.deps)}
        return {path: md5 for path, md5 in held.items() if path in read}

    def _read(self) -> dict[str, str]:
        """Path → md5 of what it reads, as a dep or for params, of the outs of others that DVC does not cache."""
        wanted, found = [*self.stage.deps, *self.stage.params], dict[str, str]()
        for name, result in self.above.items():
            stage = self.project.stages[name]
            md5 = lock.hashes(stage, result.entry or {}, "outs")
            found |= {out.path: md5[out.path] for out in stage.outs if not out.cached and out.path in md5}
        return {path: md5 for path, md5 in found.items() if any(_inside(d, path) or _inside(path, d) for d in wanted)}

    def _own(self) -> dict[str, str]:
        """Path → md5 of the folders that this stage made last."""
        entry = self.night.entries.get(self.stage.name) or {}
        cached = {out.path for out in self.stage.outs if out.cached}
        return {
            path: md5
            for path, md5 in lock.objects(self.stage, entry).items()
            if path in cached and md5.endswith(".dir")
        }

    def _wait(self, clone: Path, began: float) -> Result:
        assert self.child is not None
        with suppress(ChildProcessError, ProcessLookupError):
            os.waitid(os.P_PID, self.child.pid, os.WEXITED | os.WNOWAIT)  # not reaped yet: its group is still its own
            os.killpg(self.child.pid, signal.SIGKILL)  # what a killed recorder, or a stage, left running
        code = self.child.wait()
        os.close(self._leash)
        seconds = time.monotonic() - began
        records = _records(self.job / "record.jsonl")  # one for each command; the last failed or ended it
        record = records[-1] if records else {}
        report = _json(self.job / "outcome.json")
        result = _json(self.job / "result.json")
        memory = max((int(one["memory_bytes"]) for one in records), default=0)
        energy = sum(one["energy_joules"] or 0.0 for one in records) or None
        name = self.stage.name
        if self.killed:
            return self._cancelled(began, memory, report)
        if not result or "error" in result:
            outcome, sentence = failure(code, record, report, result)
            sentence += self._written_by(sentence)
            where = f"{sentence} (its clone is kept at {clone})"
            return Result(name, outcome, seconds, memory, sentence=where, report=report)
        entry = lock.parse((clone / self.stage.lock).read_text(encoding="utf-8"))[self.stage.key]
        undeclared = self._undeclared(clone) if record else []
        outcome = "ran" if record else ("cached" if result["reproduced"] else "unchanged")
        shutil.rmtree(self.job, ignore_errors=True)
        return Result(name, outcome, seconds, memory, entry, self._told(entry), "", report, undeclared, energy)

    def _undeclared(self, clone: Path) -> list[str]:
        """What the stage wrote and dvc.yaml does not name: no other clone has it."""
        asked = ["status", "--porcelain", "-z", "--untracked-files=all", "--ignored=traditional", "--no-renames"]
        found = []
        for path in (line[3:].rstrip("/") for line in workspace.git(clone, *asked).split("\0") if line):
            own = path.startswith(".dvc/") or Path(path).name in (".gitignore", "dvc.lock") or "__pycache__" in path
            if not own and not any(_inside(path, out) or _inside(out, path) for out in self.project.makers):
                found.append(path)
        return found[:MOST_UNDECLARED]

    def _written_by(self, sentence: str) -> str:
        """Which stage wrote a file that this one names in its last words, and did not declare it; "" for none."""
        for name, result in self.results(list(self.project.stages)).items():
            if path := next((one for one in result.undeclared if one in sentence), None):
                what = f"{path} was written by stage {name}, which does not declare it"
                return f"\n{what}: add it to its outs, and to these deps"
        return ""

    def _cancelled(self, began: float, memory: int = 0, report: Mapping[str, Any] | None = None) -> Result:
        seconds, sentence = time.monotonic() - began, "it was ended from outside"
        return Result(self.stage.name, "cancelled", seconds, memory, sentence=sentence, report=report or {})


# a -c command, so that the package's own folder is not on the path (`operator.py` lies there)
_START = "import sys; from dvc_airflow.child import main; sys.exit(main(sys.argv[1], int(sys.argv[2])))"


def scrubbed() -> dict[str, str]:
    """The environment without Airflow's settings and secrets, and with this interpreter's commands first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "_AIRFLOW"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _remote(clone: Path) -> bool:
    return "remote" in (clone / ".dvc" / "config").read_text(encoding="utf-8").partition("[core]")[2].partition("[")[0]


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return {}


def _records(path: Path) -> list[dict[str, Any]]:
    """What the recorder wrote, a line for each command that ended; nothing where it was cut off while it wrote."""
    with suppress(OSError, ValueError):
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return []


def _living(group: int) -> bool:
    """Whether a process of this group still runs; zombies do not count."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                return True
    return False
