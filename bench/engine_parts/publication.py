"""The first and the last task of a night of many stages: what the pin reads and sends, and what publish writes.

Nothing runs: the entries are what DVC would have written had each stage made a file of 2 bytes.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine_parts import projects
from bench.engine_parts.server import Broke
from dvc_airflow.git import git
from dvc_airflow.night.publish import Published, publish
from dvc_airflow.pipeline import lock, project, reading
from dvc_airflow.pipeline.project import Project, Stage
from dvc_airflow.stage import plan
from dvc_airflow.stage.outcome import Night, Result
from dvc_airflow.store import history, objects, repository, uncached, workspace


def measure(scratch: Path, stages: int, rounds: int) -> dict[str, Any]:
    """Seconds of each part, and bytes that a task reads of the pin."""
    blocks = stages // projects.BLOCK
    root = projects.made(scratch / f"publication-{stages}", projects.tree(blocks), projects.tree_params(blocks))
    cache, record, kept = workspace.cache_of(root), repository.of(root), reading.kept(root)
    took: dict[str, list[float]] = {}

    def timed(name: str, does: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        said = does()
        took.setdefault(name, []).append(time.perf_counter() - began)
        return said

    commit = git(root, "rev-parse", "HEAD")
    night = Night(str(root), commit, {}, {}, {}, "bench")
    for number in range(rounds):
        shutil.rmtree(kept, ignore_errors=True)
        timed("read_first", lambda: reading.read(root, kept))
        known: Project = timed("read_kept", lambda: reading.read(root, kept))
        made = results(known, f"{number}\n", cache)
        night = Night(str(root), commit, {}, {}, {}, f"bench-{number}", tip=record.tip)
        done = timed("publish", lambda known=known, made=made, night=night: published(night, known, made, cache))
        if not done.new or lock.parse(git(root, "show", f"{done.commit}:dvc.lock")) != {
            name: one.entry for name, one in made.items()
        }:
            raise Broke(f"what was published of {stages} stages is not what they made: {done.refused}")
        night = Night(str(root), commit, {}, {}, {}, f"again-{number}", tip=record.tip)
        again = timed("publish_nothing_new", lambda known=known, made=made, night=night: published(night, known, made, cache))
        if again.new:
            raise Broke("a night that changed nothing was published")
        entries, came = timed("newest_entries", lambda known=known: history.newest(record, night.pinned, known))
        if len(entries) != stages:
            raise Broke(f"{len(entries)} entries are found of {stages} stages")
        timed("lacking", lambda known=known: plan.lacking(known, night.pinned))
        night = Night(str(root), commit, {}, entries, came, f"bench-{number}")
        sent = timed("dump", lambda known=known, night=night: dumped(night, known))
        timed("task_loads", lambda sent=sent: loaded(sent))
    size = {name: len(text) for name, text in sent.items()}
    return {"stages": stages, "seconds": {name: round(median(one), 3) for name, one in took.items()}, "xcom_bytes": size}


def published(night: Night, known: Project, made: dict[str, Result], cache: Path) -> Published:
    return publish(night, known, made, repository.of(night.root), None, {}, night.root / ".dvc" / "tmp" / "clones")


def dumped(night: Night, known: Project) -> dict[str, str]:
    """What the pin returns."""
    return {"night": json.dumps(asdict(night), default=str), "project": project.dumps(known)}


def loaded(sent: dict[str, str]) -> tuple[Night, Project]:
    """What a stage's task makes of that."""
    return Night(**json.loads(sent["night"])), project.loads(sent["project"])


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
