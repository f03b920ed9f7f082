"""The first and the last task of a night of many stages: what the pin reads and sends, and what publish writes.

Nothing runs: the entries are what DVC would have written had each stage made a file of 2 bytes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine_parts import projects
from bench.engine_parts.server import Broke

from dvc_engine.git import git
from dvc_engine.night.publish import Published, publish
from dvc_engine.pipeline import kept, lock, project, reading
from dvc_engine.pipeline.project import Project, Stage
from dvc_engine.stage import start
from dvc_engine.stage.outcome import Night, Result
from dvc_engine.store import history, objects, repository, uncached, workspace


class Clock:
    """Seconds of what was timed, by name."""

    def __init__(self) -> None:
        self.took: dict[str, list[float]] = {}

    def __call__(self, name: str, does: Callable[..., Any], *words: Any) -> Any:
        """What a call returns."""
        began = time.perf_counter()
        said = does(*words)
        self.took.setdefault(name, []).append(time.perf_counter() - began)
        return said


def measure(scratch: Path, stages: int, rounds: int) -> dict[str, Any]:
    """Seconds of each part, and bytes that a task reads of the pin."""
    blocks, clock = stages // projects.BLOCK, Clock()
    root = projects.made(scratch / f"publication-{stages}", projects.tree(blocks), projects.tree_params(blocks))
    sizes = [night(root, stages, number, clock) for number in range(rounds)]
    seconds = {name: round(median(one), 3) for name, one in clock.took.items()}
    return {"stages": stages, "seconds": seconds, "xcom_bytes": sizes[-1]}


def night(root: Path, stages: int, number: int, clock: Clock) -> dict[str, int]:
    """One night's parts, timed; bytes of what its pin returns. Raises Broke where a part gives something else."""
    cache, record, known_at = workspace.cache_of(root), repository.of(root), kept.folder(root)
    shutil.rmtree(known_at, ignore_errors=True)
    clock("read_first", reading.read, root, known_at)
    known: Project = clock("read_kept", reading.read, root, known_at)
    made = results(known, f"{number}\n", cache)
    pinned = Night(str(root), git(root, "rev-parse", "HEAD"), {}, {}, f"bench-{number}", tip=record.tip)
    done = clock("publish", published, pinned, known, made, cache)
    held = lock.parse(git(root, "show", f"{done.commit}:dvc.lock"))
    if not done.new or held != {name: one.entry for name, one in made.items()}:
        raise Broke(f"what was published of {stages} stages is not what they made: {done.refused}")
    pinned = replace(pinned, run=f"again-{number}", tip=record.tip)
    if clock("publish_nothing_new", published, pinned, known, made, cache).new:
        raise Broke("a night that changed nothing was published")
    found = replace(pinned, known=clock("newest_entries", history.newest, record, pinned.pinned, known))
    if found.entries != held:
        raise Broke(f"{len(found.entries)} entries are found of {stages} stages, or others than were published")
    clock("lacking", start.lacking, known, pinned.pinned)
    sent = clock("dump", dumped, found, known)
    clock("task_loads", loaded, sent)
    return {name: len(text) for name, text in sent.items()}


def published(pinned: Night, known: Project, made: dict[str, Result], cache: Path) -> Published:
    """What publish makes of these results."""
    return publish(pinned, known, made, repository.of(pinned.root), None, {}, pinned.root / ".dvc" / "tmp" / "clones")


def dumped(pinned: Night, known: Project) -> dict[str, str]:
    """What the pin returns."""
    return {"night": pinned.dumps(), "project": project.dumps(known)}


def loaded(sent: dict[str, str]) -> tuple[Night, Project]:
    """What a stage's task makes of that."""
    return Night.loads(sent["night"]), project.loads(sent["project"])


def results(known: Project, content: str, cache: Path) -> dict[str, Result]:
    """A result of each stage that made files of this content."""
    md5 = str(objects.md5(content.encode()))
    uncached._take(content.encode(), md5, cache)
    return {name: Result(name, "ran", entry=entry(one, md5, len(content))) for name, one in known.stages.items()}


def entry(stage: Stage, md5: str, size: int) -> dict[str, Any]:
    """As DVC writes one of files of the same content."""
    held = {"hash": "md5", "md5": md5, "size": size}
    made: dict[str, Any] = {"cmd": stage.cmd, "deps": [{"path": one} | held for one in stage.deps]}
    if stage.params:
        made["params"] = {file: dict.fromkeys(keys, 1) for file, keys in stage.params.items()}
    return made | {"outs": [{"path": one.path} | held for one in stage.outs]}
