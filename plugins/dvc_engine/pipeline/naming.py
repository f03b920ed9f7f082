"""What the tasks of a night are called in Airflow, which has fewer letters for it than DVC has for stages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from dvc_engine.pipeline.project import PIPELINE, Project

PIN, PUBLISH, RELEASED, END = RESERVED = "pin", "publish", "released", "end"
LONGEST = 100  # letters of a group's id, and of an item's in it: Airflow's database takes 250 of a whole one


def task_id(stage: str) -> str:
    """The id of a stage's task; `@` may not stand in one, so that items of a matrix become tasks of a group.

    'sub/dvc.yaml:train' is 'sub:train' here, and letters that an id may not hold are their numbers: 'sub_x3a_train'.
    A stage that is called as a task of the engine is 'publish_stage'.
    """
    group, _, item = stage.replace(f"/{PIPELINE}:", ":").partition("@")
    safe = _short(re.sub(r"[^A-Za-z0-9_-]", _numbered, group)) + ("_stage" if group in RESERVED else "")
    return f"{safe}.{_short(re.sub(r'[^A-Za-z0-9_.-]', _numbered, item))}" if item else safe


def approval(task: str) -> str:
    """The id of the task in which a person decides about what another made."""
    return f"{task}-approve"


def twice(project: Project) -> Iterator[tuple[str, str, str]]:
    """A stage, another one, and the id that a task of each would have."""
    taken: dict[str, str] = {}
    for name, stage in project.stages.items():
        made = task_id(name)
        for one in [made, approval(made)] if stage.airflow.approve else [made]:
            if one in taken:
                yield taken[one], name, one
            taken[one] = name


def _short(name: str) -> str:
    """An id that is too long keeps its first letters, and has a hash for the others."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 13]}-{digest}"


def _numbered(found: re.Match[str]) -> str:
    return f"_x{ord(found[0]):x}_"
