"""A DVC project as plain data: its stages, and which rests on which.

What makes one of a repository is reading.py; what a task of a night is told is `dumps` of it.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from dvc_engine.pipeline.meta import Meta, told

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"
NOTHING = told({}, False)  # most stages say nothing, and each parse asks all of them


class ProjectError(Exception):
    """dvc.yaml cannot be used as it is: what, where, what to do."""


def outside(path: str) -> bool:
    """Whether a dep or an out lies where every clone finds the same: at a URL, or an absolute path."""
    return "://" in path or path.startswith("/")


def inside(path: str, folder: str) -> bool:
    """Whether a path is this folder, or lies in it."""
    return path == folder or path.startswith(f"{folder}/")


def within(path: str) -> list[str]:
    """A path, and every folder that it lies in."""
    return [path, *map(str, PurePosixPath(path).parents)]


@dataclass(frozen=True)
class Out:
    """A path that a stage makes.

    Args:
        path: relative to the project, else as DVC names it.
        kind: outs, metrics or plots.
        cached: False for what Git or nobody keeps.
        persist: whether it is there when the stage begins, as it was left.
        md5: of data that a `.dvc` file tracks; "" for what a stage makes.
    """

    path: str
    kind: str = "outs"
    cached: bool = True
    persist: bool = False
    md5: str = ""


@dataclass(frozen=True)
class Stage:
    """One stage after expansion, or the data of one `.dvc` file.

    Args:
        name: DVC's address from the project's folder: 'system@plain', 'sub/dvc.yaml:train', 'data.csv.dvc'.
        cmd: None for data that nothing makes.
        deps: paths as of `Out`.
        params: file → keys, where no keys mean the whole file.
        file: that it stands in; `wdir`, the folder that its paths and its command are relative to.
        above: names of stages that make what it reads, in the order of its deps.
        selected: whether it runs; one that does not is frozen, and its newest entry counts.
    """

    name: str
    cmd: str | list[str] | None
    deps: tuple[str, ...] = ()
    outs: tuple[Out, ...] = ()
    params: Mapping[str, list[str]] = field(default_factory=dict)
    always_changed: bool = False
    desc: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)
    file: str = PIPELINE
    wdir: str = "."
    frozen: bool = False
    above: tuple[str, ...] = ()
    selected: bool = True

    @property
    def imported(self) -> bool:
        """Whether a `.dvc` file fetches it, and no command makes it."""
        return PurePosixPath(self.file).name != PIPELINE

    @property
    def lock(self) -> str:
        """The file that its entry stands in: the dvc.lock beside its dvc.yaml, or its own `.dvc` file."""
        return self.file if self.imported else str(PurePosixPath(self.file).with_name(LOCK))

    @property
    def uncached(self) -> list[str]:
        """Outs that DVC keeps no object of, and that another clone does not find where they are."""
        return [out.path for out in self.outs if not out.cached and not outside(out.path)]

    @property
    def cached(self) -> list[str]:
        """Outs in the repository that DVC keeps, and Git is to ignore."""
        return [out.path for out in self.outs if out.cached and not outside(out.path)]

    @property
    def key(self) -> str:
        """Its name there."""
        return self.name.removeprefix(f"{self.file}:")

    @property
    def target(self) -> str:
        """What DVC takes for it: of a name alone it does not tell whether a path is meant."""
        return self.file if self.imported else f"{self.file}:{self.key}"

    def at(self, path: str) -> str:
        """Where a path of its entry lies: relative to the project, as deps and outs are."""
        return path if outside(path) else posixpath.normpath(posixpath.join(self.wdir, path))

    @property
    def goes_on(self) -> bool:
        """Whether it goes on in what it made last."""
        return any(out.persist for out in self.outs)

    @property
    def updates(self) -> bool:
        """Whether it is an import that each night fetches anew."""
        said = self.meta.get("airflow")
        return self.imported and isinstance(said, Mapping) and said.get("update") is True

    @cached_property
    def airflow(self) -> Meta:
        """Its `meta.airflow`. Raises meta.Wrong."""
        said = self.meta.get("airflow")
        return NOTHING if said is None else told(said, self.imported)


@dataclass(frozen=True)
class Project:
    """All stages of a project, in DVC's order.

    Args:
        stages: of dvc.yaml files, by name, and of `.dvc` files whose `meta.airflow` has `update: true`.
        data: of other `.dvc` files: what is tracked, or imported from elsewhere; nothing runs.
    """

    stages: Mapping[str, Stage]
    data: Mapping[str, Stage]

    @property
    def every(self) -> list[Stage]:
        """Stages and data."""
        return [*self.stages.values(), *self.data.values()]

    @cached_property
    def makers(self) -> Mapping[str, str]:
        """Out path → the stage that makes it; data first, then stages in the order in which DVC runs them."""
        every = [*self.data.values(), *(self.stages[name] for name in self.order)]
        return {out.path: stage.name for stage in every for out in stage.outs}

    @property
    def selected(self) -> list[Stage]:
        """The stages that run."""
        return [one for one in self.stages.values() if one.selected]

    @property
    def whole(self) -> bool:
        """Whether all stages run: a night of some alone is no release."""
        return all(one.selected for one in self.stages.values())

    def upstream(self, name: str) -> list[str]:
        """Stages that make what `name` reads, in the order of its deps: a dep lies in an out, or an out in a dep."""
        return [one for one in self.stages[name].above if one in self.stages]

    def tracked(self, name: str) -> Mapping[str, str]:
        """Path → md5 of tracked data that `name` reads; "" for what DVC 2 hashed, which only DVC can tell of."""
        read = [self.data[one] for one in self.stages[name].above if one in self.data]
        return {out.path: out.md5 for one in read for out in one.outs if out.cached}

    @cached_property
    def order(self) -> list[str]:
        """All stages in the order in which DVC itself writes dvc.lock: post-order over deps."""
        seen: dict[str, None] = {}
        for name in self.stages:
            self._visit(name, seen)
        return list(seen)

    def _visit(self, name: str, seen: dict[str, None]) -> None:
        """Add what is not seen yet of a stage and all that it rests on, itself last."""
        path = [(name, iter(self.upstream(name)))]  # no recursion: a chain may be thousands of stages long
        while path:
            one, rest = path[-1]
            if (above := next((each for each in rest if each not in seen), None)) is not None:
                path.append((above, iter(self.upstream(above))))
                continue
            path.pop()
            seen[one] = None

    @cached_property
    def shape(self) -> str:
        """Hash of what the scheduler's tasks depend on: names, edges, outs, meta; no commands, no values."""
        parts = [[s.name, self.upstream(s.name), [vars(o) for o in s.outs], s.meta] for s in self.selected]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def dumps(project: Project) -> str:
    """The project as JSON, for the tasks of a night."""
    return json.dumps(plain(project))


def loads(text: str) -> Project:
    """The project that `dumps` wrote."""
    return of_plain(json.loads(text))


def plain(project: Project) -> list[dict[str, Any]]:
    """The project as JSON's values; what most stages have is left out."""
    return [_plain(stage) | {"outs": [_plain(out) for out in stage.outs]} for stage in project.every]


def of_plain(said: Iterable[Mapping[str, Any]]) -> Project:
    """The project that `plain` gave."""
    return of(_stage(**body) for body in said)


def _stage(
    *, outs: Iterable[Mapping[str, Any]], deps: Iterable[str] = (), above: Iterable[str] = (), **body: Any
) -> Stage:
    return Stage(**body, outs=tuple(Out(**one) for one in outs), deps=tuple(deps), above=tuple(above))


def of(every: Iterable[Stage]) -> Project:
    """The project of these stages and data."""
    stages, data = dict[str, Stage](), dict[str, Stage]()
    for one in every:
        (data if one.imported and not one.updates else stages)[one.name] = one
    return Project(stages, data)


def _plain(one: Stage | Out) -> dict[str, Any]:
    return {name: value for name, usual in _USUAL[type(one)].items() if (value := getattr(one, name)) != usual}


def _usual(kind: type[Any]) -> dict[str, Any]:
    """Field → its default."""
    return {one.name: one.default if one.default_factory is MISSING else one.default_factory() for one in fields(kind)}


_USUAL = {kind: _usual(kind) for kind in (Stage, Out)}
