"""A project as a DAG, or as a group in one: a task a stage, pin before and publish after.

    DvcDag("nightly", ROOT, schedule="0 2 * * *", publish="python -m release.publish")

    with DAG("mine", schedule="@daily"):
        extract() >> DvcTaskGroup("models", ROOT, select=["+train"]) >> tell()

Nothing is said twice: a stage added to dvc.yaml is a task with no other change. What the scheduler must know of the
graph is its shape, which stands on the DAG as a tag, so that a pin can tell whether the scheduler follows the
commit that it pinned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.sdk import DAG, Asset, BaseOperator, TaskGroup, get_parsing_context

from dvc_airflow import operator
from dvc_airflow.end import EndOperator
from dvc_airflow.pin import PinOperator, form, shape_tag
from dvc_airflow.publish import CommandOperator, PublishOperator, released
from dvc_airflow.settings import Settings, night, refuse_command
from dvc_engine.pipeline.naming import END, PIN, PUBLISH, RELEASED, approval, task_id
from dvc_engine.pipeline.project import Project, ProjectError, Stage, outside

RETRIES = 2
FIRST, LONGEST = timedelta(seconds=5), timedelta(minutes=1)  # between retries


def DvcDag(  # noqa: N802  a DAG's class by its users' eyes
    dag_id: str, project: Path | str, *, late_after: timedelta | None = None, on_late: str | None = None, **options: Any
) -> DAG:
    """The DAG of a DVC project.

    What a stage's `meta.airflow` may say is in dvc_engine.pipeline.meta. Only what another attempt may mend is tried
    again (a lock, a store, a lost worker): `failed` and `refused` never are.

    Args:
        dag_id: its name in Airflow.
        project: the folder with `.dvc`, in the checkout of record.
        late_after: how long a night may take, from when it was asked for, before `on_late` is run in the checkout;
            {run} in that command becomes the night's name. The night goes on.
        options: those of `night`; all others are for Airflow's DAG (schedule, params, …).

    Raises:
        ProjectError: dvc.yaml cannot be used as it is.
    """
    project = Path(project).expanduser().absolute()
    (known, settings, after), dag = _night(project, options)
    fields = dag.pop("params", None)
    dag = {"catchup": False, "max_active_runs": 1} | dag | {"tags": [*(dag.get("tags") or []), shape_tag(known)]}
    if late_after is not None and not (isinstance(late_after, timedelta) and late_after > timedelta()):
        raise ProjectError(f"late_after is {late_after!r}: it is a timedelta, above 0")
    if (late_after is None) != (on_late is None):
        raise ProjectError("late_after and on_late go together: after how long a night is late, and what is run then")
    if late_after and on_late:
        from dvc_airflow import late

        refuse_command("on_late", on_late)
        dag |= {"deadline": late.alert(late_after, on_late, settings)}
    with DAG(dag_id, **dag) as made:
        pin = _tasks(known, settings, after, dag_id, project)
    # not before, since every task would take a copy of a hundred fields along; and no stage reads them, but each would
    # spend a tenth of a second on checking them
    if get_parsing_context().task_id in (None, PIN):
        made.params = form(project) if fields is None else fields
        pin.fields = {key: field.value if field.has_value else None for key, field in made.params.items()}
        pin.own = fields is not None
    return made


def DvcTaskGroup(group_id: str, project: Path | str, **options: Any) -> TaskGroup:  # noqa: N802  as DvcDag
    """A DVC project inside the DAG that is being made, with all that belongs to a night of it.

    What comes before the group is done before the commit is pinned, so a task may write into the checkout; what comes
    after it runs once the night is recorded. Params of the DAG that params.yaml names override it; the others are the
    DAG's own.

    Args:
        group_id: its name in the DAG, before the id of each of its tasks.
        project: the folder with `.dvc`, in the checkout of record.
        options: those of `night`; all others are for Airflow's TaskGroup (tooltip, default_args, …).

    Raises:
        ProjectError: dvc.yaml cannot be used as it is.
    """
    project = Path(project).expanduser().absolute()
    (known, settings, after), group = _night(project, options)
    with TaskGroup(group_id, **group) as made:
        if not made.child_id(""):
            raise ProjectError(
                "prefix_group_id: a night finds its tasks by the group's name before theirs; leave it out"
            )
        own = replace(settings, group=made.child_id(""))
        _tasks(known, own, after, f"{made.dag.dag_id}/{made.group_id}", project)
    made.dag.tags.add(shape_tag(known))
    return made


def _night(
    project: Path, options: dict[str, Any]
) -> tuple[tuple[Project, Settings, Mapping[str, str]], dict[str, Any]]:
    """What `night` makes of those options that are its own, and the others. Raises ProjectError."""
    ours = {name for name in signature(night).parameters if name != "project"} & set(options)
    others = {name: options[name] for name in options if name not in ours}
    return night(project, **{name: options[name] for name in ours}), others


def _tasks(known: Project, settings: Settings, after: Mapping[str, str], where: str, root: Path) -> PinOperator:
    """The tasks of a night, in the DAG or the group that is being made; the first of them.

    Args:
        where: the DAG's name, or the group's in it.
        root: of the project as it is read here; `settings.root` is where a worker has it.
    """
    again = _again(settings)
    pin = PinOperator(task_id=PIN, settings=settings, shape=known.shape, **again)
    tasks = _stages(known, settings, where, root)
    last = PublishOperator(task_id=PUBLISH, settings=settings, **again)
    asked = _approvals(known, tasks, f"{settings.group}{PIN}")
    for name, task in tasks.items():
        above = [asked.get(one, tasks[one]) for one in known.upstream(name) if one in tasks]
        _order(task, above or [pin])
    read = {above for name in tasks for above in known.upstream(name)}
    _order(last, [asked.get(name, task) for name, task in tasks.items() if name not in read])
    ends = _after(after, last, settings)
    people = [one.task_id for one in asked.values()]
    ended: dict[str, Any] = {"after": list(after), "asked": people, "trigger_rule": "all_done"}
    end = EndOperator(task_id=END, settings=settings, **ended, **again)
    _order(end, [*ends, *tasks.values()])
    return pin


def _order(task: BaseOperator, above: Iterable[BaseOperator]) -> None:
    """As `task.set_upstream(above)`, which hashes a DAG with the ids of all its tasks, twice for each edge.

    That is a fifth of the time that a DAG of 2,000 tasks takes.
    """
    for one in above:
        task.upstream_task_ids.add(one.task_id)
        one.downstream_task_ids.add(task.task_id)


def retried(times: int = RETRIES) -> dict[str, Any]:
    """What Airflow is told of a task that is to be tried so often again: by itself over some minutes, for an outage.

    Airflow counts attempts that never began: while its API server does not answer, each ends after some seconds, and
    two retries were gone 25 s after a lost worker was noticed (killed for two minutes, Airflow 3.3.2). So Airflow is
    given three more, further and further apart. It does not tell which attempts began: so one that fails is the last
    (`mendable` in operator.py) once no more than three are left, whatever used up the others.
    """
    apart = {"retry_delay": FIRST, "retry_exponential_backoff": 2.0, "max_retry_delay": LONGEST}
    return {"retries": times + operator.OUTAGE, **apart} if times else {"retries": 0}


def _again(settings: Settings) -> dict[str, Any]:
    """What Airflow is told of the engine's own tasks."""
    return retried() | ({"queue": settings.queue} if settings.queue else {})


def _stages(known: Project, settings: Settings, where: str, root: Path) -> dict[str, BaseOperator]:
    """Stage → its task.

    A task that runs is not given the assets that it makes as outlets: Airflow would ask about them before it begins,
    and one that made nothing new names none when it has ended.
    """
    groups: dict[str, TaskGroup] = {}
    tasks: dict[str, BaseOperator] = {}
    running = get_parsing_context().task_id
    for stage in known.selected:
        group, _, item = task_id(stage.name).partition(".")
        if item and group not in groups:
            groups[group] = TaskGroup(group)
        tasks[stage.name] = operator.StageOperator(
            task_id=item or group,
            task_display_name=stage.name,
            stage=stage.name,
            settings=settings,
            doc_md=_about(stage),
            **({} if running else {"outlets": _assets(where, stage)}),
            assets=partial(_assets, where, stage),
            **({"task_group": groups[group]} if item else {}),
            **_airflow(stage),
        )
        if stage.airflow.podded:
            from dvc_airflow import pod

            pod.give(tasks[stage.name], stage, root, settings.pods)
    return tasks


def _assets(where: str, stage: Stage) -> list[Asset]:
    return [_asset(where, out.path) for out in stage.outs]


def _asset(where: str, path: str) -> Asset:
    """An out as an asset: what it is now stands in the events of its stage's task."""
    uri = path if outside(path) and "://" in path else f"dvc://{quote(where)}/{quote(path)}"
    return Asset(name=uri, uri=uri, extra={"path": path})


def _approvals(known: Project, tasks: Mapping[str, BaseOperator], pin: str) -> dict[str, BaseOperator]:
    """Stage → the task in which a person decides whether what it made is read and published."""
    asked = {name: known.stages[name] for name in tasks if known.stages[name].airflow.approve}
    return {name: _approval(stage, tasks[name], pin) for name, stage in asked.items()}


def _approval(stage: Stage, task: BaseOperator, pin: str) -> BaseOperator:
    from dvc_airflow.approve import ApproveOperator

    group, _, item = task_id(stage.name).partition(".")
    made = ApproveOperator(
        task_id=approval(item or group),
        task_group=task.task_group,
        task_display_name=f"{stage.name}: approve",
        subject=str(stage.airflow.approve),
        body=_about(stage),
        stage=stage.name,
        made_by=task.task_id,
        pin=pin,
        **retried(),
    )
    _order(made, [task])
    return made


def _airflow(stage: Stage) -> dict[str, Any]:
    """What Airflow is told of a stage's task, from `meta.airflow`."""
    said = stage.airflow
    told: dict[str, Any] = {"queue": said.queue, "executor": said.executor, "owner": said.owner}
    told |= {"execution_timeout": said.execution_timeout, "pool": said.pool, "pool_slots": said.slots}
    return {name: value for name, value in told.items() if value is not None} | retried(said.retries)


def _about(stage: Stage) -> str:
    cmd = "\n".join(stage.cmd) if isinstance(stage.cmd, list) else stage.cmd
    does = "Fetches it anew." if stage.imported else f"```\n{cmd}\n```"
    lines = [stage.desc, "", does, ""]
    lines += [f"- reads `{dep}`" for dep in stage.deps]
    return "\n".join([*lines, *(f"- makes `{out.path}`" for out in stage.outs)])


def _after(after: Mapping[str, str], last: BaseOperator, settings: Settings) -> list[BaseOperator]:
    """The commands behind publish, one after another; skipped, and the run well, when nothing was released."""
    if not after:
        return [last]
    from airflow.providers.standard.operators.python import ShortCircuitOperator

    gate = ShortCircuitOperator(
        task_id=RELEASED,
        python_callable=_released,
        op_kwargs={"publish": f"{settings.group}{PUBLISH}"},
        ignore_downstream_trigger_rules=False,
        **_again(settings),
    )
    _order(gate, [last])
    above: BaseOperator = gate
    for name, command in after.items():
        task = CommandOperator(task_id=name, command=command, settings=settings, **_again(settings))
        _order(task, [above])
        above = task
    return [last, above]


def _released(ti: Any, publish: str = PUBLISH) -> bool:
    return released(ti.xcom_pull(task_ids=publish))
