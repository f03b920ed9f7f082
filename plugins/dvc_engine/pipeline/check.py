"""What DVC takes and a night cannot run, or would run otherwise than its writer believes: file, line, what to do."""

from __future__ import annotations

import posixpath
from pathlib import Path

from dvc_engine.git import top
from dvc_engine.pipeline import naming, reading, refusals, requirements
from dvc_engine.pipeline.meta import Wrong
from dvc_engine.pipeline.project import PIPELINE, Project, ProjectError, Stage, inside, outside

HASHES = {"md5", "etag", "checksum", "files", "cloud"}  # by one of which a `.dvc` file says what its data is


def refuse(root: Path, project: Project) -> None:
    """Raises ProjectError for the first thing that a night cannot run."""
    if not project.stages:
        data = f"{(count := len(project.data))} .dvc file{'s' * (count > 1)} and " if project.data else ""
        raise ProjectError(f"{root}: it has {data}no stages; write one in {PIPELINE} (`dvc stage add`)")
    _, folder = top(root)
    for stage in project.every:
        if not stage.imported:
            _refuse_empty(root, stage)
            _refuse_beside(root, stage, folder)
            _refuse_outside(root, stage)
        elif stage.updates:
            _refuse_source(root, stage, folder)
        elif any(stage.name in one.above for one in project.stages.values() if not one.frozen):
            _refuse_partial(root, stage)
        _refuse_meta(root, stage)
    for one, other, name in naming.twice(project):
        what = f"stages {one} and {other} would both be the task {name} in Airflow; call one otherwise"
        raise ProjectError(f"{_place(root, project.stages[other])}: {what}")


def _refuse_empty(root: Path, stage: Stage) -> None:
    """Of a command without words DVC says nothing until it runs it, and then not what is wrong."""
    every = stage.cmd if isinstance(stage.cmd, list) else [stage.cmd]
    if not all(isinstance(one, str) for one in every) or not "".join(map(str, every)).strip():
        raise ProjectError(f"{_place(root, stage, 'cmd')}: stage {stage.name}: its command is empty; write one")


def _refuse_partial(root: Path, stage: Stage) -> None:
    """What was imported with --no-download is only where that was, and may be another thing there by now."""
    if any(out.md5 for out in stage.outs):
        return
    outs = reading.document(root / stage.file).get("outs") or [{}]
    if not HASHES & set(outs[0]):
        do = f"`dvc update {stage.file}` and commit that, or give it `meta: {{airflow: {{update: true}}}}`"
        raise ProjectError(f"{_place(root, stage, 'outs')}: {stage.file} was imported without its data; {do}")


def _refuse_beside(root: Path, stage: Stage, folder: str) -> None:
    """What lies beside the repository lies beside a clone of it too, and that is another place."""
    for part, paths in [("deps", stage.deps), ("outs", [out.path for out in stage.outs]), ("params", stage.params)]:
        for path in paths:
            if not outside(path) and posixpath.normpath(posixpath.join(folder, path)).startswith("../"):
                what = f"{path} lies beside the repository, and a night runs in clones; name it by an absolute path"
                raise ProjectError(f"{_place(root, stage, part)}: stage {stage.name}: {what}")


def _refuse_source(root: Path, stage: Stage, folder: str) -> None:
    """What lies beside the repository is not beside a clone of it, a repository that is imported from neither."""
    (dep, *_) = reading.document(root / stage.file).get("deps") or [{}]
    said = str((dep.get("repo") or {}).get("url") or dep.get("path") or "")
    at = said if dep.get("repo") else stage.at(said)
    if ":" not in at and f"{posixpath.normpath(posixpath.join(folder, at))}/".startswith("../"):
        what = f"it imports from {said}, which lies beside the repository, and a night runs in clones"
        raise ProjectError(f"{_place(root, stage, 'deps')}: {stage.file}: {what}; name an absolute path, or a URL")


def _refuse_outside(root: Path, stage: Stage) -> None:
    for out in (one for one in stage.outs if one.cached and outside(one.path)):
        what = f"{out.path} lies outside the project, and DVC 3 keeps no such out; give it `cache: false`"
        raise ProjectError(f"{_place(root, stage, 'outs')}: stage {stage.name}: {what}, or a path in the project")


def _refuse_meta(root: Path, stage: Stage) -> None:
    try:
        _ = stage.airflow
    except Wrong as error:
        raise wrong(root, stage, error) from None
    if stage.airflow.venv:
        _refuse_venv(root, stage, stage.airflow.venv)


def _refuse_venv(root: Path, stage: Stage, needs: str) -> None:
    """What an environment rests on is read by the stage."""
    file = stage.at(needs)
    try:
        others = [posixpath.relpath(one, root) for one in requirements.rests_on(root / file)[1:]]
    except requirements.RequirementsError as error:
        raise wrong(root, stage, Wrong(("venv",), f"venv {needs}: {error}")) from None
    for path in [file, *others]:
        if not any(inside(path, dep) for dep in stage.deps):
            named = f"venv {needs}" if path == file else f"venv {needs} names {path}, which"
            what = f"{named} is not among its deps: add it, so that another one runs the stage again"
            raise wrong(root, stage, Wrong(("venv",), what))


def wrong(root: Path, stage: Stage, error: Wrong) -> ProjectError:
    """What is wrong in a stage's `meta.airflow`, with its line."""
    place = _place(root, stage, "meta", "airflow", *error.keys)
    return ProjectError(f"{place}: stage {stage.name}: meta.airflow: {error}")


def _place(root: Path, stage: Stage, *keys: str) -> str:
    """File and line of a stage, or of what stands at these keys in it."""
    above = [] if stage.imported else ["stages", stage.key]
    return f"{stage.file}:{refusals.line((root / stage.file).read_bytes(), [*above, *keys])}"
