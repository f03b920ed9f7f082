"""What need not run tonight, told for all stages at once, by the pin: the task of such a stage asks for nothing else.

A stage is settled when its entry is what running it would give, and it rests on such stages alone. What stands behind
one that always runs, or that only DVC can tell of, decides when its turn has come. Without this each task of a night in
which nothing changed would ask Airflow what the stages above it said: with a hundred stages twice the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import time

from dvc_engine.pipeline.project import Project
from dvc_engine.stage.attempt import Attempt
from dvc_engine.stage.outcome import Night, Result, standing


def settled(night: Night, project: Project, clones: Path) -> dict[str, Result]:
    """Stage → its result tonight, `unchanged`, of those that are settled. Raises OSError."""
    known = standing(night, (one.name for one in project.stages.values() if not one.selected))

    def above(names: Sequence[str]) -> Mapping[str, Result]:
        return {name: known[name] for name in names if name in known}

    began, found = time(), dict[str, Result]()
    for name in project.order:
        if not project.stages[name].selected or not known.keys() >= set(project.upstream(name)):
            continue
        kept = Attempt(night, project, name, above, clones, {}).kept()
        if kept and kept.outcome == "unchanged":  # who comes back to an older entry says so, to those that read it too
            known[name] = found[name] = replace(kept, began=began)
    return found
