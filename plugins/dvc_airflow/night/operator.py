"""The tasks of a night: pin, one for each stage, publish, commands after it, end.

They are thin: what they do stands in modules that know nothing of Airflow. A task whose failure another attempt may
mend (a lock, a store, a lost worker) raises what Airflow retries; a refusal or a stage's own failure is final.

Airflow reads a DAG file anew for each task. So what only some task needs is imported where that runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

from dvc_airflow.git import GitError, tags_of
from dvc_airflow.night import links, retries
from dvc_airflow.night.settings import Settings
from dvc_airflow.pipeline import project
from dvc_airflow.pipeline.naming import PIN, PUBLISH, task_id
from dvc_airflow.pipeline.project import Project, Stage
from dvc_airflow.stage.outcome import RETRIED, Night, Result, numbers, printable, standing
from dvc_airflow.stage.process import attended
from dvc_airflow.store import lease, workspace

if TYPE_CHECKING:
    from dvc_airflow.stage.attempt import Attempt
    from dvc_airflow.stage.command import Command

# keys of what a stage said, of what all did, of the stages that need not run, and of what these would have said
RESULT, RESULTS, SETTLED, KEPT = "result", "results", "settled", "kept"


class Task(BaseOperator):
    """What the tasks of a night have in common.

    It has no `__init__`, and each operator has one: Airflow fills in a DAG's defaults once for each that is run, which
    is a third of what a task costs at a parse.
    """

    linked = False  # whether it has links
    settings: Settings
    pages: Mapping[str, str] = MappingProxyType({})  # name of a link → its page
    named = ""  # `holder`, as the pin's worker had it: another's configuration may say another address
    _command: Command | None = None  # of the project, that it runs

    @property
    def operator_extra_links(self) -> list[BaseOperatorLink]:
        """What Airflow's UI shows beside the task."""
        return links.of(self.settings.web) if self.linked else []

    def pinned(self, context: Any, checkout: bool = True) -> tuple[Night, Project]:
        """What the pin fixed; where a remote has the nights, as seen from this worker's checkout. Raises GitError."""
        said = context["ti"].xcom_pull(task_ids=self.beside(PIN))
        night, self.named = Night.loads(said["night"]), said.get("holder", "")
        if self.settings.remote and checkout:
            night = replace(night, repository=str(self.settings.repository.path))
        return night, project.loads(said["project"])

    def beside(self, name: str) -> str:
        """The id of another task of this night."""
        return f"{self.settings.group}{name}"

    def results(
        self, context: Any, night: Night, known: Project, stages: list[str], told: Mapping[str, Any] | None = None
    ) -> dict[str, Result]:
        """Results of these stages tonight, those that there are; of one that does not run its newest entry.

        Args:
            told: what their tasks said, where somebody has asked already.
        """
        others = {name for name in stages if not known.stages[name].selected or name in night.settled}
        said = self._asked(context, [name for name in stages if name not in others]) if told is None else told
        found = standing(night, others) | {name: Result.of(one) for name, one in said.items()}
        return {name: found[name] for name in stages if name in found}

    def told(self, context: Any, stages: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What these stages said tonight, and what the pin says of those that need not run."""
        kept = context["ti"].xcom_pull(task_ids=self.beside(PIN), key=KEPT) or {}
        said = self._asked(context, [name for name in stages if name not in kept])
        return {name: kept.get(name) or said[name] for name in stages if name in kept or name in said}

    def _asked(self, context: Any, stages: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What the tasks of these stages said tonight, those that did; each costs a request."""
        ti = context["ti"]
        said = {name: ti.xcom_pull(task_ids=self.beside(task_id(name)), key=RESULT) for name in stages}
        return {name: one for name, one in said.items() if one}

    @property
    def whose(self) -> str:
        """Whose run it is on this host, for folders."""
        return f"{self.dag_id}/{self.settings.group}"

    def command(self, context: Any, text: str) -> Command:
        """This try at a command of the project."""
        from dvc_airflow.stage.command import Command

        return Command(text, self.whose, self.task_id, context["ti"].try_number)

    def on_kill(self) -> None:
        """End the project's command and everything that it started."""
        if self._command is not None:
            self._command.kill()

    def leased(self, context: Any) -> AbstractContextManager[None]:
        """Renew the night's lease while the block runs."""
        host, owner = socket.gethostname(), self.holder(context)
        return lease.renewed(self.settings.repository, context["run_id"], host, owner=owner)

    def holder(self, context: Any) -> str:
        """Whose run it is: runs of two DAGs, and of two installations, may be called the same."""
        return self.named or f"{conf.get('api', 'base_url', fallback='')} {self.dag_id} {self.settings.group}".strip()


class StageOperator(Task):
    """One stage of dvc.yaml, in a clone of its own; `assets` gives what it makes."""

    linked = True

    def __init__(self, *, settings: Settings, stage: str, assets: Callable[[], list[Any]], **kwargs: Any) -> None:
        super().__init__(do_xcom_push=False, **kwargs)  # what it returns is in its result, and costs a request
        self.settings, self.stage, self.assets = settings, stage, assets
        self._attempt: Attempt | None = None
        self._lineage: Callable[[], Any] | None = None

    def execute(self, context: Any) -> str:
        """Run it. Raises for Airflow to retry what another attempt may mend, and to fail the rest."""
        from dvc_airflow.night import lineage

        if not lineage.wanted() and self._settled(context):
            return "unchanged"
        from dvc_airflow.night import secrets

        parent = os.getppid()  # it lives, for it answers in `_begin`
        try:
            night, known, attempt, hidden = self._begin(context)
        except (GitError, secrets.Unknown) as error:  # no checkout yet, or a name that Airflow does not know
            outcome = "storage" if isinstance(error, GitError) else "refused"
            raise self._failed(context, Result(self.stage, outcome, sentence=str(error))) from None
        try:
            with self.leased(context), attended(self.on_kill, parent):
                result = secrets.hidden(attempt.run(), hidden)
        except AirflowTaskTimeout:  # Airflow would count it with the attempts that never began (retries.py)
            result = attempt.overdue(self.execution_timeout or timedelta())
        self._lineage = partial(lineage.of, known.stages[self.stage], night, result, self.settings)
        self.log.info("%s: %s in %.1f s", self.stage, result.outcome, result.seconds)
        for warning in result.warnings:
            self.log.warning("%s %s", self.stage, warning)
        if result.well:
            self._tell(context, result)
            self._tell_assets(context, night.commit, known.stages[self.stage], result)
            return result.outcome
        raise self._failed(context, result)

    def _begin(self, context: Any) -> tuple[Night, Project, Attempt, list[str]]:
        """What the pin fixed, the attempt, and what of its variables is secret. Raises GitError and Unknown."""
        from dvc_airflow.night import secrets
        from dvc_airflow.stage.attempt import Attempt

        night, known = self.pinned(context)
        number, shared = context["ti"].try_number, self.settings
        self.pages = links.pages(shared.web, night.came.get(self.stage), night.commit)
        results = partial(self.results, context, night, known)
        said = known.stages[self.stage].airflow.env
        env = {**shared.env, **secrets.found(said)}
        around = (shared.clones, env, number, shared.limit_bytes, shared.repository, self.whose)
        self._attempt = Attempt(night, known, self.stage, results, *around)
        return night, known, self._attempt, [env[key] for key, value in said.items() if value != env[key]]

    def _tell(self, context: Any, result: Result) -> None:
        context["ti"].xcom_push(key=RESULT, value=result.as_json() | {"attempts": context["ti"].try_number})

    def _failed(self, context: Any, result: Result) -> AirflowException:
        """What it ends with where it has no entry; what it says is kept for night.json."""
        self._tell(context, result)
        sentence = f"{self.stage}: {result.outcome}: {result.sentence}"
        return (retries.mendable(context["ti"]) if result.outcome in RETRIED else AirflowFailException)(sentence)

    def _settled(self, context: Any) -> bool:
        """Whether the pin found that it need not run."""
        said = context["ti"].xcom_pull(task_ids=self.beside(PIN), key=SETTLED) or {"stages": []}
        if self.stage not in said["stages"]:
            return False
        self.pages = links.pages(self.settings.web, None, said["commit"])
        self.outlets: list[Any] = []
        self.log.info("%s: unchanged, as the pin found", self.stage)
        return True

    def _tell_assets(self, context: Any, commit: str, stage: Stage, result: Result) -> None:
        """Say of each out what it is now; of a stage that is unchanged nobody is told, and no other DAG is started."""
        self.outlets = [] if result.outcome == "unchanged" else self.assets()
        made = {stage.at(out["path"]): out for out in (result.entry or {}).get("outs") or []}
        for asset in self.outlets:
            path = asset.extra["path"]
            about = {key: value for key, value in made.get(path, {}).items() if key in ("md5", "size", "nfiles")}
            metrics = numbers({path: result.files[path]} if path in result.files else {})
            told = about | {"commit": commit, "outcome": result.outcome}
            context["outlet_events"][asset].extra = told | ({"metrics": metrics} if metrics else {})

    def get_openlineage_facets_on_complete(self, ti: Any) -> Any:
        """What the OpenLineage provider asks for, where it is set up; None for a task that never began."""
        return self._lineage() if self._lineage else None

    def on_kill(self) -> None:
        """End the stage and everything that it started."""
        if self._attempt is not None:
            self._attempt.kill()


class PublishOperator(Task):
    """Write the night as one commit."""

    linked, ui_color = True, "#e6f4ea"

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    def execute(self, context: Any) -> dict[str, Any]:
        """Publish. Fails when a stage has no result."""
        from dvc_airflow.night import changes, publish

        shared = self.settings
        try:
            night, known = self.pinned(context)
            told, record = self.told(context, [one.name for one in known.selected]), shared.repository
            results = self.results(context, night, known, list(known.stages), told)
            context["ti"].xcom_push(key=RESULTS, value=told)  # so that the end need not ask each of them again
            with suppress(GitError):  # what cannot be pushed either is kept here
                record.fetch()
            record.have(night.run, night.commit, night.tags.values())
            env = {**shared.env, "DVC_AIRFLOW_REPOSITORY": shared.root, "DVC_AIRFLOW_RUN": night.run}
            self._command = self.command(context, shared.publish) if shared.publish else None
            with self.leased(context), attended(self.on_kill):
                done = publish.publish(night, known, results, record, self._command, env, shared.clones)
        except (GitError, OSError) as error:  # a disk, or DVC's remote, may have room, or answer, another time
            raise refusal(context, error, retried=bool(shared.remote) or isinstance(error, OSError)) from None
        except publish.PublishError as error:
            raise refusal(context, error, retried=bool(self._command and self._command.killed)) from None
        self.pages = links.pages(shared.web, night.tip, done.commit)
        if done.refused:
            what = "the night's commit %s is not on %s, and waits under %s/unpublished for a night after it: %s"
            self.log.warning(what, done.commit, record.branch, record.refs, done.refused)
        changed = changes.changed(night, known, results)
        if changed:
            self.log.info("metrics that are not what they were:\n%s", changes.table(changed))
        return asdict(done) | {"changes": [asdict(one) for one in changed]}


class CommandOperator(Task):
    """A command of the project in a clone of what was published."""

    def __init__(self, *, settings: Settings, command: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings, self.text = settings, command

    def execute(self, context: Any) -> dict[str, Any]:
        """Run it. Raises its sentence, for Airflow to try again."""
        from dvc_airflow.night import publish

        done = context["ti"].xcom_pull(task_ids=self.beside(PUBLISH))
        try:
            (night, _), record = self.pinned(context), self.settings.repository
            record.fetch()
            record.have(night.run, done["commit"])
        except GitError as error:
            raise refusal(context, error, retried=True) from None
        now, root = replace(night, commit=done["commit"], tags=tags_of(record.path)), Path(self.settings.root)
        env = {**self.settings.env, "DVC_AIRFLOW_REPOSITORY": str(root), "DVC_AIRFLOW_RUN": night.run}
        self._command = self.command(context, self.text)
        try:
            with self.leased(context), attended(self.on_kill):
                cache = workspace.cache_of(root)
                said = publish.ask(self._command, now, now.commit, env, self.settings.clones, cache)
                record.share(dict(set(tags_of(record.path).items()) - set(night.tags.items())))
            return said
        except (publish.PublishError, GitError) as error:
            raise refusal(context, error, retried=True) from None


def released(done: Mapping[str, Any] | None) -> bool:
    """Whether what `publish` returned is a release that what follows it finds in the repository of record."""
    return bool(done and (done.get("said") or {}).get("released") and not done.get("refused"))


def refusal(context: Any, error: Exception, retried: bool = False) -> AirflowException:
    """What ends a task, for good, or to be tried again; its sentence is kept for night.json."""
    context["ti"].xcom_push(key="sentence", value=printable(str(error)))
    return (retries.mendable(context["ti"]) if retried else AirflowFailException)(str(error))
