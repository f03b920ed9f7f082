"""What earlier nights made of every stage, and which commit says so."""

from __future__ import annotations

from typing import Any

from ruamel.yaml import YAML

from dvc_airflow.pipeline import lock
from dvc_airflow.pipeline.project import Project, Stage
from dvc_airflow.store.commit import Commit
from dvc_airflow.store.repository import Repository


def newest(record: Repository, commit: Commit, project: Project) -> tuple[dict[str, lock.Entry], dict[str, str]]:
    """The newest entry of every stage and its commit: of nights, published or not, then the pinned commit.

    What a `.dvc` file says counts as an entry where it names the same source as the pinned one.
    """
    held: dict[str, list[Stage]] = {}
    for stage in project.stages.values():
        held.setdefault(stage.lock, []).append(stage)
    entries: dict[str, lock.Entry] = {}
    came: dict[str, str] = {}
    for one in [*record.nights(), commit.commit]:
        there = Commit(record.path, one, commit.folder)
        for path, stages in held.items():
            wanted = [stage for stage in stages if stage.name not in entries]
            if not wanted:
                continue
            text = (there.content(path) or b"").decode()
            if wanted[0].imported:
                known = {wanted[0].key: lock.imported(text)} if _same_source(text, commit.content(path)) else {}
            else:
                known = lock.parse(text)  # once for all of its stages
            for stage in (one for one in wanted if one.key in known):
                entries[stage.name], came[stage.name] = known[stage.key], there.commit
    return entries, came


def _same_source(one: str, other: bytes | None) -> bool:
    """Whether two `.dvc` files import from the same place, whatever was there."""
    return bool(one) and other is not None and _source(one) == _source(other.decode())


def _source(text: str) -> list[dict[str, Any]]:
    """What a `.dvc` file imports from: its deps without what was found there."""
    return [
        {key: dep.get(key) for key in ("path", "db", "fs_config")}
        | {key: (dep.get("repo") or {}).get(key) for key in ("url", "rev")}
        for dep in YAML(typ="safe").load(text).get("deps") or []
    ]
