"""What need not run: decided from lock entries, Git's blobs and the cache's file names, without importing DVC.

A stage is unchanged when its command, params and the hashes of its deps equal an entry, and every object of every
out is in the cache. What cannot be told so (a folder of Git files, a dep inside an out) is left to DVC in the
clone, which is slower and says the same. An always_changed stage is never unchanged.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from dvc_airflow import objects
from dvc_airflow.lock import Entry, hashes
from dvc_airflow.project import Project, Stage


class Commit:
    """Files of one commit, read from Git without a work tree."""

    def __init__(self, repository: Path, commit: str) -> None:
        self.repository, self.commit = repository, commit
        self._params: dict[str, Any] = {}

    def content(self, path: str) -> bytes | None:
        """The bytes of a file at this commit; None where there is no such file, or it is a folder."""
        asked = ["git", "-C", str(self.repository), "cat-file", "blob", f"{self.commit}:{path}"]
        shown = subprocess.run(asked, capture_output=True, check=False)
        return shown.stdout if shown.returncode == 0 else None

    def params(self, file: str) -> Any:
        """A params file as data: YAML 1.2 or JSON. None for a format that only DVC reads, and for a missing file."""
        if file not in self._params:
            content = self.content(file)
            known = PurePosixPath(file).suffix in (".yaml", ".yml", ".json")
            self._params[file] = YAML(typ="safe").load(content.decode()) if content is not None and known else None
        return self._params[file]


def lacking(project: Project, commit: Commit) -> str | None:
    """A sentence about the first dep that neither Git nor DVC has at this commit, and no stage makes; None for none."""
    asked = ["git", "-C", str(commit.repository), "ls-tree", "-r", "-z", "--name-only", commit.commit]
    names = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split("\0")
    held = {str(one) for name in filter(None, names) for one in [PurePosixPath(name), *PurePosixPath(name).parents]}
    for stage in (one for one in project.stages.values() if not one.frozen):
        for dep in stage.deps:
            above = [dep, *map(str, PurePosixPath(dep).parents)]
            made = any(one in project.makers for one in above) or any(p.startswith(f"{dep}/") for p in project.makers)
            if "://" in dep or dep.startswith(("/", "../")) or dep in held or made:
                continue
            there = (commit.repository / dep).exists()
            what = (
                f"it is in neither Git nor DVC; `dvc add {dep}`" if there else "it is not there, and no stage makes it"
            )
            return f"{stage.file}: stage {stage.name} depends on {dep}: {what}"
    return None


def unchanged(stage: Stage, entry: Entry | None, made: Mapping[str, str], commit: Commit, cache: Path) -> bool:
    """Whether `entry` is what running `stage` would give.

    Args:
        entry: the newest entry of this stage, or None.
        made: path → md5 of what it may read and Git does not hold: tonight's outs of other stages, tracked data.
        commit: where deps and params that Git holds are read.
        cache: the folder of DVC's cache.
    """
    if entry is None or stage.always_changed or entry.get("cmd") != stage.cmd:
        return False
    return (
        _deps_equal(stage, entry, made, commit)
        and _params_equal(stage, entry, commit)
        and set(outs := hashes(stage, entry, "outs")) == {out.path for out in stage.outs}
        and all(_present(cache, outs[out.path]) for out in stage.outs if out.cached)
    )


def _deps_equal(stage: Stage, entry: Entry, made: Mapping[str, str], commit: Commit) -> bool:
    known = hashes(stage, entry, "deps")
    if set(known) != set(stage.deps):
        return False
    return all(known[dep] == (made[dep] if dep in made else md5(commit.content(dep))) for dep in stage.deps)


def md5(content: bytes | None) -> str | None:
    """DVC's hash of a file; None for no file."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() if content is not None else None


def _params_equal(stage: Stage, entry: Entry, commit: Commit) -> bool:
    locked = {stage.at(file): values for file, values in (entry.get("params") or {}).items()}
    if set(locked) != set(stage.params):
        return False
    for file, keys in stage.params.items():
        values = commit.params(file)
        if values is None or (not keys and locked[file] != values):
            return False
        if keys and (set(keys) != set(locked[file]) or any(_value(values, k) != locked[file][k] for k in keys)):
            return False
    return True


def _value(values: Any, key: str) -> Any:
    """The value at a dotted key; an object that equals nothing where there is none."""
    for step in key.split("."):
        if isinstance(values, Mapping) and step in values:
            values = values[step]
        elif isinstance(values, list) and step.isdigit() and int(step) < len(values):
            values = values[int(step)]
        else:
            return object()
    return values


def _present(cache: Path, md5: str) -> bool:
    """Whether an object, and for a folder all that it lists, is in the cache; a damaged list is none."""
    held = objects.place(cache, md5)
    if not md5 or not held.is_file():
        return False
    if not md5.endswith(".dir"):
        return True
    return objects.sound(held) and all(objects.place(cache, one).is_file() for one in objects.listed(held))
