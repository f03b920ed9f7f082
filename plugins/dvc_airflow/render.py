"""A project as a DAG: a task a stage, a group for each matrix or foreach, pin before and publish after.

    DvcDag("nightly", project=ROOT, schedule="0 2 * * *", publish="python -m release.publish")

Nothing is said twice: a stage added to dvc.yaml is a task with no other change. What the scheduler must know of the
graph is its shape, which stands on the DAG as a tag, so that a pin can tell whether the scheduler follows the
commit that it pinned.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.python import ShortCircuitOperator
from airflow.sdk import DAG, BaseOperator, Param, TaskGroup, get_parsing_context
from ruamel.yaml import YAML

from dvc_airflow import operator, reading, snapshot
from dvc_airflow.operator import END, PIN, PUBLISH, Settings
from dvc_airflow.project import Project, Stage

RETRIES = 2
RETRY_DELAY = timedelta(seconds=5)


def DvcDag(  # noqa: N802  a DAG's class by its users' eyes
    dag_id: str,
    project_root: Path,
    *,
    branch: str = "dvc-airflow",
    refs: str = "refs/dvc-airflow",
    env: Mapping[str, str] | None = None,
    publish: str | None = None,
    after: Mapping[str, str] | None = None,
    headline: Mapping[str, str] | None = None,
    prices: Mapping[str, float] | None = None,
    record: Path | None = None,
    **dag: Any,
) -> DAG:
    """The DAG of a DVC project.

    A stage's `meta.airflow` may name `pool`, `slots` (of the pool; 1) and `retries` (2); other keys are refused. Only
    what another attempt may mend is tried again (a lock, a store, a lost worker): `failed` and `refused` never are.

    Args:
        dag_id: its name in Airflow.
        project_root: the checkout of record.
        branch: that nights are published on.
        refs: namespace for the lease and for what could not be published.
        env: variables for stages and commands; {clone} becomes the clone's path.
        publish: command run in a clone of the night's commit; its last line is JSON with message, tags, released.
        after: task → command to run, in this order, when `publish` said that something was released and the push was
            not refused. One that fails is tried again, so it must bear to be repeated; the night is then no success.
        headline: key of night.json → 'stage.metric' that it shows.
        prices: pool → price of a slot for an hour; night.json then says what each stage cost.
        record: folder for `<run>/night.json`; default `.dvc/tmp/runs`.
        dag: passed to Airflow's DAG (schedule, params, …).

    Raises:
        ProjectError: dvc.yaml cannot be used as it is.
    """
    known = reading.read(project_root, reading.kept(project_root))
    reading.refuse(project_root, known)
    kept = record or project_root / ".dvc" / "tmp" / "runs"
    shown, priced = dict(headline or {}), dict(prices or {})
    settings = Settings(str(project_root), branch, refs, dict(env or {}), publish, str(kept), shown, priced)
    options: dict[str, Any] = {"catchup": False, "max_active_runs": 1} | dag
    fields = options.pop("params", None)
    options["tags"] = [*options.get("tags", []), operator.shape_tag(known)]
    with DAG(dag_id, **options) as made:
        pin = operator.PinOperator(task_id=PIN, settings=settings, shape=known.shape)
        tasks = _stages(known, settings)
        last = operator.PublishOperator(task_id=PUBLISH, settings=settings)
        for name, task in tasks.items():
            above = [tasks[one] for one in known.upstream(name)]
            task.set_upstream(above or [pin])
        last.set_upstream([task for name, task in tasks.items() if not _read(known, name)] or [pin])
        ends = _after(after or {}, last, settings)
        end = operator.EndOperator(task_id=END, settings=settings, after=list(after or {}), trigger_rule="all_done")
        end.set_upstream([*ends, *tasks.values()])
    # not before, since every task would take a copy of a hundred fields along; and no stage reads them, but each would
    # spend a tenth of a second on checking them
    if get_parsing_context().task_id in (None, PIN):
        made.params = form(project_root) if fields is None else fields
    return made


def form(project_root: Path, file: str = "params.yaml") -> dict[str, Param]:
    """The trigger form: a typed field for every value of a params file, with what it is now as default.

    `profile`, where the file has `profiles`, is a choice among them.
    """
    path = project_root / file
    document = YAML(typ="safe").load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    profiles = document.pop("profiles", None) or {}
    chosen = document.pop("profile", None)
    fields = {key: Param(value, **_schema(value)) for key, value in snapshot.leaves(document).items()}
    return ({"profile": Param(chosen, enum=list(profiles))} if profiles else {}) | fields


# JSON schema's name of a value's type; None may become anything
_JSON: dict[type, Any] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    type(None): ["null", "string", "number"],
}


def _schema(value: Any) -> dict[str, Any]:
    """JSON schema of a field; a list of mappings says so, else the form shows it as '[object Object]'."""
    nested = isinstance(value, list) and any(isinstance(one, dict) for one in value)
    return {"type": _JSON[type(value)]} | ({"items": {"type": "object"}} if nested else {})


def _stages(known: Project, settings: Settings) -> dict[str, BaseOperator]:
    groups: dict[str, TaskGroup] = {}
    tasks: dict[str, BaseOperator] = {}
    for name, stage in known.stages.items():
        group, _, item = operator.task_id(name).partition(".")
        if item and group not in groups:
            groups[group] = TaskGroup(group)
        tasks[name] = operator.StageOperator(
            task_id=item or group,
            task_group=groups.get(group) if item else None,
            task_display_name=name,
            stage=name,
            settings=settings,
            doc_md=_about(stage),
            **_airflow(stage),
        )
    return tasks


def _airflow(stage: Stage) -> dict[str, Any]:
    """Pool, slots and retries of a stage, from `meta.airflow`."""
    again = {"retries": int(stage.airflow.get("retries", RETRIES)), "retry_delay": RETRY_DELAY}
    return {"pool": stage.pool, "pool_slots": stage.slots, **again}


def _about(stage: Stage) -> str:
    lines = [stage.desc, "", f"```\n{stage.cmd}\n```", ""]
    lines += [f"- reads `{dep}`" for dep in stage.deps]
    return "\n".join([*lines, *(f"- makes `{out.path}`" for out in stage.outs)])


def _read(known: Project, name: str) -> bool:
    """Whether another stage reads what this one makes."""
    return any(name in known.upstream(other) for other in known.stages)


def _after(after: Mapping[str, str], last: BaseOperator, settings: Settings) -> list[BaseOperator]:
    """The commands behind publish, one after another; skipped, and the run well, when nothing was released."""
    if not after:
        return [last]
    gate = ShortCircuitOperator(task_id="released", python_callable=_released, ignore_downstream_trigger_rules=False)
    gate.set_upstream(last)
    above: BaseOperator = gate
    for name, command in after.items():
        again: dict[str, Any] = {"retries": RETRIES, "retry_delay": RETRY_DELAY}
        task = operator.CommandOperator(task_id=name, command=command, settings=settings, **again)
        task.set_upstream(above)
        above = task
    return [last, above]


def _released(ti: Any) -> bool:
    return operator.released(ti.xcom_pull(task_ids=PUBLISH))
