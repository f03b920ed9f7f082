"""Which stages of a project a DAG runs: names, globs, folders and outs, with what is above and below them.

    train            a stage, or every item of the matrix or foreach `train`
    train@*-large    a glob over names
    sub              all pipelines in a folder; sub/dvc.yaml: one of them
    data/table.csv   the stage that makes an out, or whatever lies in it
    +train  train+   with all stages above, or below; 2+train, train+1: so many steps

A stage that is not selected counts as frozen: it does not run, and what it made last is what others read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from dvc_engine.pipeline.project import Project, ProjectError, inside, of

SELECTOR = re.compile(r"(?:(\d*)(\+))?(.*?)(?:(\+)(\d*))?", re.DOTALL)


def narrowed(project: Project, select: Sequence[str], exclude: Sequence[str]) -> Project:
    """The project with what is not selected frozen.

    Args:
        select: selectors, of which a stage matches one; none selects every stage.
        exclude: selectors, of which it matches none.

    Raises:
        ProjectError: a selector finds no stage, or nothing is left.
    """
    if not select and not exclude:
        return project
    chosen = _all(project, select) if select else set(project.stages)
    chosen -= _all(project, exclude)
    if not chosen:
        raise ProjectError(f"no stage is left of select={list(select)} and exclude={list(exclude)}; name one more")
    return of(
        one if one.name in chosen or one.name in project.data else replace(one, frozen=True, selected=False)
        for one in project.every
    )


def _all(project: Project, selectors: Iterable[str]) -> set[str]:
    return {name for selector in selectors for name in _find(project, selector)}


def _find(project: Project, selector: str) -> set[str]:
    """The stages that one selector names."""
    matched = SELECTOR.fullmatch(selector.strip())
    assert matched is not None  # every text is one
    up, above, core, below, down = matched.groups()
    found = _named(project, core)
    if not found:
        import difflib

        near = difflib.get_close_matches(core, [*project.stages, *(name.partition("@")[0] for name in project.stages)])
        meant = f"; did you mean {near[0]}?" if near else "; `python -m dvc_airflow graph` lists the stages"
        raise ProjectError(f"{selector!r} selects no stage{meant}")
    wider = set(found)
    if above:
        wider |= _reach(found, {name: project.upstream(name) for name in project.stages}, up)
    if below:
        wider |= _reach(found, _downstream(project), down)
    return wider


def _named(project: Project, core: str) -> set[str]:
    """The stages that a name, a group's name, a folder, a pipeline's file, an out or a glob stands for."""
    names, path = set(project.stages), core.rstrip("/")
    if not path:
        return set()
    if found := {name for name in names if core in (name, name.partition("@")[0])}:
        return found
    files = {name: PurePosixPath(one.file) for name, one in project.stages.items()}
    if found := {name for name, file in files.items() if str(file) == path or file.parent.is_relative_to(path)}:
        return found
    makers = {name for out, name in project.makers.items() if inside(out, path)}
    makers |= {project.makers[str(one)] for one in PurePosixPath(path).parents if str(one) in project.makers}
    return makers & names or {name for name in names if fnmatchcase(name, core)}


def _downstream(project: Project) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in project.stages}
    for name in project.stages:
        for above in project.upstream(name):
            found[above].append(name)
    return found


def _reach(start: set[str], edges: Mapping[str, Sequence[str]], steps: str) -> set[str]:
    """What can be reached in so many steps; in any number where that is ""."""
    seen, edge, left = set(start), set(start), int(steps) if steps else len(edges)
    while edge and left > 0:
        edge = {to for name in edge for to in edges[name]} - seen
        seen |= edge
        left -= 1
    return seen
