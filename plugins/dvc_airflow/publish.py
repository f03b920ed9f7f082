"""The task that makes one commit of a night, and those of the commands behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from dvc_airflow.operator import LET_OUT, RESULTS, Task, refusal
from dvc_airflow.settings import Settings
from dvc_engine.git import GitError, tags_of
from dvc_engine.pipeline.naming import PUBLISH, approval, task_id
from dvc_engine.pipeline.project import Project
from dvc_engine.stage.outcome import Result
from dvc_engine.stage.process import attended
from dvc_engine.store import workspace
from dvc_engine.store.repository import Repository


class PublishOperator(Task):
    """Write the night as one commit."""

    linked, ui_color = True, "#e6f4ea"

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    def execute(self, context: Any) -> dict[str, Any]:
        """Publish. Fails when a stage has no result."""
        from dvc_engine.night import changes, publish

        shared = self.settings
        try:
            night, known = self.pinned(context)
            self.wait_for(context, [task_id(one.name) for one in known.selected])
            told, record = self.told(context, [one.name for one in known.selected]), shared.repository
            results = self.results(context, night, known, list(known.stages), told)
            context["ti"].xcom_push(key=RESULTS, value=told)  # so that the end need not ask each of them again
            self._refuse_unseen(context, known, results)
            with suppress(GitError):  # what cannot be pushed either is kept here
                record.fetch()
            record.have(night.run, night.commit, night.tags.values())
            env = {**shared.env, "DVC_AIRFLOW_REPOSITORY": shared.root, "DVC_AIRFLOW_RUN": night.run}
            self._command = self.command(context, shared.publish) if shared.publish else None
            with self.leased(context), attended(self.on_kill):
                done = publish.publish(night, known, results, record, self._command, env, shared.clones)
        except (GitError, OSError) as error:  # a disk, or DVC's remote, may have room, or answer, another time
            raise refusal(context, error, again=bool(shared.remote) or isinstance(error, OSError)) from None
        except publish.PublishError as error:
            raise refusal(context, error, again=bool(self._command and self._command.killed)) from None
        self.show(night.tip, done.commit)
        if done.refused:
            what = "the night's commit %s is not on %s, and waits under %s/unpublished for a night after it: %s"
            self.log.warning(what, done.commit, record.branch, record.refs, done.refused)
        changed = changes.changed(night, known, results)
        if changed:
            self.log.info("metrics that are not what they were:\n%s", changes.table(changed))
        return asdict(done) | {"changes": [asdict(one) for one in changed]}

    def _refuse_unseen(self, context: Any, known: Project, results: Mapping[str, Result]) -> None:
        """Raises what ends a task where a stage has made something else since a person let it out.

        Who marked the question as a success by hand has answered it.
        """
        for name, result in results.items():
            stage = known.stages[name]
            if not (stage.selected and stage.airflow.approve and result.well):
                continue
            let_out = context["ti"].xcom_pull(task_ids=self.beside(approval(task_id(name))), key=LET_OUT)
            if let_out not in (None, result.made):
                what = f"{name} has made something else since a person let it out"
                raise refusal(context, Exception(f"nothing is published: {what}; clear what is downstream of it"))


class CommandOperator(Task):
    """A command of the project in a clone of what was published."""

    def __init__(self, *, settings: Settings, command: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings, self.text = settings, command

    def execute(self, context: Any) -> dict[str, Any]:
        """Run it. Raises its sentence, for Airflow to try again."""
        from dvc_engine.night import publish

        if (done := context["ti"].xcom_pull(task_ids=self.beside(PUBLISH))) is None:
            self.wait_for(context, [PUBLISH])
            raise refusal(context, Exception(f"{self.beside(PUBLISH)} has not said what it published; clear it"))
        try:
            (night, _), record = self.pinned(context), self.settings.repository
            record.fetch()
            record.have(night.run, done["commit"])
            now = replace(night, commit=done["commit"], tags=tags_of(record.path))
        except GitError as error:
            raise refusal(context, error, again=True) from None
        root = Path(self.settings.root)
        env = {**self.settings.env, "DVC_AIRFLOW_REPOSITORY": str(root), "DVC_AIRFLOW_RUN": night.run}
        self._command = self.command(context, self.text)
        try:
            cache = workspace.cache_of(root)
            with self.leased(context), attended(self.on_kill), self._sharing(record, now.tags):
                return publish.ask(self._command, now, now.commit, env, self.settings.clones, cache)
        except (publish.PublishError, GitError, OSError) as error:
            raise refusal(context, error, again=True) from None

    @contextmanager
    def _sharing(self, record: Repository, before: Mapping[str, str]) -> Iterator[None]:
        """Let the remote have the register's tags, whether a command ended well, badly, or was ended."""
        from dvc_engine.night.publish import PublishError

        try:
            yield
        except PublishError:  # why it ended is what people should read
            self.share(record)
            raise
        if tags_of(record.path) == before:
            self.share(record)  # what others made and the remote does not take is no failure of this one
            return
        try:
            record.share(self.settings.register)
        except GitError as error:
            raise GitError(f"`{self.text}` ended well, but the remote lacks tags that it made: {error}") from None


def released(done: Mapping[str, Any] | None) -> bool:
    """Whether what `publish` returned is a release that what follows it finds in the repository of record."""
    return bool(done and (done.get("said") or {}).get("released") and not done.get("refused"))
