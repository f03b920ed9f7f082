"""What the child is told: which bytes it is to bring into its clone, which it may use, and which it keeps.

Outs that DVC keeps are told by path, with what makes them; others by path and md5, as a stage's entry has them:

deps      outs of others, and tracked data, that the stage reads: checked out before it begins
going_on  path → md5 of what it made last and goes on in: brought as it was left, where that is to be had
below     of these, the outs that lie in a folder which is a dep: DVC would count their .gitignore to it
needed    path → md5 of what it reads, hashed before it is checked out
own       path → md5 of the lists of folders that it made last: a damaged one would not be written anew
last      that, and where only DVC can tell whether it is to run all that it made last: checked out too
restore   path → md5 of outs that DVC does not cache, and that it reads
wanted    path → md5 of such outs that it made last: those that persist, or that DVC is to look at
keep      such outs that it makes
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc_engine.pipeline import lock
from dvc_engine.pipeline.lock import Entry
from dvc_engine.pipeline.project import Project, Stage, inside, within
from dvc_engine.stage import venvs
from dvc_engine.stage.outcome import Night, Result
from dvc_engine.stage.process import Leashed, scrubbed
from dvc_engine.store import uncached

DEFAULT_SHELL = "/bin/sh"
LONGEST_NAME = 100  # letters of a folder's name that say whose it is; a file system takes 255 bytes


@dataclass(frozen=True)
class Job:
    """One stage to reproduce.

    Args:
        entry: that it starts from: its newest one, or an older one that is nearer to what it reads tonight.
        above: results of the stages that it rests on.
        folder: of the job; the clone is in it.
        cache: the folder of DVC's cache.
        env: variables for the stage alone; {clone} in a value becomes the path of the project in its clone.
        installer: runs what makes its environment.
    """

    night: Night
    project: Project
    stage: Stage
    entry: Entry | None
    above: Mapping[str, Result]
    folder: Path
    cache: Path
    env: Mapping[str, str]
    installer: Leashed

    def told(self, clone: Path, asks_dvc: bool, remote: bool, push: bool, limit_bytes: int) -> dict[str, Any]:
        """What the child is told, as data: the arguments of child.py. Raises VenvError.

        Args:
            clone: the project in its clone.
            asks_dvc: whether only DVC can tell that the stage is unchanged; it must have what was made last.
            remote: whether there is one.
            push: whether what it makes is to go to remotes.
            limit_bytes: of outs that DVC does not cache, all together.
        """
        made = {out.path for name in self.above for out in self.project.stages[name].outs if out.cached}
        made |= set(self.project.tracked(self.stage.name))
        deps = [path for path in self._reads if any(inside(path, out) for out in made)]
        last = self._kept_last(out.path for out in self.stage.outs if asks_dvc or out.persist)
        below = {path for path in made if any(path.startswith(f"{dep}/") for dep in self.stage.deps)}
        ignored = [path for path in self.project.makers if path in below]  # in the order in which DVC ignores them
        return {
            "clone": str(clone),
            "stage": self.stage.target,
            "imported": self.stage.imported,
            "deps": self._with_makers(deps),
            "below": self._with_makers(ignored),
            "env": self._variables(clone),
            "remote": remote,
            "push": push,
            "cache": str(self.cache),
            "needed": self._needed(made),
            "going_on": self._going_on(),
            "own": self._own(),
            "restore": self._restored(),
            "last": self._with_makers(path for path in self.stage.cached if path in last),
            "wanted": {path: md5 for path, md5 in last.items() if path in self.stage.uncached},
            "executable": self._executable(),
            "keep": self.stage.uncached,
            "limit_bytes": limit_bytes,
        }

    @property
    def _reads(self) -> list[str]:
        """Its deps, and the files that it takes params from."""
        return [*self.stage.deps, *self.stage.params]

    def _variables(self, clone: Path) -> dict[str, str]:
        """Variables for the stage alone. Raises VenvError."""
        env = {"SHELL": _shell()} | {name: value.replace("{clone}", str(clone)) for name, value in self.env.items()}
        env |= {"DVC_AIRFLOW_OUTCOME": str(self.folder / "outcome.json"), "DVC_AIRFLOW_RUN": self.night.run}
        return env | {"PYTHONUNBUFFERED": "1"} | self._isolated(clone)

    def _isolated(self, clone: Path) -> dict[str, str]:
        """Variables for what the stage's `meta.airflow` gives it: an environment, memory, nodes. Raises VenvError."""
        said, found = self.stage.airflow, dict[str, str]()
        if said.venv:
            kept = self.night.root / ".dvc" / "tmp" / "venvs"
            made = venvs.make(clone / self.stage.at(said.venv), kept, self.installer)
            path = f"{made / 'bin'}{os.pathsep}{self.env.get('PATH') or scrubbed()['PATH']}"
            found |= {"VIRTUAL_ENV": str(made), "PATH": path}
        if said.memory:
            found["DVC_AIRFLOW_MEMORY"] = str(said.memory)
        if said.hostfile:
            (self.folder / "hostfile").write_text(said.hostfile, encoding="utf-8")
            found["DVC_AIRFLOW_HOSTFILE"] = str(self.folder / "hostfile")
        return found

    def _with_makers(self, paths: Iterable[str]) -> list[tuple[str, str, str]]:
        """Outs, or paths in them, as child.Made."""
        makers, found = self.project.makers, []
        for path in paths:
            name = next(makers[one] for one in within(path) if one in makers)
            stage = self.project.stages.get(name) or self.project.data[name]
            found.append((stage.file, "" if stage.imported else stage.key, path))
        return found

    def _needed(self, made: set[str]) -> dict[str, str]:
        """Path → md5 of the outs that this stage reads."""
        held = dict(self.project.tracked(self.stage.name))
        for name, result in self.above.items():
            held |= lock.objects(self.project.stages[name], result.entry or {})
        read = {path: md5 for path, md5 in held.items() if md5 and _touches(path, self._reads)}
        return {path: md5 for path, md5 in read.items() if not made.isdisjoint(within(path))}

    def _going_on(self) -> dict[str, str]:
        """Path → md5 of what DVC keeps of its own outs that persist."""
        outs = {out.path for out in self.stage.outs if out.persist and out.cached}
        held = lock.objects(self.stage, self.entry or {})
        return {path: md5 for path, md5 in held.items() if not outs.isdisjoint(within(path))}

    def _restored(self) -> dict[str, str]:
        """Path → md5 of what it reads of the outs of others that DVC does not cache."""
        found = dict[str, str]()
        for name, result in self.above.items():
            stage, entry = self.project.stages[name], result.entry or {}
            md5 = lock.hashes(stage, entry, "outs")
            read = {path: md5[path] for path in stage.uncached if path in md5 and _touches(path, self._reads)}
            if read:  # Git may have it, and this worker has not looked
                had(self.night, stage, entry, self.cache)
            found |= read
        return found

    def _executable(self) -> list[str]:
        """Outs that may be run, of what it reads and of what it made last."""
        known = [(self.project.stages[name], result.entry) for name, result in self.above.items()]
        known.append((self.stage, self.entry))
        return [path for stage, entry in known for path in lock.executable(stage, entry or {})]

    def _own(self) -> dict[str, str]:
        """Path → md5 of the folders that this stage made last."""
        cached = {out.path for out in self.stage.outs if out.cached}
        held = lock.objects(self.stage, self.entry or {})
        return {path: md5 for path, md5 in held.items() if path in cached and md5.endswith(".dir")}

    def _kept_last(self, paths: Iterable[str]) -> dict[str, str]:
        """Path → md5 of these outs as this stage made them last."""
        md5 = lock.hashes(self.stage, self.entry or {}, "outs")
        return {path: md5[path] for path in paths if path in md5}


def folder(clones: Path, owner: str, run: str, task: str, number: int) -> Path:
    """The folder of one try at one task: no other's, whatever letters their names have and however long they are.

    Args:
        clones: folder for clones.
        owner: whose run it is: runs of two DAGs may be called the same.
        run: name of the run.
        task: the task, or its stage.
        number: of the try, from 1.
    """
    parts = json.dumps([owner, run, task, number])
    named = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{run}-{task}-{number}").strip("-.")
    return clones / f"{named[-LONGEST_NAME:]}-{hashlib.sha256(parts.encode()).hexdigest()[:12]}"


def had(night: Night, stage: Stage, entry: Entry, cache: Path) -> bool:
    """Whether what DVC does not cache of an entry is to be had."""
    source = night.source(stage.name, entry)
    return uncached.had(stage, entry, source.content if source else lambda _: None, cache)


def _shell() -> str:
    """The shell that DVC would take: the worker's; a service's user may have one that runs nothing."""
    shell = os.environ.get("SHELL") or DEFAULT_SHELL
    return DEFAULT_SHELL if Path(shell).name in ("nologin", "false") else shell


def _touches(path: str, deps: Iterable[str]) -> bool:
    """Whether a dep is an out, lies in it, or is a folder above it."""
    return any(inside(dep, path) or inside(path, dep) for dep in deps)
