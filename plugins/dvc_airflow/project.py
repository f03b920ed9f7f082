"""Read dvc.yaml and its params into plain dataclasses.

Templates, foreach and matrix are expanded by DVC's own resolver; edges come from paths by prefix. `index.graph` and
`dvc dag` are not used: they are quadratic (47 s at 2,000 stages). The result is cached by the hash of what was
read, so that a parse with nothing new does not import DVC.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

VERSION = 2  # of the cached form
KINDS = ("outs", "metrics", "plots")
AIRFLOW = ("pool", "slots", "retries")  # keys of a stage's `meta.airflow`


class ProjectError(Exception):
    """dvc.yaml cannot be used as it is: what, where, what to do."""


@dataclass(frozen=True)
class Out:
    """A path that a stage makes. `cached` is False for what Git or nobody keeps; `kind` is outs, metrics or plots."""

    path: str
    kind: str
    cached: bool


@dataclass(frozen=True)
class Stage:
    """One stage after expansion.

    `name` is DVC's address ('system@plain'); `params` is file → keys, where no keys mean the whole file.
    """

    name: str
    cmd: str | list[str]
    deps: tuple[str, ...]
    outs: tuple[Out, ...]
    params: Mapping[str, list[str]]
    always_changed: bool
    desc: str
    meta: Mapping[str, Any]

    @property
    def airflow(self) -> Mapping[str, Any]:
        """`meta.airflow`: pool, slots and retries, those that it names."""
        return dict(self.meta.get("airflow") or {})

    @property
    def pool(self) -> str:
        """The pool that its task takes slots of: Airflow's own where it names none."""
        return str(self.airflow.get("pool", "default_pool"))

    @property
    def slots(self) -> int:
        """How many it takes."""
        return int(self.airflow.get("slots", 1))


@dataclass(frozen=True)
class Project:
    """All stages of one dvc.yaml, in its order."""

    stages: Mapping[str, Stage]

    @cached_property
    def makers(self) -> Mapping[str, str]:
        """Out path → the stage that makes it."""
        return {out.path: stage.name for stage in self.stages.values() for out in stage.outs}

    def upstream(self, name: str) -> list[str]:
        """Stages that make what `name` reads, in the order of its deps: a dep lies in an out, or an out in a dep."""
        return list(self._above[name])

    @cached_property
    def _above(self) -> Mapping[str, list[str]]:
        """`upstream` of every stage; asked for a thousand times when a DAG is made."""
        return {name: self._makers_of(name) for name in self.stages}

    def _makers_of(self, name: str) -> list[str]:
        found: dict[str, None] = {}
        for dep in self.stages[name].deps:
            for path in [dep, *map(str, PurePosixPath(dep).parents)]:
                if path in self.makers:
                    found[self.makers[path]] = None
            inside = f"{dep}/"
            found |= {maker: None for path, maker in self.makers.items() if path.startswith(inside)}
        found.pop(name, None)
        return list(found)

    def ancestors(self, name: str) -> list[str]:
        """Every stage that `name` rests on, each after what it rests on itself."""
        seen: dict[str, None] = {}

        def visit(one: str) -> None:
            for above in self.upstream(one):
                if above not in seen:
                    visit(above)
                    seen[above] = None

        visit(name)
        return list(seen)

    @cached_property
    def order(self) -> list[str]:
        """All stages in the order in which DVC itself writes dvc.lock: post-order over deps."""
        seen: dict[str, None] = {}
        for name in self.stages:
            seen |= dict.fromkeys([*self.ancestors(name), name])
        return list(seen)

    @cached_property
    def shape(self) -> str:
        """Hash of what the scheduler's tasks depend on: names, edges, outs, meta; no commands, no values."""
        parts = [[s.name, self.upstream(s.name), [asdict(o) for o in s.outs], s.meta] for s in self.stages.values()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def read(root: Path, cache: Path | None = None) -> Project:
    """The project at `root`. Raises ProjectError with what is wrong."""
    if not (root / "dvc.yaml").is_file():
        raise ProjectError(f"{root}: no dvc.yaml there; run in a DVC project")
    key = _key(root)
    known = cache / f"{key}.json" if cache else None
    if known and known.is_file():
        return loads(known.read_text(encoding="utf-8"))
    stages = _expand(root)
    project = Project({name: _stage(name, body) for name, body in stages.items()})
    _refuse_folders(project)
    _refuse_unknown(project)
    if known:
        _keep(project, known)
    return project


def _keep(project: Project, known: Path) -> None:
    """Keep what was read; where that cannot be written, it is read again another time."""
    draft = known.with_suffix(".draft")
    with suppress(OSError):
        known.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(dumps(project), encoding="utf-8")
        draft.replace(known)


def kept(root: Path) -> Path:
    """Where what was read of the checkout at `root` is kept."""
    return root / ".dvc" / "tmp" / "projects"


def _key(root: Path) -> str:
    """Hash of everything that expansion reads: dvc.yaml, and the files that its `vars` name."""
    file, files = root / "dvc.yaml", ["params.yaml"]
    try:
        text = file.read_bytes()
        document = YAML(typ="safe").load(text)
    except OSError as error:
        raise ProjectError(f"{file}: it cannot be read ({error.strerror}); check its permissions") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ProjectError(f"{file}:{mark.line + 1 if mark else 1}: not YAML: {said}; mend the syntax there") from None
    named = document.get("vars") if isinstance(document, Mapping) else None
    for entry in named if isinstance(named, list) else []:
        if isinstance(entry, str):
            files.append(entry.partition(":")[0])
    parts = [str(VERSION).encode(), text]
    parts += [(root / name).read_bytes() for name in files if (root / name).is_file()]
    return hashlib.sha256(b"\x00".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:24]


def _expand(root: Path) -> dict[str, dict[str, Any]]:
    from dvc.dvcfile import load_file
    from dvc.exceptions import DvcException
    from dvc.parsing import DataResolver
    from dvc.repo import Repo
    from dvc.utils.strictyaml import YAMLValidationError

    file = root / "dvc.yaml"
    try:
        with Repo(str(root)) as repo:
            document = load_file(repo, str(file)).load()
            resolved: dict[str, dict[str, Any]] | None = DataResolver(repo, str(root), document).resolve()["stages"]
    except YAMLValidationError as error:
        raise ProjectError(_against_schema(file, error.exc.errors[0])) from error
    except DvcException as error:
        raise ProjectError(f"{file}: {' '.join(str(error).split())}; mend it there") from error
    if not resolved:
        raise ProjectError(f"{file}: it has no stages; write one there")
    return resolved


def _against_schema(file: Path, wrong: Any) -> str:
    """What DVC's schema refuses, with the line."""
    from dvc.utils.strictyaml import determine_linecol

    line, *_ = determine_linecol(YAML().load(file.read_text(encoding="utf-8")), wrong.path)
    place = ".".join(map(str, wrong.path)) or "the file"
    return f"{file}:{line or 1}: {place}: {wrong.error_message}; mend it there"


def _stage(name: str, body: Mapping[str, Any]) -> Stage:
    outs = [_out(entry, kind) for kind in KINDS for entry in body.get(kind) or []]
    return Stage(
        name=name,
        cmd=body["cmd"],
        deps=tuple(body.get("deps") or ()),
        outs=tuple(sorted(outs, key=lambda out: out.path)),
        params=_params(body.get("params") or []),
        always_changed=bool(body.get("always_changed")),
        desc=str(body.get("desc") or ""),
        meta=body.get("meta") or {},
    )


def _out(entry: str | Mapping[str, Any], kind: str) -> Out:
    if isinstance(entry, str):
        return Out(entry, kind, True)
    (path, flags), *_ = entry.items()
    return Out(path, kind, bool((flags or {}).get("cache", True)))


def _params(entries: list[Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in entries:
        if isinstance(entry, str):
            found.setdefault("params.yaml", []).append(entry)
        else:
            for file, keys in entry.items():
                found.setdefault(file, []).extend(keys or [])
    return found


def _refuse_folders(project: Project) -> None:
    """A dep above several outs cannot be checked out alone, and its hash would count DVC's own .gitignore."""
    for stage in project.stages.values():
        for dep in stage.deps:
            below = [path for path in project.makers if path.startswith(f"{dep}/")]
            if len(below) > 1:
                raise ProjectError(
                    f"dvc.yaml: stage {stage.name} depends on {dep}, the folder above {', '.join(sorted(below))}; "
                    "name those outs instead"
                )


def _refuse_unknown(project: Project) -> None:
    """A key of `meta.airflow` that nothing obeys would be a setting that its writer believes in."""
    for stage in project.stages.values():
        said = stage.meta.get("airflow") or {}
        unknown = [str(key) for key in said if key not in AIRFLOW] if isinstance(said, Mapping) else [str(said)]
        if unknown:
            raise ProjectError(
                f"dvc.yaml: stage {stage.name}: meta.airflow has an unknown key {unknown[0]}; "
                f"name one of {', '.join(AIRFLOW)}"
            )


def dumps(project: Project) -> str:
    """The project as JSON, for the cache and for the tasks of a night."""
    return json.dumps([asdict(stage) for stage in project.stages.values()], default=str)


def loads(text: str) -> Project:
    """The project that `dumps` wrote."""
    made = [
        Stage(**body | {"deps": tuple(body["deps"]), "outs": tuple(Out(**out) for out in body["outs"])})
        for body in json.loads(text)
    ]
    return Project({stage.name: stage for stage in made})


def main(root: Path) -> int:
    """Read a project as its DAG does, and say what is wrong; returns 2 when something is (1 is a traceback's)."""
    try:
        read(root, kept(root))
    except ProjectError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
