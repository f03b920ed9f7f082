"""Write what a night made as one commit on its branch, or keep it until that is possible.

The commit's tree is the pinned tree with the night's dvc.lock, `cache: false` files and .gitignore lines; its parents
are the branch's tip and the pinned commit. Nothing is merged, and nothing is committed when nothing differs and nothing
waits, nor where the night is on the branch already. The project's own `publish` command runs in a clone of that commit
and prints, as its last line, JSON with a message and tags. Where nothing differs it runs at the tip, since the night
that wrote it may have died before what follows a release; its message and tags are then not used. Branch and tags go to
the repository of record in one atomic push with a lease; what it refuses stays under `<refs>/unpublished/<run>` until a
night after it is pushed.
"""

from __future__ import annotations

import json
import posixpath
import sys
from collections.abc import Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from dvc_engine.git import GitError, git
from dvc_engine.pipeline import lock
from dvc_engine.pipeline.project import Project
from dvc_engine.stage.command import Command, words
from dvc_engine.stage.outcome import Night, Result, plain
from dvc_engine.stage.process import scrubbed
from dvc_engine.store import snapshot, uncached, workspace
from dvc_engine.store.ignored import Ignored
from dvc_engine.store.repository import WHO, Repository

SOME = "of-some-stages"  # the ref of the newest night that not all stages ran in


class PublishError(Exception):
    """A night that cannot be published: which stage is missing, or what the project's command said."""


@dataclass(frozen=True)
class Published:
    """The night's commit; whether it moved the branch, and why not; what the project's command printed."""

    commit: str
    new: bool
    refused: str = ""
    said: Mapping[str, Any] = field(default_factory=dict)


def publish(
    night: Night,
    project: Project,
    results: Mapping[str, Result],
    record: Repository,
    command: Command | None,
    env: Mapping[str, str],
    clones: Path,
) -> Published:
    """Publish one night.

    Raises PublishError when a stage's result is missing, or is of what another made earlier, or the command fails.

    A night of some stages alone is a commit under the refs, where others find its entries: no command sees it.
    """
    missing = [one.name for one in project.selected if one.name not in results or not results[one.name].well]
    if missing:
        raise PublishError(f"nothing is published: {', '.join(missing)} did not end well")
    for name, since in ((one.name, results[one.name].outdated(results)) for one in project.selected):
        if since:
            what = f"{name} read an earlier result of {since}; clear what is downstream of {since}"
            raise PublishError(f"nothing is published: {what}")
    repository, cache, tip = record.path, workspace.cache_of(night.root), record.tip
    tree = _tree(night, project, {one.name: entry for one in project.selected if (entry := results[one.name].entry)})
    waiting = record.unpublished()
    same = tip and not waiting and git(repository, "rev-parse", f"{tip}^{{tree}}") == tree
    if there := tip if same else _earlier(night, record, tree, project.whole):
        # what follows the release of a night before the tip would put that in the place of a newer one
        said = ask(command, night, there, env, clones, cache) if command and project.whole and there == tip else {}
        return Published(there, new=False, said={key: said[key] for key in said if key not in ("message", "tags")})
    commit = partial(_commit, night, record, tree, waiting)
    if not project.whole:
        newest = record.nights()[:1]
        if newest and git(repository, "rev-parse", f"{newest[0]}^{{tree}}") == tree:
            return Published(newest[0], new=False)
        made = commit(f"Night {night.run} of {', '.join(one.name for one in project.selected)}")
        record.keep(SOME, made)  # in place of the one before, which is a parent
        return Published(made, new=True)
    if tip != night.tip:  # somebody published since, and this night did not see it
        made = commit(f"Night {night.run}")
        record.keep(night.run, made)
        return Published(made, new=False, refused=f"{record.branch} has moved since this night was pinned")
    said = ask(command, night, commit(f"Night {night.run}"), env, clones, cache) if command else {}
    asked = _tags(command, said) if command else []
    made = commit((_message(command, said) if command else "") or f"Night {night.run}")
    tags = {str(tag["name"]): _tag(repository, made, tag) for tag in asked}
    if refused := record.publish(made, tip, tags, waiting):
        if there := _meanwhile(record, tip, tree):
            return Published(there, new=False, said=said)
        record.keep(night.run, made)
    return Published(made, new=not refused, refused=refused, said=said)


def _earlier(night: Night, record: Repository, tree: str, whole: bool) -> str | None:
    """A commit that is this night's, of all that it made: it was cleared, or died when it had pushed. None for none.

    Of some stages alone it is published where it waits.
    """
    tips = filter(None, [record.tip] if whole else record.nights())
    seen = (f"^{one}" for one in dict.fromkeys(filter(None, [night.commit, night.tip, *night.seen])))
    asked = ["rev-list", "--ignore-missing", "--format=%H %T %P", *tips, *seen]  # and not `log`, which people configure
    for line in git(record.path, *asked).splitlines():
        commit, made, *parents = line.split()
        if made == tree and night.commit in parents:  # never so of the lines that say "commit" and its name
            return commit
    return None


def _meanwhile(record: Repository, tip: str | None, tree: str) -> str | None:
    """The branch's tip, where another attempt at this night has published it since; None else."""
    with suppress(GitError):
        record.fetch()
        there = record.tip
        if there and there != tip and git(record.path, "rev-parse", f"{there}^{{tree}}") == tree:
            return there
    return None


def remember(night: Night, project: Project, results: Mapping[str, Result], record: Repository) -> str | None:
    """Keep what was made in a night that is not published, so that the next one starts from it.

    It is a night of some stages. Of what a person is to decide about nothing is kept: the next night asks again.

    Returns:
        Its commit; None where nothing is new.

    Raises:
        GitError, PublishError, OSError.
    """
    made = {
        name: one.entry
        for name, one in results.items()
        if one.well and one.entry not in (None, night.entries.get(name), night.nearest.get(name))
        if not project.stages[name].airflow.approve
    }
    if not made:
        return None
    tree = _tree(night, project, made)
    commit = _commit(night, record, tree, record.unpublished(), f"Night {night.run} of {', '.join(made)}")
    record.keep(SOME, commit)
    return commit


def _commit(night: Night, record: Repository, tree: str, waiting: Mapping[str, str], message: str) -> str:
    """A commit of a night's tree, behind the branch's tip, what the night is of, and the nights that wait."""
    before = dict.fromkeys(filter(None, [record.tip, night.commit, *waiting.values()]))
    parents = [word for one in before for word in ("-p", one)]
    told = ["-m", message, "-m", record.trailer]
    return git(record.path, "-c", "i18n.commitEncoding=UTF-8", "commit-tree", tree, *parents, *told, env=WHO)


def _tree(night: Night, project: Project, made: Mapping[str, lock.Entry]) -> str:
    """The tree that a night commits: what it is of, with what these stages made tonight, and others last."""
    repository, entries = Path(night.repository), {**night.entries, **made}
    files, gone = _files(night, project, entries, made), _folders(night, project)
    runs = {_at(night, path) for name, one in entries.items() for path in lock.executable(project.stages[name], one)}
    return snapshot.with_files(repository, night.commit, files, gone, runs)


def _files(
    night: Night, project: Project, entries: Mapping[str, lock.Entry], made: Container[str]
) -> dict[str, bytes | Path]:
    """Path → content, or the file that holds it, of what a night commits."""
    cache, held = workspace.cache_of(night.root), dict[str, Path]()
    for name, entry in entries.items():
        stage, md5 = project.stages[name], lock.hashes(project.stages[name], entry, "outs")
        came = night.source(name, entry) or night.pinned
        if not uncached.had(stage, entry, came.content, cache):
            uncached.bring(night.root, {path: md5[path] for path in stage.uncached if path in md5}, cache)
            if not uncached.had(stage, entry, came.content, cache):
                if name not in made:
                    continue  # it did not run tonight, and nobody asked for it
                raise PublishError(f"what {name} made with `cache: false` is neither here nor in a remote")
        for out in stage.uncached:
            held |= {_at(night, path): file for path, file in uncached.files(out, md5[out], cache)}
    ignored = Ignored(Path(night.repository), night.commit)
    unseen, lines = ignored.those(held), ignored.lines(cached(night, project, entries))
    texts = lock.files(project, entries, night.pinned.content)
    locks = {_at(night, path): text.encode() for path, text in texts.items()}
    return {path: file for path, file in held.items() if path not in unseen} | lines | locks


def _folders(night: Night, project: Project) -> list[str]:
    """Outs that DVC does not cache: what an earlier night left in one that is a folder is no more."""
    return [_at(night, path) for stage in project.selected for path in stage.uncached]


def cached(night: Night, project: Project, entries: Mapping[str, lock.Entry]) -> dict[str, bool]:
    """Out that DVC keeps, as a path in the repository, in the order in which it makes them → whether it is a folder."""
    found = dict[str, bool]()
    for stage in (project.stages[name] for name in project.order if name in entries):
        md5 = lock.hashes(stage, entries[stage.name], "outs")
        found |= {_at(night, path): md5.get(path, "").endswith(".dir") for path in stage.cached}
    return found


def _at(night: Night, path: str) -> str:
    """A path of the project in its repository."""
    return posixpath.normpath(posixpath.join(night.folder, path))


def ask(
    command: Command, night: Night, commit: str, env: Mapping[str, str], clones: Path, cache: Path
) -> dict[str, Any]:
    """Run a command of the project in a clone of a commit; what its last line says, as JSON. Raises PublishError."""
    named, job = f"`{command.text}`", command.folder(clones, night.run)
    try:
        split = words(command.text)
    except ValueError as error:
        raise PublishError(str(error)) from None
    clone = workspace.make(Path(night.repository), commit, job, night.tags, cache, night.folder)
    stage_env = {name: value.replace("{clone}", str(clone)) for name, value in env.items()}
    around = scrubbed() | stage_env
    code, out, errors = (0, "", "") if command.killed else command.run(split, job, clone, around)
    sys.stderr.write(errors)
    if command.killed:
        raise PublishError(f"{named} was ended from outside (its clone is kept at {clone})")
    lines, last = out.strip().splitlines(), errors.strip().splitlines()[-1:]
    if code != 0:
        raise PublishError(f"{': '.join([f'{named} ended with {code}', *last])} (its clone is kept at {clone})")
    workspace.remove(job)
    try:
        said = plain(json.loads(lines[-1], parse_constant=str)) if lines else {}
        if not isinstance(said, dict):
            raise ValueError
    except ValueError:
        raise PublishError(f"the last line of {named} is no JSON object: {lines[-1][:200]}") from None
    return said


def _message(command: Command, said: Mapping[str, Any]) -> str:
    """What a command calls the night; "" where it says nothing of that. Raises PublishError for what is no text."""
    message = said.get("message")
    if not isinstance(message, str | None):
        raise PublishError(f"`{command.text}` gives the message {json.dumps(message)[:200]}, which is no text")
    return (message or "").strip()


def _tags(command: Command, said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tags that a command asks for, each an object with a name. Raises PublishError."""
    tags = said.get("tags") or []
    wrong = [one for one in tags if not (isinstance(one, dict) and one.get("name"))] if isinstance(tags, list) else tags
    if wrong:
        what = "tags are a list of objects with name and message"
        raise PublishError(f"`{command.text}` asks for tags {json.dumps(tags)[:200]}; {what}")
    return list(tags)


def _tag(repository: Path, commit: str, tag: Mapping[str, Any]) -> str:
    """An annotated tag object on the commit (GTO passes over others); the ref is made by the push."""
    stamp = git(repository, "var", "GIT_COMMITTER_IDENT", env=WHO)
    text = f"object {commit}\ntype commit\ntag {tag['name']}\ntagger {stamp}\n\n{tag.get('message', '')}\n"
    return git(repository, "mktag", stdin=text)
