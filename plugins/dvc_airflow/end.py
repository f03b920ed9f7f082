"""The last task of a night: night.json says what each stage did and why nothing was deployed; the lease goes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from airflow.sdk.exceptions import AirflowFailException

from dvc_airflow.operator import HOLDER, RESULTS, SENTENCE, Task, mendable, refusal, states
from dvc_airflow.publish import released
from dvc_airflow.settings import Settings, run_name
from dvc_engine.git import GitError, git, without_login
from dvc_engine.night import journal
from dvc_engine.pipeline.naming import PIN, PUBLISH, task_id
from dvc_engine.pipeline.project import Project, ProjectError
from dvc_engine.stage.outcome import WELL, Night, Result
from dvc_engine.store import lease
from dvc_engine.store.repository import Repository, checked_out
from dvc_engine.store.written import write

NEVER_BEGAN = ("upstream_failed", "skipped")  # states of a task that says nothing of tonight
NOT_GIVEN_BACK = "the lease was not given back, and goes stale: %s"

Unpublished = tuple[Night, Project, dict[str, Any]]  # what the pin fixed, and what the stages said


class EndOperator(Task):
    """Write night.json and give the lease back, however the night ended.

    A night may be cleared, and end otherwise. What a task said the first time Airflow keeps until it begins again, and
    below one that failed none does: so what it says counts by the state that it is in now.
    """

    states: Mapping[str, str] = MappingProxyType({})  # task → state; empty where Airflow does not tell

    def __init__(self, *, settings: Settings, after: list[str], asked: list[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings, self.after, self.asked = settings, after, asked

    def execute(self, context: Any) -> None:
        """Record the night. Fails when it was not published, or what follows a release failed: that is no success."""
        ti, run = context["ti"], run_name(context["run_id"])
        try:
            place = self._place(run)
        except GitError as error:
            raise refusal(context, error, again=True) from None
        self.states = states(ti, self.dag_id, context["run_id"])
        pinned = self.pinned(context, checkout=False) if self._returned(ti, PIN) else None
        self.named = self.named or ti.xcom_pull(task_ids=self.beside(PIN), key=HOLDER) or ""  # whose lease it is
        done = self._returned(ti, PUBLISH) or {}
        said = self._said(context, pinned[1]) if pinned else {}
        self._leave(context, run if pinned else None, None if done or not pinned else (*pinned, said))
        followed = {one: self._returned(ti, one) for one in self.after if released(done)}
        failed = next((one for one, said in followed.items() if said is None and not self._marked(one)), None)
        stages = self._stages(context, pinned[1], said) if pinned else {}
        sentence = self._sentence(ti, failed, stages)
        told = journal.night(run, done, followed, failed, sentence, stages, self.settings.headline)
        if pinned:
            more, lines = journal.of_commit(*pinned, stages)
            told |= more
            self.log.info("%s", lines or "no stage began")
        if told["refused"]:
            self.log.warning("the night is not on %s: %s", self.settings.branch, told["refused"])
        elsewhere = self._write(place, run, json.dumps(told, indent=2).encode())
        ended = sentence if failed else "" if done else journal.not_published(told)
        if why := "; ".join(filter(None, [ended, elsewhere])):
            raise (mendable(ti) if elsewhere else AirflowFailException)(why)

    def _returned(self, ti: Any, task: str) -> Any:
        """What a task returned tonight; None of one that did not end well."""
        unwell = self.states.get(self.beside(task)) in ("failed", *NEVER_BEGAN)
        return None if unwell else ti.xcom_pull(task_ids=self.beside(task))

    def _marked(self, task: str) -> bool:
        """Whether one that returned nothing is a success by somebody's hand."""
        return self.states.get(self.beside(task)) == "success"

    def _place(self, run: str) -> str:
        """Of night.json. Raises GitError: one in the checkout needs that first, for none can be made around a file."""
        if self.settings.record:
            return f"{self.settings.record}/{run}/night.json"
        if self.settings.checkout:
            checked_out(Path(self.settings.checkout), self.settings.remote)
        return self._here(run)

    def _here(self, run: str) -> str:
        return f"{self.settings.root}/.dvc/tmp/runs/{self.whose.rstrip('/.')}/{run}/night.json"

    def _write(self, place: str, run: str, told: bytes) -> str:
        """Write night.json; where its place takes nothing in the checkout, and a sentence about that. Else ""."""
        try:
            write(place, told)
        except Exception as error:  # a file system's own, of any kind
            here = self._here(run)
            if place == here or not Path(self.settings.root).is_dir():
                raise
            write(here, told)
            return without_login(f"the night is recorded in {here}, for {place} cannot be written: {error}")
        return ""

    def _leave(self, context: Any, pinned: str | None, unpublished: Unpublished | None = None) -> None:
        """Keep what ended well, remove what is not kept, give the lease back; where that fails the night does not.

        Args:
            pinned: the run, where it has pinned a commit; one that was refused may be called as another that has.
            unpublished: a night that is not.
        """
        owner = self.holder(context)
        try:
            record = self.settings.repository
            held = lease.read(record)
        except (GitError, OSError) as error:
            self.log.warning(NOT_GIVEN_BACK, error)
            self._remember(context, unpublished)  # where a remote is away it is kept in this checkout at least
            return
        try:
            if held and held.of(context["run_id"], owner):
                with self.leased(context):
                    self._remember(context, unpublished)
                    self._sweep()
            elif held is None and unpublished and _newest(record, unpublished[0]):  # a task was cleared after its end
                self._remember(context, unpublished)
            ours = held is None or held.of(context["run_id"], owner) or run_name(held.run) != pinned
            try:
                if pinned and ours:  # and not the pin of another night that is called the same
                    record.unpin(pinned)
            finally:
                lease.release(record, context["run_id"], owner)
        except (GitError, OSError) as error:
            self.log.warning(NOT_GIVEN_BACK, error)

    def _remember(self, context: Any, unpublished: Unpublished | None) -> None:
        """Keep what ended well for the next night to start from."""
        from dvc_engine.night import publish

        if unpublished is None:
            return
        night, known, said = unpublished
        results = self.results(context, night, known, [one.name for one in known.selected], said)
        try:
            record = self.settings.repository
            record.have(night.run, night.commit, night.tags.values())
            night = replace(night, repository=str(record.path))
            if commit := publish.remember(night, known, results, record):
                self.log.info("what ended well is kept for the next night: commit %s", commit)
        except (GitError, OSError, publish.PublishError) as error:
            self.log.warning("what ended well is not kept for the next night: %s", error)

    def _sweep(self) -> None:
        """Remove what is not kept; the lease is still held, so that no other night begins."""
        if self.settings.keep_nights is None:
            return
        from dvc_engine.store import gc

        try:
            record = self.settings.repository
            record.fetch()
            sweep = gc.look(Path(self.settings.root), record, self.settings.keep_nights, self.settings.keep_bytes)
            sweep.remove()
        except (GitError, OSError, ProjectError, ValueError) as error:  # a night is no failure for what it left
            self.log.warning("nothing was removed from the cache: %s", error)
        else:
            self.log.info("of the cache:\n%s", sweep.text())

    def _sentence(self, ti: Any, failed: str | None, stages: Mapping[str, Any]) -> str | None:
        """What the task said that ended the night; never None where that is `failed`, a command behind publish.

        Args:
            stages: what is recorded of them; those that are not lost say it there.
        """
        tasks = [*map(self.beside, [PIN, PUBLISH, failed] if failed else [PIN, PUBLISH]), *self.asked]
        mine = {task for task, state in self.states.items() if state == "failed" and task.startswith(self.beside(""))}
        tasks += sorted(mine - {self.beside(task_id(name)) for name, one in stages.items() if one["outcome"] != "lost"})
        began = [one for one in tasks if self.states.get(one) not in NEVER_BEGAN]
        said = next(filter(None, (ti.xcom_pull(task_ids=one, key=SENTENCE) for one in began)), None)
        return said or (f"{failed} did not end well and said nothing; read its log in Airflow" if failed else None)

    def _tasks(self, known: Project) -> dict[str, str]:
        """Stage → the id of its task, of those that are selected."""
        return {one.name: self.beside(task_id(one.name)) for one in known.selected}

    def _said(self, context: Any, known: Project) -> dict[str, Any]:
        """What each stage said tonight, those that did."""
        ti, tasks = context["ti"], self._tasks(known)
        asked = self.states.get(self.beside(PUBLISH)) not in NEVER_BEGAN  # it has asked them already
        said = dict(ti.xcom_pull(task_ids=self.beside(PUBLISH), key=RESULTS) or {}) if asked else {}
        began = [name for name, task in tasks.items() if self.states.get(task) not in NEVER_BEGAN]
        return self.tonights(said | self.told(context, [name for name in began if not said.get(name)]))

    def _stages(self, context: Any, known: Project, said: Mapping[str, Any]) -> dict[str, Any]:
        """What is recorded of each stage that ran; one whose task failed and does not say why was lost."""
        found: dict[str, Any] = {}
        for name, task in self._tasks(known).items():
            one = said.get(name)
            if (one is None or one["outcome"] in WELL) and self.states.get(task) == "failed":
                what = "without a result" if one is None else "or Airflow could not take its end, when it was well"
                place = f"dag_id={self.dag_id}/run_id={context['run_id']}/task_id={task}"
                sentence = f"its worker died, or a person ended it, {what}; Airflow's logs are in {place}"
                one = Result(name, "lost", sentence=sentence).as_json() | {"attempts": None}
            if one:
                found[name] = journal.of_stage(one, money(self.dag.get_task(task), one, self.settings.prices))
        return found


def _newest(record: Repository, night: Night) -> bool:
    """Whether no night has kept or published anything since this one, which has ended. Raises GitError."""
    record.fetch()
    since = [one for one in record.nights() if one not in night.seen]
    said = [git(record.path, "show", "-s", "--format=%s", one) for one in since]
    return all(one.startswith(f"Night {night.run} of ") for one in said)


def money(task: Any, said: Mapping[str, Any], prices: Mapping[str, float]) -> float | None:
    """What a stage's time in its task's slots of a pool costs; None for a pool without a price."""
    price = prices.get(task.pool)
    return None if price is None else round(said["seconds"] / 3600 * task.pool_slots * price, 6)
