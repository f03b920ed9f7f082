"""One attempt at one stage, without Airflow: decide, clone, reproduce, report.

The same function serves the operator and the tests. Attempts may overlap (a lost worker's and its retry's): nothing
outside the clone is written but content-addressed objects, so that harms nothing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from dvc_engine.git import GitError
from dvc_engine.pipeline import lock
from dvc_engine.pipeline.lock import Entry
from dvc_engine.pipeline.project import Project, Stage, within
from dvc_engine.stage import job, plan, strays
from dvc_engine.stage.job import Job
from dvc_engine.stage.outcome import Night, Result, failure, of_disk
from dvc_engine.stage.process import Leashed, Process
from dvc_engine.stage.venvs import VenvError
from dvc_engine.store import history, uncached, workspace
from dvc_engine.store.repository import Repository

MOST_TOLD = 20  # paths, or sentences, of a kind that are told of a stage
NOTHING_BYTES = 1 << 20  # of a disk with less a stage's last words may not have been kept
LARGEST_TOLD = 1 << 16  # bytes of a `cache: false` out that night.json may take numbers from


class Ended(Exception):
    """It was ended from outside before its stage began."""


class Attempt:
    """One try at one stage.

    Args:
        night: what the pin fixed.
        project: the pinned commit's project.
        stage: which stage.
        results: of these stages tonight, by stage; those that there are. Each may cost a request.
        clones: folder for clones.
        env: variables for the stage alone; {clone} in a value becomes the path of the project in its clone.
        number: of this try, from 1.
        limit_bytes: of outs that DVC does not cache, all together.
        record: where this checkout gets what it lacks of the night from; None where it lacks nothing.
        owner: whose run it is, of which DAG or group.
        push: whether what it makes goes to DVC's remotes.
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
        limit_bytes: int = uncached.LIMIT,
        record: Repository | None = None,
        owner: str = "",
        push: bool = True,
    ) -> None:
        self.night, self.project, self.env, self.limit_bytes = night, project, env, limit_bytes
        self.results, self.record, self.push = results, record, push
        self.above: Mapping[str, Result] = {}  # what it rests on
        self.stage: Stage = project.stages[stage]
        self.entry = self.newest = night.entries.get(stage)
        self.asks_dvc = False  # whether only DVC can tell that it is unchanged; it must have what was made last
        self.sure = False  # whether an entry is known that nothing speaks against
        self.cache = workspace.cache_of(night.root)
        self.remote = workspace.remote_of(night.root) is not None
        self.job = job.folder(clones, owner, night.run, stage, number)
        self.process, self.installer = Process(self.job), Leashed(whole=True)
        self.began = time.time()

    def run(self) -> Result:
        """Do it. Never raises for what the stage does; the outcome tells."""
        self.began = time.time()
        result = self._run().resting(self.above, self.began)
        if not result.well and result.outcome != "cancelled":  # which Airflow gives seconds
            self._sweep()
        return result

    def _sweep(self) -> None:
        """Bound what failed attempts left here: on a worker without the pin nothing else does. This one's own stays."""
        if self.job.is_dir():
            with suppress(OSError):
                workspace.sweep(self.job.parent, workspace.MOST_KEPT - 1)

    def _run(self) -> Result:
        began = time.monotonic()
        try:
            if self.record is not None:
                self.record.have(self.night.run, self.night.commit, self.night.tags.values())
            if (kept := self.kept()) is not None:
                return kept
            if said := self._unmade():
                return Result(self.stage.name, "refused", time.monotonic() - began, sentence=said)
            self.process.start()
            try:
                if (kept := self._before()) is not None:  # while that imports DVC
                    self.process.dismiss()
                    return kept
                clone = self._clone()
                told = self._told_child(clone)
                if self.process.killed:
                    raise Ended
                self.process.tell(told)
            except BaseException:
                self.process.dismiss()
                raise
            return self._wait(clone, began)
        except Ended:
            return self._cancelled(began)
        except VenvError as error:  # a package's server may answer another time
            if self.installer.killed:
                return self._cancelled(began)
            return Result(self.stage.name, "storage", time.monotonic() - began, sentence=str(error))
        except (GitError, OSError) as error:
            said = of_disk(error) if isinstance(error, OSError) else str(error)
            return Result(self.stage.name, "storage", time.monotonic() - began, sentence=said)

    def _told_child(self, clone: Path) -> dict[str, Any]:
        here = (self.job, self.cache, self.env, self.installer)
        return Job(self.night, self.project, self.stage, self.entry, self.above, *here).told(
            clone, self.asks_dvc, self.remote, self.push, self.limit_bytes
        )

    def kill(self) -> None:
        """End the stage and all that it started, and what installs its environment; for a signal handler."""
        self.process.kill()
        self.installer.kill()

    def overdue(self, limit: timedelta) -> Result:
        """End it, since it took longer than it may; its result, whatever `run` was at."""
        self.kill()
        self._sweep()
        sentence = f"it took longer than its execution_timeout, {limit} (its clone is kept at {self.job / 'clone'})"
        seconds = time.time() - self.began
        return Result(self.stage.name, "cancelled", seconds, sentence=sentence, began=self.began)

    def kept(self) -> Result | None:
        """An entry as tonight's result, where it says what running the stage would give, or the stage is frozen."""
        if not (self.stage.frozen and self.entry):
            self.above = self.results(self.project.upstream(self.stage.name))
        if self.entry is None or self.stage.imported:
            return None
        if self.stage.frozen:  # what it makes is looked at where it is read
            return self._taken(self.night.nearest.get(self.stage.name, self.entry), same=True)
        return self._taken(*self._nearest(self.entry))

    def _taken(self, entry: Entry, same: bool | None) -> Result | None:
        """An entry as tonight's result, where it is that, and all of it is to be had."""
        self.entry = entry
        # asked for what only DVC can tell of, too: what Git has of it is taken in, and DVC looks at it
        had = same is not False and job.had(self.night, self.stage, self.entry, self.cache)
        if not (same and had):
            self.asks_dvc = same is not False
            return None
        outcome = "unchanged" if self.entry == self.newest else "cached"
        return Result(self.stage.name, outcome, entry=self.entry, files=self._told(self.entry))

    def _nearest(self, newest: Entry) -> tuple[Entry, bool | None]:
        """The newest entry that is what running the stage would give, or may be; else the newest, and that it is not.

        A stage that goes on in what it made goes on in the newest.
        """
        known = self.night.known.get(self.stage.name, [])[: 1 if self.stage.goes_on else None]
        found = plan.choose(self.stage, known, self._made(), self.night.pinned, self.cache, self.remote)
        self.sure = found is not None and found.sure
        return (found.entry, found.same) if found else (newest, False)

    def _before(self) -> Result | None:
        """As `kept`, from nights before the newest: of a change that is taken back nobody waits for the result again.

        What DVC keeps for that (its run cache) is on the disk of the worker that ran it.
        """
        night, stage = self.night, self.stage
        if night.tip is None or self.sure or stage.frozen or stage.imported or stage.goes_on or stage.always_changed:
            return None
        try:
            if self.record is not None:
                self.record.have(night.run, night.commit, [night.tip])
            earlier = history.before(night.at(night.tip), stage)
            found = plan.choose(stage, earlier, self._made(), night.pinned, self.cache, self.remote)
        except GitError:  # who has not these nights runs it
            return None
        if found is None or not found.sure or (self.asks_dvc and plan.of_the_same(found.entry, self.entry or {})):
            return None
        known = [*night.known.get(stage.name, []), (found.entry, str(found.came))]
        self.night = replace(night, known={**night.known, stage.name: known})
        # what Git alone has of it other workers look for at DVC's remote, and the child takes it there
        return self._taken(found.entry, None if self.remote and stage.uncached else found.same)

    def _unmade(self) -> str:
        """What is said where a stage that it rests on has no entry tonight; "" where all have."""
        asked = () if self.stage.frozen and self.entry else self.project.upstream(self.stage.name)
        lost = (name for name in asked if name not in self.above or self.above[name].entry is None)
        if (one := next(lost, None)) is None:
            return ""
        why = "it failed, or was marked as a success by hand, or the DAG has changed since; clear its task"
        return f"it reads what {one} makes, which has no result tonight: {why}"

    def _made(self) -> dict[str, str]:
        """Path → md5 of what it may read and Git does not hold: tracked data, and what others made tonight."""
        found = dict(self.project.tracked(self.stage.name))
        for name, said in self.above.items():
            found |= lock.hashes(self.project.stages[name], said.entry or {}, "outs")
        return found

    def _told(self, entry: Entry) -> dict[str, str]:
        """The `cache: false` outs that are short texts, as they are kept."""
        md5, found = lock.hashes(self.stage, entry, "outs"), {}
        for path in (one for one in self.stage.uncached if not md5[one].endswith(".dir")):
            ((_, held),) = uncached.files(path, md5[path], self.cache)
            if held.stat().st_size <= LARGEST_TOLD:
                with suppress(UnicodeDecodeError):
                    found[path] = held.read_text(encoding="utf-8")
        return {path: text for path, text in found.items() if "\0" not in text}  # which PostgreSQL does not take

    def _clone(self) -> Path:
        """A clone with the entries of what the stage reads and the one that it starts from, and no others."""
        night = self.night
        repository = Path(night.repository)
        clone = workspace.make(repository, night.commit, self.job, night.tags, self.cache, night.folder)
        entries = {name: result.entry for name, result in self.above.items() if result.entry is not None}
        if self.entry is not None:
            entries[self.stage.name] = self.entry
        locks = {stage.lock for stage in self.project.stages.values() if not stage.imported}
        pinned = {path: (clone / path).read_bytes() for path in locks if (clone / path).is_file()}
        for path in pinned:
            (clone / path).unlink()
        for path, text in lock.files(self.project, entries, pinned.get).items():
            (clone / path).write_text(text, encoding="utf-8")
        return clone

    def _wait(self, clone: Path, began: float) -> Result:
        code = self.process.wait()
        seconds = time.monotonic() - began
        records = self.process.records()
        record = records[-1] if records else {}  # the last command failed, or ended it
        said, result = self.process.said("outcome.json"), self.process.said("result.json")
        memory = max((int(one["memory_bytes"]) for one in records), default=0)
        energy = sum(one["energy_joules"] or 0.0 for one in records) or None
        cpu = sum(one["cpu_seconds"] for one in records)
        name = self.stage.name
        if self.process.killed:
            return self._cancelled(began, memory, said)
        if not result or "error" in result:
            outcome, sentence = failure(code, record, said, result)
            sentence += self._written_by(sentence.replace(f"{clone}/", ""))
            if not record and (free := shutil.disk_usage(self.job).free) < NOTHING_BYTES:
                sentence += f"; {free} bytes are free at {self.job.parent}"
            where = f"{sentence} (its clone is kept at {clone})"
            return Result(name, outcome, seconds, memory, sentence=where, report=said)
        entry = lock.read(self.stage, (clone / self.stage.lock).read_text(encoding="utf-8"))
        assert entry is not None
        undeclared, changed = self._strays(clone, entry) if record else ([], [])
        if self.stage.imported:
            outcome = "unchanged" if entry == self.entry else "ran"
        else:
            same = not result["reproduced"] and entry == self.newest
            outcome = "ran" if record else "unchanged" if same else "cached"
        workspace.remove(self.job)
        strays.note(self.night.root, name, entry, undeclared)
        took = (undeclared, changed, energy, cpu, 0.0, result["mended"][:MOST_TOLD])
        return Result(name, outcome, seconds, memory, entry, self._told(entry), "", said, *took)

    def _strays(self, clone: Path, entry: Entry) -> tuple[list[str], list[str]]:
        """What the stage wrote and dvc.yaml does not name, and of its deps those that it wrote on in.

        No other clone has either.
        """
        made, read = self._made(), lock.hashes(self.stage, entry, "deps")
        written = strays.undeclared(clone, self.project, self.night.folder)
        changed = [dep for dep, md5 in read.items() if made.get(dep) not in (None, "", md5)]  # "" is of data of DVC 2
        changed += [path for path in written if any(one in self.stage.deps for one in within(path))]
        return [path for path in written if path not in changed][:MOST_TOLD], changed[:MOST_TOLD]

    def _written_by(self, sentence: str) -> str:
        """Which stage wrote a file that this one names in its last words and may not have; "" for none."""
        made = strays.made_by(sentence, self.stage, self.project)
        return made or strays.written_by(sentence, self._every, self.night.root)

    def _every(self) -> Mapping[str, Result]:
        """Results of all stages; none where they cannot be had."""
        with suppress(Exception):  # whatever this request raises: the reason is not to be lost for a hint
            return self.results(list(self.project.stages))
        return {}

    def _cancelled(self, began: float, memory: int = 0, report: Mapping[str, Any] | None = None) -> Result:
        seconds, sentence = time.monotonic() - began, "it was ended from outside"
        return Result(self.stage.name, "cancelled", seconds, memory, sentence=sentence, report=report or {})
