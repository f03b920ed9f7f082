"""Read any DVC project into plain dataclasses: whatever DVC accepts is read as DVC reads it, by its own index.

Its graph is not asked for: DVC looks for cycles in quadratic time (47 s at 2,000 stages). Edges come from its trie of
outs by its own rule, cycles from graphlib. What was read is kept under the hash of every file that stages came from or
that the repository hides others by, so that a parse with nothing new imports nothing of DVC, and no YAML reader.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

from dvc_engine.git import shown
from dvc_engine.pipeline import kept, refusals
from dvc_engine.pipeline.project import PIPELINE, Out, Project, ProjectError, Stage, of, of_plain, plain

VERSION = 10  # of the kept form
PARAMS = "params.yaml"
EXCLUDED = ".git/info/exclude"
IGNORED = (".gitignore", ".dvcignore")  # by Git, even what it has, is not looked at by DVC


def read(root: Path, cache: Path | None = None) -> Project:
    """The project at `root`, the folder with `.dvc`. Raises ProjectError with what is wrong, where, and what to do.

    Args:
        cache: where it is kept (kept.py); None to read it anew.
    """
    files = _files(root)
    name = _hash(root, files)
    said: Any = kept.read(cache, name) if cache else None
    with suppress(KeyError, TypeError):
        if _hash(root, said["read"]) == said["hash"]:  # the values that it was read with are still those
            return of_plain(said["stages"])
    began = time.time_ns()
    project = of(_stages(root))
    read_too = _read_too(root, files, project)
    _refuse_cycles(root, project)
    if cache and not _written_since(began, root, [*files, *read_too]):
        kept.write(cache, name, {"read": read_too, "hash": _hash(root, read_too), "stages": plain(project)})
    return project


def document(path: Path) -> Mapping[str, Any]:
    """A pipeline or a params file as it stands; empty for what is no mapping.

    Raises ProjectError for one that cannot be read or is no YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        said = YAML(typ="safe").load(path.read_bytes())
    except OSError as error:
        raise ProjectError(f"{path}: it cannot be read ({error.strerror}); check its permissions") from None
    except (YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        said, at = getattr(error, "problem", None) or " ".join(str(error).split()), mark.line if mark else 0
        quoted = b"${" in b"".join(path.read_bytes().splitlines()[at : at + 1])
        do = "write what has ${…} in quotes" if quoted else "mend the syntax there"
        raise ProjectError(f"{path}:{at + 1}: not YAML: {said}; {do}") from None
    return said if isinstance(said, Mapping) else {}


def refuse_nothing(root: Path) -> None:
    """Raises ProjectError where no DVC project is."""
    if not (root / ".dvc").is_dir():
        raise ProjectError(f"{root}: no DVC project is there; go into the folder with .dvc, or `dvc init` one")


def _files(root: Path) -> list[str]:
    """Every file that DVC may take stages from, or pass over others for, by path.

    What Git ignores DVC does not look at either.
    """
    refuse_nothing(root)
    asked = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    asked += ["*.dvc", *(f"*{one}" for one in (PIPELINE, *IGNORED))]
    listed = subprocess.run(asked, capture_output=True, check=False)
    if listed.returncode != 0:
        if any((folder / ".git").exists() for folder in (root, *root.resolve().parents)):  # another user's, say
            said = " ".join(os.fsdecode(listed.stderr).split())
            raise ProjectError(f"{root}: Git refuses this folder: {shown(said)}")
        bundle = (
            "; a Git bundle of Airflow's knows it with `prune_dotgit_folder: false`" if "versions" in root.parts else ""
        )
        raise ProjectError(
            f"{root}: Git does not know this folder; `git init` there, and commit what is to run{bundle}"
        )
    names = {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name} | {".dvc/config", *_above(root)}
    return sorted(name for name in names if _is_read(name) and (root / name).is_file())


def _is_read(name: str) -> bool:
    whole = name == ".dvc/config" or name.endswith(EXCLUDED)
    return whole or name.endswith(".dvc") or PurePosixPath(name).name in (PIPELINE, *IGNORED)


def _above(root: Path) -> Iterable[str]:
    """What Git ignores by the folders above a project, up to its repository's, and in this checkout alone."""
    folder, up = root.resolve(), ""
    while not (folder / ".git").exists() and folder != folder.parent:
        folder, up = folder.parent, f"../{up}"
        yield f"{up}.gitignore"
    yield f"{up}{EXCLUDED}"


def _hash(root: Path, files: Iterable[str]) -> str:
    """Of these files, their names and this reader."""
    parts = [f"{VERSION}"]
    for name in files:
        with suppress(OSError):
            parts += [name, hashlib.sha256((root / name).read_bytes()).hexdigest()]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:24]


def _written_since(began: int, root: Path, names: Iterable[str]) -> bool:
    """Whether one of these files is newer than that, in nanoseconds: another content was read than its hash is of."""
    for name in names:
        with suppress(OSError):
            if (root / name).stat().st_mtime_ns >= began:
                return True
    return False


def _read_too(root: Path, files: Iterable[str], project: Project) -> list[str]:
    """Files that templates of these may take values from, whether they are there or not."""
    folders: dict[tuple[str, str], set[str]] = {}  # file and stage as written → where it turned out to run
    for stage in project.stages.values():
        folders.setdefault((stage.file, stage.key.partition("@")[0]), set()).add(stage.wdir)
    found: dict[str, None] = {}
    for name in (one for one in files if PurePosixPath(one).name == PIPELINE):
        with suppress(ProjectError):  # one that DVC does not look at
            said = document(root / name)
            found |= _named(said, str(PurePosixPath(name).parent))
            stages = said.get("stages")
            for key, body in stages.items() if isinstance(stages, Mapping) else []:
                for folder in folders.get((name, str(key)), ()):
                    found |= _named(body, folder)
    return list(found)


def _named(body: Any, folder: str) -> dict[str, None]:
    """The files that a pipeline's, or a stage's, `vars` name, and the one that is read without being named."""
    body = body.get("do", body) if isinstance(body, Mapping) else {}
    named = [one.partition(":")[0] for one in body.get("vars") or [] if isinstance(one, str)]
    return {os.path.normpath(PurePosixPath(folder) / one): None for one in [PARAMS, *named]}


def _stages(root: Path) -> list[Stage]:
    """Every stage, in DVC's own order. Raises ProjectError for what DVC refuses, in a sentence."""
    from dvc.repo import Repo
    from dvc.utils.serialize import YAMLFileCorruptedError

    real = root.resolve()  # what is kept serves whatever link one came by
    try:
        with Repo(str(real)) as repo:
            if repo.config["core"].get("no_scm"):
                what = "core.no_scm is set, and a night is of a commit"
                raise ProjectError(f"{root}/.dvc/config: {what}; `dvc config core.no_scm false` and commit to Git")
            return [_stage(real, one, above) for one, above in _edges(repo.index).items()]
    except ProjectError:
        raise
    except YAMLFileCorruptedError as error:
        document(root / os.path.relpath(Path(error.path).resolve(), real))  # says where, in fewer words
        raise ProjectError(refusals.sentence(error, root)) from error
    except Exception as error:
        raise ProjectError(refusals.sentence(error, root)) from error


def _edges(index: Any) -> dict[Any, list[Any]]:
    """Stage → the stages that make what it reads, by the rule of DVC's build_graph, in the order of its deps."""
    from dvc.dependency import DatasetDependency
    from dvc.exceptions import StagePathAsOutputError
    from dvc.fs import localfs

    trie, found = index.outs_trie, dict[Any, list[Any]]()
    for stage in index.stages:
        if around := trie.shortest_prefix(localfs.parts(stage.path)):
            raise StagePathAsOutputError(stage, str(around.value))
        above: dict[Any, None] = {}
        for dep in [] if stage.is_repo_import or stage.is_db_import else stage.deps:
            if isinstance(dep, DatasetDependency):
                continue
            key = dep.fs.parts(dep.fs_path)
            above |= {step.value.stage: None for step in trie.prefixes(key)}
            if trie.has_subtrie(key):
                above |= {out.stage: None for out in trie.values(prefix=key)}
        found[stage] = list(above)
    return found


def _stage(root: Path, stage: Any, above: Iterable[Any]) -> Stage:
    from dvc.dependency import ParamsDependency

    place = _placer(root)
    meta = stage.meta if isinstance(stage.meta, Mapping) else {}  # DVC takes anything
    deps = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
    outs = [Out(place(out), _kind(out), bool(out.use_cache), bool(out.persist), _md5(out)) for out in stage.outs]
    return Stage(
        name=_name(root, stage),
        cmd=stage.cmd,
        deps=tuple(place(dep) for dep in deps),
        outs=tuple(outs),  # in the order in which DVC ignores them
        params={place(dep): list(dep.params) for dep in stage.deps if isinstance(dep, ParamsDependency)},
        always_changed=bool(stage.always_changed),
        desc=str(stage.desc or ""),
        meta=json.loads(json.dumps(meta, default=str)),  # a date, say, is a text
        file=_relative(root, stage.path),
        wdir=_relative(root, stage.wdir),
        frozen=bool(stage.frozen),
        above=tuple(_name(root, one) for one in above),
    )


def _placer(root: Path) -> Callable[[Any], str]:
    """Where an out or a dep lies: relative to the project, else as dvc.yaml names it."""

    def place(one: Any) -> str:
        if one.fs is None or one.protocol != "local":  # a data base has no file system
            return str(one)
        inside = Path(one.fs_path).is_relative_to(root)
        elsewhere = "://" in one.def_path or Path(one.def_path).is_absolute()
        return str(one.def_path) if elsewhere and not inside else _relative(root, one.fs_path)

    return place


def _kind(out: Any) -> str:
    return "metrics" if out.metric else "plots" if out.plot else "outs"


def _md5(out: Any) -> str:
    """What a `.dvc` file says of its data; "" where a stage makes it."""
    return str(out.hash_info.value or "") if out.stage.is_data_source and out.hash_info.name == "md5" else ""


def _name(root: Path, stage: Any) -> str:
    """DVC's address of a stage from the project's folder: 'train@a', 'sub/dvc.yaml:train', 'data.csv.dvc'."""
    from dvc.stage import PipelineStage

    file = _relative(root, stage.path)
    if not isinstance(stage, PipelineStage):
        return file
    return str(stage.name) if file == PIPELINE else f"{file}:{stage.name}"


def _relative(root: Path, path: str) -> str:
    return PurePosixPath(os.path.relpath(path, root)).as_posix()


def _refuse_cycles(root: Path, project: Project) -> None:
    try:
        TopologicalSorter({stage.name: stage.above for stage in project.every}).prepare()
    except CycleError as error:
        ring = error.args[1][:0:-1]
        first = ring.index(min(ring))
        ring = [*ring[first:], *ring[: first + 1]]
        one = {stage.name: stage for stage in project.every}[ring[0]]
        keys = ["deps"] if one.imported else ["stages", one.key]
        place = f"{root / one.file}:{refusals.line((root / one.file).read_bytes(), keys)}"
        what = f"stages rest on each other in a ring: {' → '.join(ring)}"
        raise ProjectError(f"{place}: {what}; take one dep out") from None
