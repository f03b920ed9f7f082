"""What the tasks of a night have in common, with their links in Airflow's UI, and the task of a stage.

They are thin: what they do stands in modules that know nothing of Airflow. A task whose failure another attempt may
mend (a lock, a store, a lost worker) raises what Airflow retries; a refusal or a stage's own failure is final.

Airflow reads a DAG file anew for each task. So what only some task needs is imported where that runs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseOperatorLink, exceptions
from airflow.sdk.configuration import conf

from dvc_airflow.settings import Settings
from dvc_engine.git import GitError
from dvc_engine.pipeline import project
from dvc_engine.pipeline.naming import PIN, task_id
from dvc_engine.pipeline.project import Project, Stage
from dvc_engine.stage.outcome import RETRIED, Night, Result, printable, standing
from dvc_engine.stage.process import attended
from dvc_engine.store import lease

if TYPE_CHECKING:
    from dvc_engine.stage.attempt import Attempt
    from dvc_engine.stage.command import Command
    from dvc_engine.store.repository import Repository

# keys of what a stage said, of what all did, of the stages that need not run, of what these would have said, of why a
# task ended, of whose run it is, and of what a person lets out, if it is let out
RESULT, RESULTS, SETTLED, KEPT, SENTENCE, HOLDER = "result", "results", "settled", "kept", "sentence", "holder"
LET_OUT = "let_out"

OUTAGE = 3  # retries beyond those asked for: `retried` in render.py says why
ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")  # states of a task that does not go on
SOON, LATER = timedelta(seconds=10), timedelta(minutes=5)  # of the first look for one that goes on, and of the last


class CommitLink(BaseOperatorLink):
    """In Airflow's UI, beside a task that has ended: to the commit that it ran, or made.

    Airflow writes it into XCom when the task has ended, and its UI reads it there: no plugin is needed.
    """

    name = "Commit"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page; "" where there is none."""
        return str(operator.pages.get(self.name, ""))


class ChangesLink(CommitLink):
    """To what changed: for a stage that ran, since the commit of its newest entry; else since the night before."""

    name = "Changes"


class Task(BaseOperator):
    """What the tasks of a night have in common.

    It has no `__init__`, and each operator has one: Airflow fills in a DAG's defaults once for each that is run, which
    is a third of what a task costs at a parse.
    """

    linked = False  # whether it has links
    settings: Settings
    pages: Mapping[str, str] = MappingProxyType({})  # name of a link → its page
    commit = ""  # that the pin fixed
    named = ""  # `holder`, as the pin's worker had it: another's configuration may say another address
    _command: Command | None = None  # of the project, that it runs

    @property
    def operator_extra_links(self) -> list[BaseOperatorLink]:
        """What Airflow's UI shows beside the task; nothing where the repository has no pages."""
        found = {CommitLink: self.settings.web.commit, ChangesLink: self.settings.web.changes}
        return [link() for link, page in found.items() if page and self.linked]

    def show(self, before: str | None, commit: str) -> None:
        """Let its links lead to a commit, and to what changed since the one before."""
        web = self.settings.web
        self.pages = {CommitLink.name: web.of(commit), ChangesLink.name: web.between(before, commit)}

    def pinned(self, context: Any, checkout: bool = True) -> tuple[Night, Project]:
        """What the pin fixed; where a remote has the nights, as seen from this worker's checkout. Raises GitError."""
        said = context["ti"].xcom_pull(task_ids=self.beside(PIN))
        if said is None:
            self.wait_for(context, [PIN])
            why = f"{self.beside(PIN)} has not said what this night runs; it was marked as a success by hand, say"
            raise refusal(context, Exception(f"{why}: clear it, so that it does"))
        night, self.named = Night.loads(said["night"]), said.get(HOLDER, "")
        self.commit = night.commit
        if self.settings.remote and checkout:
            night = replace(night, repository=str(self.settings.repository.path))
        return night, project.loads(said["project"])

    def share(self, record: Repository) -> None:
        """Let the remote have the register's tags; where it does not take them the log says so."""
        try:
            record.share(self.settings.register)
        except GitError as error:
            self.log.warning("tags of the register are not at the remote: %s", error)

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
        return self.tonights(said)

    def tonights(self, said: Mapping[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
        """What stages said of the commit that is pinned: another may be since, where somebody cleared the pin alone."""
        others = [name for name, one in said.items() if one and one.get("commit", self.commit) != self.commit]
        for name in others:
            self.log.warning("%s ran at another commit than %s has fixed since; clear it too", name, self.beside(PIN))
        return {name: one for name, one in said.items() if one and name not in others}

    def wait_for(self, context: Any, tasks: Iterable[str]) -> None:
        """End for now, and be called again later, while one of these runs once more, since somebody has cleared it."""
        found = states(context["ti"], self.dag_id, context["run_id"])
        if going := next((one for one in map(self.beside, tasks) if found.get(one, "success") not in ENDED), None):
            self.log.info("%s was cleared, and has not ended again; this waits for it", going)
            wait = SOON * 2 ** min(context.get("task_reschedule_count", 0), 9)
            raise exceptions.AirflowRescheduleException(datetime.now(UTC) + min(wait, LATER))

    @property
    def whose(self) -> str:
        """Whose run it is on this host, for folders."""
        return f"{self.dag_id}/{self.settings.group}"

    def command(self, context: Any, text: str) -> Command:
        """This try at a command of the project."""
        from dvc_engine.stage.command import Command

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
        from dvc_airflow import lineage

        if not lineage.wanted() and self._settled(context):
            return "unchanged"
        from dvc_airflow import secrets

        parent = os.getppid()  # it lives, for it answers in `_begin`
        try:
            night, known, attempt, hidden = self._begin(context)
        except (GitError, secrets.Unknown) as error:  # no checkout yet, or a name that Airflow does not know
            outcome = "storage" if isinstance(error, GitError) else "refused"
            raise self._failed(context, Result(self.stage, outcome, sentence=str(error))) from None
        try:
            with self.leased(context), attended(self.on_kill, parent):
                result = secrets.hidden(attempt.run(), hidden)
        except exceptions.AirflowTaskTimeout:  # Airflow would count it with the attempts that never began
            result = attempt.overdue(self.execution_timeout or timedelta())
        self._lineage = partial(lineage.of, known.stages[self.stage], night, result, self.settings)
        self.log.info("%s: %s in %.1f s", self.stage, result.outcome, result.seconds)
        for warning in result.warnings:
            self.log.warning("%s %s", self.stage, warning)
        if result.well:
            self._tell(context, result)
            self._tell_assets(context, night.commit, known.stages[self.stage], result)
            return result.outcome
        if result.outcome == "refused":
            self.wait_for(context, map(task_id, known.upstream(self.stage)))
        raise self._failed(context, result)

    def _begin(self, context: Any) -> tuple[Night, Project, Attempt, list[str]]:
        """What the pin fixed, the attempt, and what of its variables is secret. Raises GitError and Unknown."""
        from dvc_airflow import secrets
        from dvc_engine.stage.attempt import Attempt

        night, known = self.pinned(context)
        if self.stage not in known.stages:
            why = f"{self.stage} is no stage of the commit that this night runs; the DAG has changed since it began"
            raise refusal(context, Exception(f"{why}: trigger another"))
        number, shared = context["ti"].try_number, self.settings
        self.show(night.came(self.stage), night.commit)
        results = partial(self.results, context, night, known)
        said = known.stages[self.stage].airflow.env
        env = {**shared.env, **secrets.found(said)}
        around = (shared.clones, env, number, shared.limit_bytes, shared.repository, self.whose, shared.push)
        self._attempt = Attempt(night, known, self.stage, results, *around)
        return night, known, self._attempt, [env[key] for key, value in said.items() if value != env[key]]

    def _tell(self, context: Any, result: Result) -> None:
        more = {"attempts": context["ti"].try_number, "commit": self.commit}
        context["ti"].xcom_push(key=RESULT, value=result.as_json() | more)

    def _failed(self, context: Any, result: Result) -> exceptions.AirflowException:
        """What it ends with where it has no entry; what it says is kept for night.json."""
        self._tell(context, result)
        sentence = f"{self.stage}: {result.outcome}: {result.sentence}"
        return (mendable(context["ti"]) if result.outcome in RETRIED else exceptions.AirflowFailException)(sentence)

    def _settled(self, context: Any) -> bool:
        """Whether the pin found that it need not run."""
        said = context["ti"].xcom_pull(task_ids=self.beside(PIN), key=SETTLED) or {"stages": []}
        if self.stage not in said["stages"]:
            return False
        self.show(None, said["commit"])
        self.outlets: list[Any] = []
        self.log.info("%s: unchanged, as the pin found", self.stage)
        return True

    def _tell_assets(self, context: Any, commit: str, stage: Stage, result: Result) -> None:
        """Say of each out what it is now; of a stage that is unchanged nobody is told, and no other DAG is started."""
        from dvc_airflow import lineage

        self.outlets = [] if result.outcome == "unchanged" else self.assets()
        paths = [asset.extra["path"] for asset in self.outlets]
        for asset, extra in zip(self.outlets, lineage.events(stage, result, commit, paths), strict=True):
            context["outlet_events"][asset].extra = extra

    def get_openlineage_facets_on_complete(self, ti: Any) -> Any:
        """What the OpenLineage provider asks for, where it is set up; None for a task that never began."""
        return self._lineage() if self._lineage else None

    def on_kill(self) -> None:
        """End the stage and everything that it started."""
        if self._attempt is not None:
            self._attempt.kill()


def states(ti: Any, dag_id: str, run_id: str) -> Mapping[str, str]:
    """Task → state in a run; empty where Airflow does not tell."""
    with suppress(exceptions.AirflowRuntimeError):
        found: Mapping[str, str] = ti.get_task_states(dag_id, run_ids=[run_id]).get(run_id) or {}
        return found
    return {}


def mendable(ti: Any) -> type[exceptions.AirflowException]:
    """What an attempt ends with that another may mend: Airflow's retry, or for good where those asked for are used."""
    return exceptions.AirflowException if ti.max_tries - ti.try_number >= OUTAGE else exceptions.AirflowFailException


def refusal(context: Any, error: Exception, again: bool = False) -> exceptions.AirflowException:
    """What ends a task, for good, or to be tried again; its sentence is kept for night.json."""
    context["ti"].xcom_push(key=SENTENCE, value=printable(str(error)))
    return (mendable(context["ti"]) if again else exceptions.AirflowFailException)(str(error))
