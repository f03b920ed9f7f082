"""What a night is: what a DAG's author may say of it, and what its tasks share of that."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from math import inf
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import ConfigDict, ValidationError, validate_call

from dvc_engine.git import top
from dvc_engine.night.journal import KEYS
from dvc_engine.pipeline import check, kept, reading, selection
from dvc_engine.pipeline.naming import LONGEST, RESERVED, approval, task_id
from dvc_engine.pipeline.project import Project, ProjectError
from dvc_engine.stage.command import words
from dvc_engine.store import repository, uncached
from dvc_engine.store import web as pages
from dvc_engine.store.repository import Repository
from dvc_engine.store.web import NOWHERE, Web

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What all tasks of a DAG share.

    Args:
        root: the project in the checkout of record.
        branch: that nights are published on.
        refs: namespace for the lease, what could not be published and what failed nights finished.
        env: variables for stages and commands; {clone} becomes the clone's path.
        publish: the project's command, run in a clone of the night's commit; None for none.
        record: folder or URL for `<run>/night.json`; "" for the checkout's own, in which each DAG has one.
        headline: key of night.json → 'stage.metric' that it shows.
        prices: of a slot of a pool for an hour, in any currency.
        select: selectors of the stages that run; none for all. `exclude`: of those that do not.
        limit_bytes: of one stage's outs that DVC does not cache.
        remote: a remote of the checkout that is the repository of record; "" where the checkout's own is.
        checkout: that the engine makes of the remote on each worker, and `root` is in; "" where people made it.
        queue: of the engine's own tasks; "" for the default.
        keep_nights: whose objects stay in the cache after a night; `keep_bytes`: that all which stays may take.
        pods: whether stages that ask for one have a pod of their own.
        push: whether what stages make goes to DVC's remotes.
        register: pattern of the tags that are the project's register of releases; "" where it has none.
        web: pages of commits of the repository of record.
        group: prefix of the ids of the night's tasks: "" in a DAG of their own.
    """

    root: str
    branch: str
    refs: str
    env: Mapping[str, str]
    publish: str | None
    record: str
    headline: Mapping[str, str]
    prices: Mapping[str, float]
    select: Sequence[str] = ()
    exclude: Sequence[str] = ()
    limit_bytes: int = uncached.LIMIT
    remote: str = ""
    checkout: str = ""
    queue: str = ""
    keep_nights: int | None = None
    keep_bytes: int | None = None
    pods: bool = True
    push: bool = True
    register: str = ""
    web: Web = NOWHERE
    group: str = ""

    @property
    def repository(self) -> Repository:
        """Where nights are published. Raises GitError where this worker has no checkout and cannot make one."""
        if self.checkout:
            repository.checked_out(Path(self.checkout), self.remote)
        return Repository(top(Path(self.root))[0], self.branch, self.refs, self.remote, bool(self.checkout))

    @property
    def clones(self) -> Path:
        """Folder for the private clones of tasks on this host."""
        return (Path(self.root) / ".dvc" / "tmp" / "clones").resolve()  # DVC takes what is behind a link for elsewhere


def _checked(make: Callable[P, T]) -> Callable[P, T]:
    """The same, which raises ProjectError for an option of another type than is asked for."""
    typed = validate_call(config=ConfigDict(strict=True))(make)  # True is no number of nights, nor "no" a False

    @wraps(make)
    def made(*args: P.args, **options: P.kwargs) -> T:
        try:
            return typed(*args, **options)
        except ValidationError as error:
            wrong = error.errors()[0]
            name, key = str(wrong["loc"][0]), next(iter(wrong["loc"][1:]), None)
            given = options.get(name)
            within = isinstance(key, int) or (isinstance(given, Mapping) and key in given)  # else it names a type
            said = f"{name}{f'[{key}]' if within else ''} is {wrong['input']!r}: {wrong['msg']}"
            raise ProjectError(f"{said}; what it takes is told in dvc_airflow.settings.night") from None

    return made


@_checked
def night(
    project: Path,
    *,
    select: Sequence[str] = (),
    exclude: Sequence[str] = (),
    branch: str | None = None,
    refs: str | None = None,
    remote: str = "",
    web: str = "",
    checkout: Path | str | None = None,
    queue: str | None = None,
    env: Mapping[str, str] | None = None,
    publish: str | None = None,
    after: Mapping[str, str] | None = None,
    register: str = "",
    headline: Mapping[str, str] | None = None,
    prices: Mapping[str, float] | None = None,
    record: object = None,
    limit_bytes: int = uncached.LIMIT,
    keep_nights: int | None = None,
    keep_bytes: int | None = None,
    pods: bool = True,
    push: bool = True,
) -> tuple[Project, Settings, Mapping[str, str]]:
    """What a night is: the stages that run, what its tasks share, and the commands after it. Raises ProjectError.

    Args:
        project: the folder with `.dvc`, in the checkout of record.
        select: which stages run, by selectors (dvc_engine.pipeline.selection); the others count as frozen, and nothing
            is released.
        exclude: which of these do not.
        branch: that nights are published on; "dvc-airflow", with the project's folder where that is not the top.
        refs: namespace for the lease, what could not be published and what failed nights finished; "refs/dvc-airflow",
            with the folder as the branch, and with the branch where that has a name of its own.
        remote: a Git remote of the checkout that nights are published at instead, and other workers' checkouts with it.
        checkout: where each worker has a checkout of its own, which the engine makes of `remote` and keeps at what is
            pinned. For workers that share no disk, and where `project` is in a Git bundle of Airflow's: the night then
            runs the commit that Airflow has the DAG of.
        queue: of the tasks that are the engine's own (pin, publish, the commands after it, end): of the worker that has
            what they need and others must not, like a signing key.
        web: the page of a commit, as "https://git.example.org/mine/commit/{commit}": tasks then link to it. That of a
            `remote` at GitHub, GitLab, Bitbucket or Codeberg is known.
        env: variables for stages and commands; {clone} becomes the path of the project in its clone.
        publish: command run in a clone of the night's commit; its last line is JSON with message, tags, released.
        after: task → command to run, in this order, when `publish` said that something was released and the push was
            not refused. One that fails is tried again, so it must bear to be repeated; the night is then no success.
        register: a pattern (`model[@#]*`) of tags that are the register of releases and where they are assigned, as GTO
            has it: made, never moved. Those that commands of `after` and people make in the checkout go to `remote`,
            when a command has ended, well or not, and when a night begins.
        headline: key of night.json → 'stage.metric' that it shows.
        prices: pool → price of a slot for an hour; night.json then says what each stage cost.
        record: folder or URL, of any type that is one as a text, for `<run>/night.json`, which no other DAG has;
            default `.dvc/tmp/runs/<dag>`. Where it takes nothing, night.json is in that, and the night is no success.
        limit_bytes: that a stage's outs with `cache: false` may have together.
        keep_nights: of the branch, whose objects stay in the cache when a night has ended (dvc_engine.store.gc); None
            keeps all.
        keep_bytes: that what stays may take together, before older nights go; None for no limit.
        pods: False where Airflow has no Kubernetes: a stage with `image` or `pod` runs where the others do.
        push: False where DVC's remote can only be read: what stages make stays in the cache of the checkout, which all
            workers then have to share.
    """
    numbers = {"limit_bytes": limit_bytes, "keep_nights": keep_nights, "keep_bytes": keep_bytes}
    _refuse(record, numbers, env or {}, prices or {})
    if publish:
        refuse_command("publish", publish)
    for name, text in (after or {}).items():
        refuse_command(name, text)
    known = reading.read(project, kept.folder(project))
    check.refuse(project, known)
    where = repository.of(project, branch, refs, remote)
    place = Path(checkout).expanduser() if checkout else None
    if place:
        _refuse_checkout(place, remote, push)
    root = place / top(project)[1] if place else project
    settings = Settings(
        root=str(root),
        branch=where.branch,
        refs=where.refs,
        env=dict(env or {}),
        publish=publish,
        record=str(record or ""),
        headline=dict(headline or {}),
        prices=dict(prices or {}),
        select=list(select),
        exclude=list(exclude),
        limit_bytes=limit_bytes,
        remote=remote,
        checkout=str(place or ""),
        queue=queue or "",
        keep_nights=keep_nights,
        keep_bytes=keep_bytes,
        pods=pods,
        push=push,
        register=register,
        web=_web(where, web),
    )
    _refuse_names(after or {}, headline or {}, known)
    return selection.narrowed(known, select, exclude), settings, dict(after or {})


def _refuse(
    record: object, numbers: Mapping[str, int | None], env: Mapping[str, str], prices: Mapping[str, float]
) -> None:
    """Raises ProjectError for options that no night can be run with."""
    if record is not None and not isinstance(record, str | os.PathLike) and "://" not in str(record):
        raise ProjectError(f"record is {record!r}: it is a folder or a URL")
    if re.match(r"(s3a?|gs|gcs)://(?!arn:)([^/]*|[^/@]*:.*)@", str(record)):  # a secret may have a slash
        what = "what one logs in with, or a connection of Airflow's, and neither is asked"
        raise ProjectError(f"record is {re.sub('://.*@', '://', str(record))}, with {what}; write it without")
    for name, number in numbers.items():
        if number is not None and number < 0:
            raise ProjectError(f"{name} is {number}, less than nothing; write 0 or more")
    for name, value in env.items():
        if value.startswith("airflow://"):
            raise ProjectError(f"env[{name!r}] is {value!r}: what Airflow keeps is for a stage's meta.airflow.env")
        if not re.fullmatch(r"[^=\0]+", name) or "\0" in value:  # which may be a secret, and is not said
            what = "a name is not empty and has no =, and neither it nor a value has a zero byte"
            raise ProjectError(f"env[{name!r}] is no variable: {what}; write another")
    for pool, price in prices.items():
        if not 0 <= price < inf:  # nan is neither
            raise ProjectError(f"prices[{pool!r}] is {price}: a slot costs nothing or more")


def _refuse_checkout(place: Path, remote: str, push: bool) -> None:
    """Raises ProjectError for a checkout that no worker can make, or use."""
    if not place.is_absolute():
        raise ProjectError(f"checkout is {place}; write an absolute path, which each worker has")
    if not re.search("[/:]", remote):
        said = f"`remote` is {remote!r}" if remote else "there is no `remote`"
        raise ProjectError(f"checkout: it is made of a remote by its address, and {said}; write that")
    if not push:
        raise ProjectError("push=False: workers with checkouts of their own share by DVC's remote alone; leave it out")


def _refuse_names(after: Mapping[str, str], headline: Mapping[str, str], known: Project) -> None:
    """Raises ProjectError for what commands and metrics cannot be called, or for a metric of no stage."""
    ids = {task_id(name) for name in known.stages}
    taken = ids | {approval(one) for one in ids} | {one.partition(".")[0] for one in ids} | set(RESERVED)
    for name in after:
        if name in taken:
            raise ProjectError(f"after: {name} is the id of another task; call that command otherwise")
        if not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{LONGEST}}}", name):
            what = f"letters, numbers, '_', '-' and '.', of which it takes {LONGEST}"
            raise ProjectError(f"after: {name!r} is to be the id of a task in Airflow; call that command by {what}")
    for key, place in headline.items():
        if key in KEYS:
            raise ProjectError(f"headline: night.json has a {key} of its own; show that metric by another name")
        if (stage := place.rpartition(".")[0]) not in known.stages:
            raise ProjectError(f"headline[{key!r}] is {place!r}, 'stage.metric': no stage is called {stage!r}")


def refuse_command(name: str, text: str) -> None:
    """Raises ProjectError for a command that has no words; a night would say so when all its stages have run."""
    try:
        words(text)
    except ValueError as error:
        raise ProjectError(f"{name}: {error}") from None


def _web(where: Repository, page: str) -> Web:
    """The pages of the repository of record. Raises ProjectError."""
    try:
        return pages.pages(page) if page else pages.hosted(pages.address(where.path, where.remote))
    except ValueError as error:
        raise ProjectError(str(error)) from None


def run_name(run_id: str) -> str:
    """A run's id as a name for refs and folders."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", run_id).strip("-")
