"""Run what a command is, and end this process at a named point of the engine, once.

    python -m tests.faults.struck task ROOT STATE pin      # a task of a night, as Airflow would run it
    python -m tests.faults.struck child FOLDER             # the engine's child

A point is `module:function:before` or `:after`. The engine itself has no hooks: the function is wrapped here, from the
outside. Which point, which time it is reached, and what happens then stand in $FAULT; each point that is reached is
counted in $FAULTS, so that a run without a fault says what there is to meet.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

TASK = [
    "dvc_engine.store.lease:take", "dvc_engine.store.snapshot:take",
    "dvc_engine.store.workspace:make", "dvc_engine.store.workspace:remove",
    "dvc_engine.pipeline.lock:files", "dvc_engine.pipeline.lock:read",
    "dvc_engine.stage.process:Process.start", "dvc_engine.stage.process:Process.tell",
    "dvc_engine.stage.process:Process.wait",
    "dvc_engine.store.history:newest", "dvc_engine.store.snapshot:with_files",
    "dvc_engine.store.repository:Repository.publish", "dvc_engine.store.lease:release",
]  # fmt: skip
CHILD = [
    "dvc_engine.stage.child:_bring", "dvc_engine.stage.child:_reproduce", "dvc_engine.store.uncached:restore",
    "dvc_engine.store.uncached:keep", "dvc.repo:Repo.reproduce", "dvc.stage:Stage.save", "dvc.stage:Stage.commit",
    "dvc.stage.cache:StageCache.save", "dvc.dvcfile:Lockfile.dump_stages",
]  # fmt: skip
POINTS = {f"{point}:{when}": kind for kind, points in (("task", TASK), ("child", CHILD)) for point in points
          for when in ("before", "after")}  # fmt: skip


def watch(kind: str) -> None:
    """Wrap every function of this kind of process that has a point."""
    for point in TASK if kind == "task" else CHILD:
        module, _, name = point.partition(":")
        owner: Any = import_module(module)
        *path, last = name.split(".")
        for step in path:
            owner = getattr(owner, step)
        setattr(owner, last, _wrapped(getattr(owner, last), point))


def _wrapped(real: Callable[..., Any], point: str) -> Callable[..., Any]:
    def call(*given: Any, **named: Any) -> Any:
        reached(f"{point}:before")
        made = real(*given, **named)
        reached(f"{point}:after")
        return made

    return call


def reached(point: str) -> None:
    """Count it; and where it is the one that $FAULT names, that time, do what it says."""
    counts = Path(os.environ["FAULTS"])
    with (counts / point.replace("/", "_")).open("ab", buffering=0) as out:  # of two at once each has its own number
        out.write(b".")
        number = out.tell()
    fault = json.loads(os.environ["FAULT"])
    if fault and fault["point"] == point and fault["time"] == number:
        (counts / "fired").write_text(json.dumps(fault | {"pid": os.getpid()}))
        os.kill(os.getpid(), fault["signal"])
        if fault["signal"] == signal.SIGSTOP:
            return


def main(words: list[str]) -> int:
    """Run a task, or the child, with its points watched."""
    kind, *rest = words
    watch(kind)
    if kind == "child":
        from dvc_engine.stage import child

        child.leave(child.main(rest[0]))
    from tests.faults import task

    return task.main(rest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
