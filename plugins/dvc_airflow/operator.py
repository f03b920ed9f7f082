"""The tasks of a night: pin, one for each stage, publish, commands after it, end.

They are thin: what they do stands in modules that know nothing of Airflow. A task whose failure another attempt may
mend (a lock, a store, a lost worker) raises what Airflow retries; a refusal or a stage's own failure is final.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowRuntimeError

from dvc_airflow import lease, plan, project, publish, reading, record, snapshot, workspace
from dvc_airflow.attempt import Attempt
from dvc_airflow.outcome import RETRIED, Night, Result
from dvc_airflow.project import Project
from dvc_airflow.workspace import GitError

WAIT_FOR_SHAPE_S = 60.0
PIN, PUBLISH, END = "pin", "publish", "end"


@dataclass(frozen=True)
class Settings:
    """What all tasks of a DAG share.

    Args:
        root: the checkout of record.
        branch: that nights are published on.
        refs: namespace for the lease and for what could not be published.
        env: variables for stages and commands; {clone} becomes the clone's path.
        publish: the project's command, run in a clone of the night's commit; None for none.
        record: folder for `<run>/night.json`.
        headline: key of night.json → 'stage.metric' that it shows.
        prices: of a slot of a pool for an hour, in any currency.
    """

    root: str
    branch: str
    refs: str
    env: Mapping[str, str]
    publish: str | None
    record: str
    headline: Mapping[str, str]
    prices: Mapping[str, float]

    @property
    def clones(self) -> Path:
        """Folder for the private clones of tasks on this host."""
        return Path(self.root) / ".dvc" / "tmp" / "clones"


def task_id(stage: str) -> str:
    """The id of a stage's task; `@` may not stand in one, so that items of a matrix become tasks of a group.

    'sub/dvc.yaml:train' is 'sub:train' here, and letters that an id may not hold are their numbers: 'sub_x3a_train'.
    """
    group, _, item = stage.replace(f"/{project.PIPELINE}:", ":").partition("@")
    safe = re.sub(r"[^A-Za-z0-9_-]", _numbered, group)
    return f"{safe}.{re.sub(r'[^A-Za-z0-9_.-]', _numbered, item)}" if item else safe


def _numbered(found: re.Match[str]) -> str:
    return f"_x{ord(found[0]):x}_"


def run_name(run_id: str) -> str:
    """A run's id as a name for refs and folders."""
    return re.sub(r"[^A-Za-z0-9-]+", "-", run_id).strip("-")


class Task(BaseOperator):
    """What the tasks of a night have in common."""

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    def pinned(self, context: Any) -> tuple[Night, Project]:
        """What the pin fixed."""
        said = context["ti"].xcom_pull(task_ids=PIN)
        return Night(**json.loads(said["night"])), project.loads(said["project"])

    def results(self, context: Any, stages: list[str]) -> dict[str, Result]:
        """Results of these stages tonight, those that there are."""
        found = {}
        for name in stages:
            said = context["ti"].xcom_pull(task_ids=task_id(name), key="result")
            if said:
                found[name] = Result.of(said)
        return found

    def leased(self, context: Any) -> AbstractContextManager[None]:
        """Renew the night's lease while the block runs."""
        return lease.renewed(Path(self.settings.root), self.settings.refs, context["run_id"], socket.gethostname())


class PinOperator(Task):
    """Fix what this night runs: commit, entries, tags, graph; and take the lease."""

    ui_color = "#e8f0fe"

    def __init__(self, *, shape: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shape = shape

    def execute(self, context: Any) -> dict[str, str]:
        """Pin the night. Fails at once for another night under way, an unknown key, a graph that would change."""
        run, root = run_name(context["run_id"]), Path(self.settings.root)
        try:
            self._lease(context)
            overrides = snapshot.chosen(context["dag_run"].conf or {}, self.dag.params.dump())
            commit = snapshot.take(root)
            if name := overrides.pop("profile", None):
                overrides = snapshot.overlay(root, commit, name) | overrides
            commit = snapshot.override(root, commit, overrides)
            tags = workspace.tags(root)
            workspace.sweep(self.settings.clones)
            clone = workspace.make(root, commit, self.settings.clones / f"{run}-pin", tags, workspace.cache_of(root))
            known = reading.read(clone, reading.kept(root))
            reading.refuse(clone, known)
            workspace.remove(clone)
            if lacks := plan.lacking(known, plan.Commit(root, commit)):
                raise snapshot.Refused(lacks)
            self._same_graph(context, known)
        except (lease.Held, snapshot.Refused, project.ProjectError, GitError) as refused:
            raise _refusal(context, refused) from None
        entries, came = publish.newest(root, self.settings.branch, self.settings.refs, commit, known)
        if never := [one.name for one in known.stages.values() if one.frozen and one.name not in entries]:
            what = f"{never[0]} is frozen, and no commit says what it made; run it once, or `dvc unfreeze` it"
            raise _refusal(context, snapshot.Refused(what))
        night = Night(str(root), commit, tags, entries, came, run)
        return {"night": json.dumps(asdict(night), default=str), "project": project.dumps(known)}

    def _lease(self, context: Any) -> None:
        def ended(run: str) -> bool:
            return has_ended(context["ti"], self.dag_id, run)

        root, refs, run = Path(self.settings.root), self.settings.refs, context["run_id"]
        lease.take(root, refs, run, socket.gethostname(), time.time(), ended)

    def _same_graph(self, context: Any, known: Project) -> None:
        """Wait until the scheduler follows the pinned commit's graph. Raises Refused when it does not."""
        if known.shape == self.shape:
            return
        deadline = time.monotonic() + WAIT_FOR_SHAPE_S
        while time.monotonic() < deadline:
            if shape_tag(known) in context["ti"].get_dag(self.dag_id).tags:
                return
            time.sleep(1)
        raise snapshot.Refused("the scheduler follows another graph than the pinned commit's; trigger again")


class StageOperator(Task):
    """One stage of dvc.yaml, in a clone of its own."""

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self._attempt: Attempt | None = None

    def execute(self, context: Any) -> str:
        """Run it. Raises for Airflow to retry what another attempt may mend, and to fail the rest."""
        night, known = self.pinned(context)
        number = context["ti"].try_number
        results = partial(self.results, context)
        self._attempt = Attempt(night, known, self.stage, results, self.settings.clones, self.settings.env, number)
        with self.leased(context):
            result = self._attempt.run()
        context["ti"].xcom_push(key="result", value=result.as_json() | {"attempts": number})
        self.log.info("%s: %s in %.1f s %s", self.stage, result.outcome, result.seconds, result.sentence)
        if result.undeclared:
            paths = ", ".join(result.undeclared)
            self.log.warning(
                "%s wrote what it does not declare, and no other stage sees: %s; add it to outs", self.stage, paths
            )
        if result.well:
            return result.outcome
        sentence = f"{self.stage}: {result.outcome}: {result.sentence}"
        raise AirflowException(sentence) if result.outcome in RETRIED else AirflowFailException(sentence)

    def on_kill(self) -> None:
        """End the stage and everything that it started."""
        if self._attempt is not None:
            self._attempt.kill()


class PublishOperator(Task):
    """Write the night as one commit."""

    ui_color = "#e6f4ea"

    def execute(self, context: Any) -> dict[str, Any]:
        """Publish. Fails when a stage has no result."""
        night, known = self.pinned(context)
        results = self.results(context, list(known.stages))
        shared = self.settings
        try:
            env = {**shared.env, "DVC_AIRFLOW_REPOSITORY": shared.root, "DVC_AIRFLOW_RUN": night.run}
            done = publish.publish(
                night, known, results, shared.branch, shared.refs, shared.publish, env, shared.clones
            )
        except (publish.PublishError, GitError) as error:
            raise _refusal(context, error) from None
        return asdict(done)


class CommandOperator(Task):
    """A command of the project in a clone of what was published."""

    def __init__(self, *, command: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.command = command

    def execute(self, context: Any) -> dict[str, Any]:
        """Run it. Raises its sentence, for Airflow to try again."""
        night, _ = self.pinned(context)
        done = context["ti"].xcom_pull(task_ids=PUBLISH)
        root = Path(self.settings.root)
        now = Night(night.repository, done["commit"], workspace.tags(root), {}, {}, f"{night.run}-{self.task_id}")
        env = {**self.settings.env, "DVC_AIRFLOW_REPOSITORY": str(root), "DVC_AIRFLOW_RUN": night.run}
        try:
            return publish.ask(self.command, now, now.commit, env, self.settings.clones, workspace.cache_of(root))
        except (publish.PublishError, GitError) as error:
            raise _refusal(context, error, AirflowException) from None


class EndOperator(Task):
    """Write night.json and give the lease back, however the night ended."""

    def __init__(self, *, after: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.after = after

    def execute(self, context: Any) -> None:
        """Record the night. Fails when it was not published, or what follows a release failed: that is no success."""
        ti, run = context["ti"], run_name(context["run_id"])
        lease.release(Path(self.settings.root), self.settings.refs, context["run_id"])
        done = ti.xcom_pull(task_ids=PUBLISH) or {}
        followed = {one: ti.xcom_pull(task_ids=one) for one in self.after}
        failed = next((one for one, said in followed.items() if said is None), None) if released(done) else None
        told: dict[str, Any] = {"run": run, "sentence": self._sentence(ti, failed), "published": done.get("commit")}
        told |= {"new": done.get("new", False), "refused": done.get("refused", ""), "stages": {}}
        told["ended"] = round(time.time(), 3)
        if ti.xcom_pull(task_ids=PIN):
            night, known = self.pinned(context)
            told |= {"commit": night.commit, "stages": self._stages(context, known)}
        told |= {key: record.metric(told["stages"], place) for key, place in self.settings.headline.items()}
        told |= {"released": None, "deployed": None, **dict(done.get("said", {}))}
        for said in followed.values():
            told |= said or {}
        why = told.get("why_not_deployed") or record.why_not(done, failed)  # a command's own reason, where it gave one
        told["why_not_deployed"] = None if told["deployed"] else why
        place = Path(self.settings.record) / run / "night.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_suffix(".draft")
        draft.write_text(json.dumps(told, indent=2), encoding="utf-8")
        draft.replace(place)
        if failed:
            raise AirflowFailException(told["sentence"])
        if not done:
            raise AirflowFailException("the night was not published; the first failed task says why")

    def _sentence(self, ti: Any, failed: str | None) -> str | None:
        """What the task said that ended the night; never None where that is `failed`, a command behind publish."""
        tasks = (PIN, PUBLISH, failed) if failed else (PIN, PUBLISH)
        said = next(filter(None, (ti.xcom_pull(task_ids=one, key="sentence") for one in tasks)), None)
        return said or (f"{failed} did not end well and said nothing; read its log in Airflow" if failed else None)

    def _stages(self, context: Any, known: Project) -> dict[str, Any]:
        """What is recorded of each stage that ran; one that failed without a result was lost each time."""
        ti, run_id, names = context["ti"], context["run_id"], list(known.stages)
        said = {name: ti.xcom_pull(task_ids=task_id(name), key="result") for name in names}
        states = {} if all(said.values()) else _states(ti, self.dag_id, run_id)
        for name in names:
            if not said[name] and states.get(task_id(name)) == "failed":
                place = f"dag_id={self.dag_id}/run_id={run_id}/task_id={task_id(name)}"
                sentence = f"its worker died, or a person ended it, without a result; Airflow's logs are in {place}"
                said[name] = Result(name, "lost", sentence=sentence).as_json() | {"attempts": None}
        prices = self.settings.prices
        return {
            name: record.reported(one, record.money(known.stages[name], one, prices))
            for name, one in said.items()
            if one
        }


def released(done: Mapping[str, Any] | None) -> bool:
    """Whether what `publish` returned is a release that what follows it finds in the repository of record."""
    return bool(done and (done.get("said") or {}).get("released") and not done.get("refused"))


def has_ended(ti: Any, dag_id: str, run_id: str) -> bool:
    """Whether Airflow knows that a run has ended; a run that it cannot tell of has not."""
    with suppress(AirflowRuntimeError):
        return ti.get_dagrun_state(dag_id, run_id) in ("success", "failed")
    return False


def _states(ti: Any, dag_id: str, run_id: str) -> Mapping[str, str]:
    """Task → state in a run; empty where Airflow does not tell."""
    with suppress(AirflowRuntimeError):
        found: Mapping[str, str] = ti.get_task_states(dag_id, run_ids=[run_id]).get(run_id) or {}
        return found
    return {}


def _refusal(context: Any, error: Exception, kind: type[AirflowException] = AirflowFailException) -> AirflowException:
    """What ends a task, by default for good; its sentence is kept for night.json."""
    context["ti"].xcom_push(key="sentence", value=str(error))
    return kind(str(error))


def shape_tag(known: Project) -> str:
    """The DAG tag that names a graph."""
    return f"dvc-{known.shape}"
