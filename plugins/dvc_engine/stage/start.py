"""What a night starts from: an entry of every stage, where all that it reads is to be had; else it is refused."""

from __future__ import annotations

import posixpath
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from typing import Any

from dvc_engine.git import GITLINK, GitError, named
from dvc_engine.pipeline import refusals
from dvc_engine.pipeline.lock import Entry, hashes
from dvc_engine.pipeline.project import Project, Stage, inside, outside, within
from dvc_engine.stage import plan
from dvc_engine.store import history, uncached, workspace
from dvc_engine.store.commit import BEYOND, Commit
from dvc_engine.store.repository import Repository
from dvc_engine.store.snapshot import Refused


def known(project: Project, commit: Commit, record: Repository) -> tuple[history.Known, dict[str, Entry]]:
    """What a night starts from, and `Night.nearest`. Raises Refused where it cannot start."""
    if lacks := lacking(project, commit):
        raise Refused(lacks)
    found = history.newest(record, commit, project)
    nearest = _nearest(project, commit, found)
    if unknown := never(project, found) or _gone(project, found, nearest, commit):
        raise Refused(unknown)
    return found, nearest


def _nearest(project: Project, commit: Commit, known: history.Known) -> dict[str, Entry]:
    """Of each stage that does not run tonight the newest entry of what this commit has it read; none for its newest.

    That may be another branch's, or of a trial with other params.
    """
    cache, held, found = workspace.cache_of(commit.repository / commit.folder), dict[str, str](), dict[str, Entry]()
    if not any(one.frozen for one in project.stages.values()):
        return found
    for name in project.order:
        stage, entries = project.stages[name], [entry for entry, _ in known.get(name, [])]
        made = {dep: plan.UNTOLD for dep in [*stage.deps, *stage.params] if _lies_in(dep, held)}
        made |= {**project.tracked(name), **held}
        if not stage.frozen:  # it runs, but where its result is known already
            same = next((one for one in entries if plan.unchanged(stage, one, made, commit, cache)), {})
            held |= dict.fromkeys((out.path for out in stage.outs), plan.UNTOLD) | hashes(stage, same, "outs")
            continue
        if len(entries) > 1 and not stage.imported:
            rank = [plan.rank(plan.reads(stage, one, made, commit, cache)) for one in entries]
            if best := rank.index(max(rank)):
                found[name] = entries[best]
        held |= hashes(stage, found.get(name) or next(iter(entries), {}), "outs")
    return found


def lacking(project: Project, commit: Commit) -> str | None:
    """A sentence about the first dep, param or folder to work in that nobody has at this commit; None for none.

    A dep is there where Git or DVC has it, or a stage makes it; a folder where Git has it, or the stage reads from it.
    """
    modes = {_here(path, commit.folder): mode for path, mode in commit.modes.items()}
    bare = _bare(commit)
    committed, held = _with_folders(modes), _with_folders([*(modes.keys() - bare), *project.makers])
    beyond = {path for path, mode in modes.items() if mode in BEYOND and path not in bare}
    for stage in (one for one in project.stages.values() if not one.frozen and not one.imported):
        if apart := _apart(stage, commit, bare, project.makers):
            return apart
        for dep in (one for one in stage.deps if not outside(one) and one not in held):
            if _lies_in(dep, project.makers) or _lies_in(dep, beyond):
                continue
            return f"{_at(stage, commit, 'deps')} depends on {dep}: {_why_lacking(dep, held, commit, stage.wdir)}"
        if led := _led(stage, commit, committed, project.makers):
            return led
        for file, keys in stage.params.items():
            if outside(file) or _lies_in(file, project.makers) or _lies_in(file, beyond):
                continue
            if file not in committed:
                do = "commit it" if (commit.repository / commit.folder / file).exists() else "write and commit it"
                return f"{_at(stage, commit, 'params')} reads {file}, which Git does not have; {do}"
            if (key := _unknown(commit.params(file), keys)) is not None:
                what = f"reads {key} of {file}, which has no such key; write it there"
                return f"{_at(stage, commit, 'params')} {what}"
        wdir = stage.wdir
        if wdir == "." or wdir in committed or outside(wdir):
            continue
        if not any(inside(one, wdir) or inside(wdir, one) for one in [*beyond, *stage.deps]):
            what = f"works in {wdir}, a folder that Git does not have; put a file into it, and commit that"
            return f"{_at(stage, commit, 'wdir')} {what}"
    return None


def _bare(commit: Commit) -> set[str]:
    """Repositories in this one that Git has as a commit's name alone: no clone has what lies there."""
    found = {path for path, mode in commit.modes.items() if mode == GITLINK}
    if found:
        with suppress(GitError):  # there is no such file, or it names none
            found -= set(named(commit.repository, "--blob", f"{commit.commit}:.gitmodules").values())
    return {_here(path, commit.folder) for path in found}


def _apart(stage: Stage, commit: Commit, bare: set[str], makers: Container[str]) -> str | None:
    """A sentence about what a stage reads, or works in, of one of these repositories; None for none."""
    for key, paths in {"deps": stage.deps, "params": stage.params, "wdir": [stage.wdir]}.items():
        for path in (one for one in paths if not _lies_in(one, makers)):
            for one in (one for one in bare if one in within(path) or (key == "deps" and inside(one, path))):
                what = f"{one} is a repository of its own, which no .gitmodules names"
                do = f"`git submodule add --force URL {one}` with its address, and commit that"
                return f"{_at(stage, commit, key)} needs {path}: {what}; {do}"
    return None


def _led(stage: Stage, commit: Commit, committed: set[str], makers: Container[str]) -> str | None:
    """A sentence about the first dep that a link of Git's leads to what no clone has; None for none.

    DVC has what a dep names brought, and not what a link leads to; in a checkout that may lie there already.
    """
    for dep in (one for one in stage.deps if not outside(one) and not _lies_in(one, makers)):
        to = commit.behind(dep)
        if to is None or to in (dep, ".") or to in committed or _lies_in(to, _modules(commit)):
            continue
        if any(inside(to, one) or inside(one, to) for one in stage.deps):  # which brings it
            continue
        what = f"{_at(stage, commit, 'deps')} depends on {dep}, which by a link in Git is {to}"
        if _lies_in(to, makers):
            return f"{what}, and a night brings only what a dep names; name {to} as the dep"
        return f"{what}: {_why_lacking(to, committed, commit)}"
    return None


def _modules(commit: Commit) -> set[str]:
    """What Git has of other repositories: it does not list what lies there."""
    return {_here(path, commit.folder) for path, mode in commit.modes.items() if mode == GITLINK}


def _at(stage: Stage, commit: Commit, key: str) -> str:
    """A stage, with file and line of what stands there at a key."""
    line = refusals.line(commit.content(stage.file) or b"", ["stages", stage.key, key])
    return f"{stage.file}:{line}: stage {stage.name}"


def _here(path: str, folder: str) -> str:
    """A path in the repository, from the project's folder."""
    return posixpath.relpath(path, folder) if folder else path


def _lies_in(path: str, folders: Container[str]) -> bool:
    """Whether a path is one of these, or lies in one."""
    return any(one in folders for one in within(path))


def _unknown(values: Any, keys: Iterable[str]) -> str | None:
    """The first of these dotted keys that a params file does not have, by DVC's rule; None where it has all."""
    import dpath

    for key in keys if isinstance(values, Mapping) else []:
        try:
            if plan.value(values, key) is plan.NOTHING:
                dpath.get(values, key, separator=".")  # it takes patterns too
        except KeyError:
            return key
        except ValueError:  # several
            continue
    return None


def _why_lacking(dep: str, held: set[str], commit: Commit, wdir: str = ".") -> str:
    """Why nobody has a dep, and what to do.

    Args:
        wdir: that it is named from.
    """
    root = commit.repository / commit.folder
    if f"{dep}.dvc" in held:
        if any(f"{folder}/.dvc" in held for folder in within(dep)):
            return f"it is data of another DVC project of this repository ({dep}.dvc); `dvc import` it into this one"
        what = f"DVC passes over {dep}.dvc, for a .gitignore or .dvcignore names it or its folder, though Git has it"
        return f"{what}; name the data alone there, as `dvc add` does"
    if (root / f"{dep}.dvc").exists():
        return f"Git ignores {dep}.dvc, which tracks it; take that out of .gitignore, and commit it"
    if (root / dep).exists():
        return f"it is in neither Git nor DVC; `dvc add {dep}`"
    what = "it is not there, and no stage makes it"
    if "\\" in dep:
        return f"{what}; its backslashes are letters of a file's name here, write slashes"
    if (written := posixpath.relpath(dep, wdir)) in held and written != dep:
        return f"{what}; paths are from {wdir}, so write {posixpath.relpath(written, wdir)}"
    return f"{what}; put it there and `dvc add` or commit it, or take it out"


def never(project: Project, known: Container[str]) -> str | None:
    """A sentence about the first stage that tonight does not run, is read, and never ran; None for none."""
    read = {above for one in project.selected if not one.frozen for above in project.upstream(one.name)}
    for stage in project.stages.values():
        if stage.name in known or not stage.frozen or not (stage.selected or stage.name in read):
            continue
        what, mend = ("frozen", "`dvc unfreeze` it") if stage.selected else ("not selected", "select it too")
        return f"{stage.name} is {what}, and no commit says what it made; run it once, or {mend}"
    return None


def _gone(project: Project, known: history.Known, nearest: Mapping[str, Entry], commit: Commit) -> str | None:
    """A sentence about the first frozen stage of which a file that DVC does not cache is nowhere; None for none.

    Args:
        nearest: as of a Night.
    """
    root = commit.repository / commit.folder
    if workspace.remote_of(root):  # it may be there
        return None
    for stage in (one for one in project.selected if one.frozen and not one.imported):
        committed = _with_folders(_here(path, commit.folder) for path in commit.modes)
        lost = [path for path in stage.uncached if not outside(path) and path not in committed]
        entry, came = next(one for one in known[stage.name] if one[0] == nearest.get(stage.name, one[0]))
        source = Commit(commit.repository, came, commit.folder)
        if lost and not uncached.had(stage, entry, source.content, workspace.cache_of(root)):
            what = f"{stage.name} is frozen, and {lost[0]}, which DVC does not cache, is in no commit"
            return f"{what}; `dvc unfreeze` it for a night, or commit that"
    return None


def _with_folders(paths: Iterable[str]) -> set[str]:
    """These paths, and every folder above one."""
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = posixpath.dirname(path)
    return found
