"""What need not run: decided from lock entries, Git's blobs and the cache's file names, without importing DVC.

A stage is unchanged when its command, params and the hashes of its deps equal an entry, and every object of every
out is in the cache. What cannot be told so (a folder of Git files, a dep inside an out, a format of params that DVC
reads) is left to DVC in a clone with what the stage made last, which is slower. An always_changed stage never is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc_airflow.git import GitError, git
from dvc_airflow.pipeline import refusals
from dvc_airflow.pipeline.lock import Entry, hashes
from dvc_airflow.pipeline.project import Project, Stage, inside, outside, within
from dvc_airflow.store import history, objects, uncached, workspace
from dvc_airflow.store.commit import BEYOND, Commit, parsed
from dvc_airflow.store.repository import Repository
from dvc_airflow.store.snapshot import Refused

_NOTHING = object()
GITLINK = "160000"  # Git's mode of another repository's commit


def start(project: Project, commit: Commit, record: Repository) -> history.Known:
    """What a night starts from. Raises Refused where it cannot."""
    if lacks := lacking(project, commit):
        raise Refused(lacks)
    known = _of_this_commit(project, commit, history.newest(record, commit, project))
    if unknown := never(project, known.entries) or _gone(project, known, commit):
        raise Refused(unknown)
    return known


def _of_this_commit(project: Project, commit: Commit, known: history.Known) -> history.Known:
    """With, of each stage that does not run tonight, the newest entry of what this commit has it read, where one is.

    The newest of all may be another branch's, or of a trial with other params.
    """
    entries, came, older = dict(known.entries), dict(known.came), dict(known.older)
    cache, held = workspace.cache_of(commit.repository / commit.folder), dict[str, str]()
    for stage in (project.stages[name] for name in project.order if project.stages[name].frozen):
        if (name := stage.name) in older and not stage.imported:
            made = {**project.tracked(name), **held}
            candidates = [(entries[name], came[name]), *older[name]]
            rank = [_rank(_reads(stage, entry, made, commit, cache)) for entry, _ in candidates]
            entries[name], came[name] = candidates.pop(rank.index(max(rank)))
            older[name] = candidates
        held |= hashes(stage, entries.get(name) or {}, "outs")
    return history.Known(entries, came, older)


def _rank(told: list[bool | None]) -> int:
    """2 where all is the same, 1 where only DVC can tell, 0 where something is not."""
    return 0 if False in told else 1 if None in told else 2


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
            return f"{_at(stage, commit, 'deps')} depends on {dep}: {_why_lacking(dep, held, commit)}"
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
            blob = f"{commit.commit}:.gitmodules"
            named = git(commit.repository, "config", "--blob", blob, "--null", "--get-regexp", r"^submodule\..*\.path$")
            found -= {one.partition("\n")[2] for one in named.split("\0")}
    return {_here(path, commit.folder) for path in found}


def _apart(stage: Stage, commit: Commit, bare: set[str], makers: Container[str]) -> str | None:
    """A sentence about what a stage reads, or works in, of one of these repositories; None for none."""
    for key, paths in {"deps": stage.deps, "params": stage.params, "wdir": [stage.wdir]}.items():
        for path in (one for one in paths if not _lies_in(one, makers)):
            for one in bare.intersection(within(path)):
                what = f"{one} is a repository of its own, which no .gitmodules names"
                do = f"`git submodule add --force URL {one}` with its address, and commit that"
                return f"{_at(stage, commit, key)} needs {path}: {what}; {do}"
    return None


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
            if _value(values, key) is _NOTHING:
                dpath.get(values, key, separator=".")  # it takes patterns too
        except KeyError:
            return key
        except ValueError:  # several
            continue
    return None


def _why_lacking(dep: str, held: set[str], commit: Commit) -> str:
    """Why nobody has a dep, and what to do."""
    root = commit.repository / commit.folder
    if f"{dep}.dvc" in held:
        return f"it is data of another DVC project of this repository ({dep}.dvc); `dvc import` it into this one"
    if (root / f"{dep}.dvc").exists():
        return f"Git ignores {dep}.dvc, which tracks it; take that out of .gitignore, and commit it"
    if (root / dep).exists():
        return f"it is in neither Git nor DVC; `dvc add {dep}`"
    slashes = "; its backslashes are letters of a file's name here, write slashes" if "\\" in dep else ""
    return f"it is not there, and no stage makes it{slashes}"


def never(project: Project, entries: Mapping[str, Entry]) -> str | None:
    """A sentence about the first stage that tonight does not run, is read, and never ran; None for none."""
    read = {above for one in project.selected if not one.frozen for above in project.upstream(one.name)}
    for stage in project.stages.values():
        if stage.name in entries or not stage.frozen or not (stage.selected or stage.name in read):
            continue
        what, mend = ("frozen", "`dvc unfreeze` it") if stage.selected else ("not selected", "select it too")
        return f"{stage.name} is {what}, and no commit says what it made; run it once, or {mend}"
    return None


def _gone(project: Project, known: history.Known, commit: Commit) -> str | None:
    """A sentence about the first frozen stage of which a file that DVC does not cache is nowhere; None for none."""
    root = commit.repository / commit.folder
    if workspace.remote_of(root):  # it may be there
        return None
    for stage in (one for one in project.selected if one.frozen and not one.imported):
        committed = _with_folders(_here(path, commit.folder) for path in commit.modes)
        lost = [path for path in stage.uncached if not outside(path) and path not in committed]
        source = Commit(commit.repository, known.came[stage.name], commit.folder)
        if lost and not uncached.had(stage, known.entries[stage.name], source.content, workspace.cache_of(root)):
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


def unchanged(
    stage: Stage, entry: Entry | None, made: Mapping[str, str], commit: Commit, cache: Path, remote: bool = False
) -> bool | None:
    """Whether `entry` is what running `stage` would give; None where only DVC can tell.

    Args:
        entry: of this stage, or None.
        made: path → md5 of what it may read and Git does not hold: tonight's outs of other stages, tracked data.
        commit: where deps and params that Git holds are read.
        cache: the folder of DVC's cache.
        remote: whether what the cache lacks may be in one.
    """
    callback = not (stage.deps or stage.params or stage.outs)  # DVC runs that each time, as what is always changed
    if entry is None or stage.always_changed or callback:
        return False
    told = _reads(stage, entry, made, commit, cache)
    if False not in told:  # else nobody asks for the outs, and they may be many files
        told += _outs(stage, entry, cache, remote)
    return (False, None, True)[_rank(told)]


def _reads(stage: Stage, entry: Entry, made: Mapping[str, str], commit: Commit, cache: Path) -> list[bool | None]:
    """Whether an entry is of the same command, deps and params; None where only DVC can tell."""
    if entry.get("cmd") != stage.cmd:
        return [False]
    return [*_deps(stage, entry, made, commit), *_params(stage, entry, made, commit, cache)]


def _deps(stage: Stage, entry: Entry, made: Mapping[str, str], commit: Commit) -> Iterator[bool | None]:
    known = hashes(stage, entry, "deps")
    yield set(known) == set(stage.deps)
    for dep in (one for one in stage.deps if one in known):
        found = made.get(dep) or objects.md5(commit.content(dep))
        same = None if found is None else known[dep] == found  # a folder, a part of an out, or somewhere else
        yield known[dep] == commit.checked_out(dep) if same is False and dep not in made else same


def _outs(stage: Stage, entry: Entry, cache: Path, remote: bool) -> Iterator[bool | None]:
    known = hashes(stage, entry, "outs")
    yield set(known) == {out.path for out in stage.outs}
    for out in (one for one in stage.outs if one.path in known):
        if outside(out.path):
            yield None
        elif out.cached:
            yield _present(cache, known[out.path]) or (None if remote else False)


def _params(stage: Stage, entry: Entry, made: Mapping[str, str], commit: Commit, cache: Path) -> Iterator[bool | None]:
    locked = {stage.at(file): values for file, values in (entry.get("params") or {}).items()}
    yield set(locked) == set(stage.params)
    for file, keys in stage.params.items():
        values = _kept_params(file, made[file], cache) if file in made else commit.params(file)
        if values is None or file not in locked:
            yield None
        elif not keys:
            yield locked[file] == values
        else:
            yield set(keys) == set(locked[file]) and all(_value(values, key) == locked[file][key] for key in keys)


def _kept_params(file: str, md5: str, cache: Path) -> Any:
    """A params file that a stage made, as data; None for a format that only DVC reads, and where nobody has it."""
    for store in (cache / uncached.FOLDER, cache):
        with suppress(OSError):
            return parsed(file, objects.place(store, md5).read_bytes())
    return None


def _value(values: Any, key: str) -> Any:
    """The value at a dotted key; _NOTHING, which equals no value, where there is none."""
    for step in key.split("."):
        if isinstance(values, Mapping) and step in values:
            values = values[step]
        elif isinstance(values, list) and step.isdigit() and int(step) < len(values):
            values = values[int(step)]
        else:
            return _NOTHING
    return values


def _present(cache: Path, md5: str) -> bool:
    """Whether an object, and for a folder all that it lists, is in the cache; a damaged list is none."""
    held = objects.place(cache, md5)
    if not md5 or not held.is_file():
        return False
    if not md5.endswith(".dir"):
        return True
    return objects.sound(held) and all(objects.place(cache, one).is_file() for one in objects.listed(held))
