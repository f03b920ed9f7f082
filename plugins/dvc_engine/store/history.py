"""What nights and people made of every stage, and which commit says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from dvc_engine.git import GitError, git
from dvc_engine.pipeline import lock
from dvc_engine.pipeline.project import LOCK, Project, ProjectError, Stage
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import Repository

log = logging.getLogger(__name__)
MOST = 4  # entries of a stage that a night looks at, beside the commit's own
UNREADABLE = (YAMLError, AttributeError, KeyError, TypeError, ValueError)  # of a lock file that somebody broke
LOOKED = 30  # nights before the newest in which a stage that would run is looked for


Known = dict[str, list[tuple[lock.Entry, str]]]
"""Stage → its entries, the newest first, each with the commit that says so."""


def newest(record: Repository, commit: Commit, project: Project) -> Known:
    """What is known of every stage; of one of which nothing is known there is no list.

    Entries stand in nights, published or not, and in the pinned commit. There people write too: what differs from the
    commit that they share with the newest night is newer than that. What a `.dvc` file says counts as an entry where
    it names the same source as the pinned one.
    """
    held: dict[str, list[Stage]] = {}
    for stage in project.stages.values():
        held.setdefault(stage.lock, []).append(stage)
    nights, found, own = record.nights(), Known(), dict[str, lock.Entry]()
    shared = _shared(record, nights[0], commit) if nights else None
    for path, stages in held.items():
        entries = cache(partial(_entries, stages, commit.content(path)))  # most commits say the same
        try:
            pinned = entries(commit.content(path))
        except UNREADABLE as error:  # that of a night would go on being so; and of other commits nobody can mend it
            raise ProjectError(_unreadable(path, error)) from None
        own |= pinned
        before = _earlier(entries, shared, path) if shared else None
        if before is None:
            before = pinned if nights else {}
        theirs = {name: entry for name, entry in pinned.items() if before.get(name) != entry}
        said = [(night, _earlier(entries, Commit(record.path, night, commit.folder), path) or {}) for night in nights]
        for one, known in [(commit.commit, theirs), *said, (commit.commit, pinned)]:
            for name, entry in known.items():
                others = found.setdefault(name, [])
                if all(entry != other for other, _ in others):
                    others.append((entry, one))
    return {name: _looked_at(entries, own.get(name)) for name, entries in found.items()}


def before(tip: Commit, stage: Stage) -> Iterator[tuple[lock.Entry, str]]:
    """What the nights before the newest say of a stage, each entry once with its commit, the newest first.

    Raises GitError where this checkout does not have them.
    """
    asked = ["rev-list", "--first-parent", "--skip=1", f"--max-count={LOOKED}", tip.commit]
    said = {""}
    for night in git(tip.repository, *asked).split():
        text = _alone(Commit(tip.repository, night, tip.folder), stage)
        if text not in said:
            said.add(text)
            with suppress(YAMLError, AttributeError, KeyError):  # somebody broke it
                yield lock.parse(text)[stage.key], night


def published(tip: Commit, stage: Stage) -> lock.Entry | None:
    """What the newest night on the branch says of a stage; None for nothing."""
    with suppress(YAMLError, AttributeError):  # somebody broke it
        return lock.parse(_alone(tip, stage)).get(stage.key)
    return None


def _alone(commit: Commit, stage: Stage) -> str:
    """The lock file of a commit, with no other stage's entry."""
    return lock.alone((commit.content(stage.lock) or b"").decode(errors="replace"), stage.key)


def _looked_at(entries: list[tuple[lock.Entry, str]], own: lock.Entry | None) -> list[tuple[lock.Entry, str]]:
    """Of the entries of a stage those that a night looks at."""
    return [*entries[:MOST], *(one for one in entries[MOST:] if one[0] == own)]


def _entries(stages: Sequence[Stage], pinned: bytes | None, content: bytes | None) -> dict[str, lock.Entry]:
    """Stage → its entry in a file that holds those of these stages; `pinned` is what it holds where the night is of."""
    if content is None:
        return {}
    text = content.decode()
    if stages[0].imported:
        known = {stages[0].key: lock.imported(text)} if _same_source(text, pinned) else {}
    else:
        known = lock.parse(text)
    return {stage.name: known[stage.key] for stage in stages if stage.key in known}


def _earlier(
    entries: Callable[[bytes | None], dict[str, lock.Entry]], commit: Commit, path: str
) -> dict[str, lock.Entry] | None:
    """Entries of another commit than the pinned one; None where they cannot be read, which nobody can mend there."""
    try:
        return entries(commit.content(path))
    except UNREADABLE as error:
        log.warning("%s of commit %s cannot be read: %s", path, commit.commit, " ".join(str(error).split())[:200])
        return None


def _unreadable(path: str, error: Exception) -> str:
    """A sentence about a lock file that is none."""
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else path
    do = "resolve that, or remove it, and a night writes it anew" if path.endswith(LOCK) else "mend it there"
    return f"{where}: cannot be read as DVC writes it (conflicts of a merge?); {do}"


def _shared(record: Repository, night: str, commit: Commit) -> Commit | None:
    """The newest commit that a night and the pinned commit both have in their past; None for none."""
    with suppress(GitError):
        return Commit(record.path, git(record.path, "merge-base", night, commit.commit), commit.folder)
    return None


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
