"""The first task of a night: fix the commit, the entries to start from, the tags and the graph, and take the lease.

And the trigger form: what of params.yaml a run may override. A run's conf is what the form sent, or what somebody
wrote. Airflow checks it where a field has a schema, and lets keys in that no field has; so the pin checks it again,
against the params file of the commit that runs.
"""

from __future__ import annotations

import hashlib
import posixpath
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from airflow.sdk import Param, Variable
from airflow.sdk.exceptions import AirflowRuntimeError, AirflowSecretsBackendAccessDenied, ParamValidationError

from dvc_airflow.operator import HOLDER, KEPT, SETTLED, Task, refusal
from dvc_airflow.settings import Settings, run_name
from dvc_engine.git import GitError, tags_of, top
from dvc_engine.pipeline import check, kept, project, reading, selection, wire
from dvc_engine.pipeline.project import Project, Stage
from dvc_engine.stage.outcome import Night, of_disk
from dvc_engine.store import lease, params, snapshot, workspace, written
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import Repository

WAIT_FOR_SHAPE_S = 60.0
VERSION = 1  # of the kept form
INSTALLATION = "dvc_airflow_installation"  # the Variable that says which it is
# JSON schema's name of a value's type; null may become anything, and has the field of a text
_JSON: dict[type, Any] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
    type(None): ["null", "string", "number", "boolean", "array", "object"],
}


class PinOperator(Task):
    """Fix what this night runs: commit, entries, tags, graph; and take the lease.

    Attributes:
        fields: of a DAG of the night's own, key → default: in a task Airflow writes a run's conf into those of the DAG.
        own: whether its writer gave these, and not params.yaml: then they hold for runs that nobody triggers too.
    """

    linked, ui_color = True, "#e8f0fe"
    given: Sequence[str] = ()  # keys of params that this run has other values of

    def __init__(self, *, settings: Settings, shape: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings, self.shape = settings, shape
        self.fields: Mapping[str, Any] = {}
        self.own = False

    def execute(self, context: Any) -> dict[str, Any]:
        """Pin the night. Fails at once for another night under way, an unknown key, a graph that would change."""
        from dvc_engine.stage import job, start
        from dvc_engine.stage.settled import settled

        run, root = run_name(context["run_id"]), Path(self.settings.root)
        try:
            workspace.sweep(self.settings.clones)  # first, since on a full disk nothing else can be
            record = self.settings.repository
            if self.settings.record:  # else the night would run, and not be recorded
                written.refuse(self.settings.record)
            context["ti"].xcom_push(key=HOLDER, value=self.holder(context))  # who gives it back, should this fail
            self._lease(context)
            self.share(record)  # what was assigned since the last night; a fetch brings another's of that name
            record.fetch()
            repository, folder = top(root)
            commit = self._commit(context, record, folder)
            tags = tags_of(repository)
            place = job.folder(self.settings.clones, self.whose, run, self.task_id, context["ti"].try_number)
            clone = workspace.make(repository, commit, place, tags, workspace.cache_of(root), folder)
            known = reading.read(clone, kept.folder(root))
            check.refuse(clone, known)
            workspace.remove(place)
            known = selection.narrowed(known, self.settings.select, self.settings.exclude)
            pinned = Commit(repository, commit, folder)
            every, nearest = start.known(known, pinned, record)
            self._same_graph(context, known)
            record.pin(run, commit)
            seen = record.nights()
            night = Night(str(repository), commit, tags, every, run, folder, record.tip, (), nearest, seen)
            still = settled(night, known, self.settings.clones)
        except AirflowRuntimeError as error:  # its API, which may answer another time
            raise refusal(context, error, again=True) from None
        except GitError as error:  # a remote may answer another time
            raise refusal(context, error, again=bool(self.settings.remote)) from None
        except OSError as error:  # a full disk
            raise refusal(context, Exception(of_disk(error)), again=True) from None
        except (lease.Held, snapshot.Refused, project.ProjectError) as refused:
            raise refusal(context, refused) from None
        self.show(record.tip, commit)
        context["ti"].xcom_push(key=SETTLED, value={"commit": commit, "stages": list(still)})
        context["ti"].xcom_push(key=KEPT, value={name: one.as_json() | {"attempts": 1} for name, one in still.items()})
        night = replace(night, settled=list(still))
        let_out = [one.name for one in known.selected if one.airflow.approve and _let_out(night, one)]
        told = {"night": night.dumps(), "project": project.dumps(known), HOLDER: self.holder(context)}
        return told | {"let_out": let_out}

    def _commit(self, context: Any, record: Repository, folder: str) -> str:
        """The commit that this night runs, with what was chosen when it was triggered.

        It is the work tree's. In the engine's own checkout nobody works: there it is the commit that Airflow has the
        DAG of, where its bundle is a repository too, else the remote's HEAD.
        """
        repository, file = record.path, posixpath.join(folder, params.FILE)
        if record.own:
            bundle = getattr(context["ti"], "bundle_instance", None)  # none by `airflow dags test`
            commit = record.newest(bundle and bundle.version)
            record.follow(commit)
        else:
            if record.remote:
                snapshot.refuse_changes(repository, record.remote)
            root = Path(self.settings.root)
            commit = snapshot.of_tree(root, reading.read(root, kept.folder(root)))
        overrides = self._overrides(dict(context["dag_run"].conf or {}), params.values(repository, commit, file))
        if name := overrides.pop("profile", None):
            overrides = params.overlay(repository, commit, name, file) | overrides
        self.given = sorted(overrides)
        return params.override(repository, commit, overrides, file)

    def _overrides(self, conf: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted key → value that this run has instead of that in its params file.

        Of a group's DAG the other fields are its owner's, and so is what else a run's conf has; but not what begins as
        a key of the params file does.
        """
        if self.settings.group:
            fields, sections = self.dag.params.dump(), {key.partition(".")[0] for key in values}
            unknown = sorted(key for key in conf if key not in fields | values and key.partition(".")[0] in sections)
            if unknown:
                raise snapshot.Refused(f"the run's conf has {unknown[0]}, and {params.FILE} has no such key")
        else:
            fields, conf = dict(self.fields) if self.own else {}, params.chosen(conf, self.fields)
        said = {key: value for key, value in fields.items() if value is not None} | conf
        found = {key: value for key, value in said.items() if key in values or not self.settings.group}
        return _of_kind(found, values)

    def holder(self, context: Any) -> str:
        """Whose run it is, of which installation: two at one address, localhost say, call their runs the same."""
        self.named = self.named or f"{super().holder(context)} {_installation()}".strip()
        return self.named

    def _lease(self, context: Any) -> None:
        def ended(run: str) -> bool:
            return in_state(context["ti"], self.dag_id, run, ("success", "failed"))

        def running(run: str) -> bool:
            return in_state(context["ti"], self.dag_id, run, ("running", "queued"))

        record, host = self.settings.repository, socket.gethostname()
        lease.take(record, context["run_id"], host, time.time(), ended, self.holder(context), running)

    def _same_graph(self, context: Any, known: Project) -> None:
        """Wait until the scheduler follows the pinned commit's graph. Raises Refused when it does not."""
        if known.shape == self.shape:
            return
        deadline = time.monotonic() + WAIT_FOR_SHAPE_S
        while time.monotonic() < deadline:
            if shape_tag(known) in context["ti"].get_dag(self.dag_id).tags:
                return
            time.sleep(1)
        why = "the scheduler follows another graph than the pinned commit's; trigger again"
        if self.given:
            what = f"where the stages rest on {' or '.join(self.given)}, which this run was given"
            why += f", or {what}, write that in {params.FILE}"
        raise snapshot.Refused(why)


def _installation() -> str:
    """Which installation of Airflow this is, as the first night has called it; "" where tasks may not have Variables.

    Raises AirflowRuntimeError where its API does not answer: for another name it would be another.
    """
    try:
        for _ in range(3):  # no answer to this looks as no Variable does
            if found := Variable.get(INSTALLATION, default=None):
                return str(found)
        about = "Tells its nights from those that another Airflow publishes to the same Git remote"
        Variable.set(INSTALLATION, uuid4().hex, about)
        return str(Variable.get(INSTALLATION))  # another DAG's pin may have been faster
    except AirflowSecretsBackendAccessDenied:
        return ""
    except AirflowRuntimeError as error:
        if (error.error.detail or {}).get("status_code") not in (401, 403):
            raise
        return ""


def _let_out(night: Night, stage: Stage) -> bool:
    """Whether the branch of nights has what is known of a stage: a person let it out then."""
    from dvc_engine.store import history

    return night.tip is not None and history.published(night.at(night.tip), stage) == night.entries.get(stage.name)


def in_state(ti: Any, dag_id: str, run_id: str, states: Sequence[str]) -> bool:
    """Whether Airflow knows that a run is in one of these states; one that it cannot tell of is not."""
    with suppress(AirflowRuntimeError):
        return ti.get_dagrun_state(dag_id, run_id) in states
    return False


def shape_tag(known: Project) -> str:
    """The DAG tag that names a graph."""
    return f"dvc-{known.shape}"


def form(project: Path) -> dict[str, Param]:
    """A typed field for every value of params.yaml that a run may override, with what it is now as default.

    `profile`, where it names one of the file's `profiles`, is a choice among them.
    """
    path, folder = project / params.FILE, kept.folder(project)
    text = path.read_bytes() if path.is_file() else b""
    name = f"form-{VERSION}-{hashlib.sha256(text).hexdigest()[:24]}"
    found = kept.read(folder, name)
    if found is None:
        found = _read(path)
        kept.write(folder, name, found)
    profiles = {"profile": Param(found["chosen"], enum=found["profiles"])} if found["profiles"] else {}
    return profiles | {key: Param(value, **_schema(value)) for key, value in found["values"].items()}


def _read(path: Path) -> dict[str, Any]:
    """What a params file has for the form. Raises ProjectError for one that is no YAML."""
    document = dict(reading.document(path)) if path.is_file() else {}
    profiles, chosen = params.profiles(document), document.get("profile")
    if profiles:
        del document["profiles"], document["profile"]
    leaves = {key: value for key, value in params.leaves(document).items() if params.holding(document, key)}
    values = {key: value for key, value in leaves.items() if _is_field(value)}
    return {"profiles": list(profiles), "chosen": chosen, "values": values}


def _of_kind(overrides: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides, an integer as one: JSON has 4.0 for 4. Raises snapshot.Refused for one of another kind.

    Args:
        overrides: dotted key → value.
        values: dotted key → value of params.yaml; a key that it lacks is passed over.
    """
    found = dict(overrides)
    for key, value in overrides.items():
        now = values.get(key)
        if now is None or not _is_field(now):
            continue
        try:
            Param(now, **_schema(now)).resolve(value)
        except ParamValidationError:
            kind = _JSON[type(now)]
            what = f"{key} is {value!r}, and {params.FILE} has {now!r} there"
            raise snapshot.Refused(f"{what}: write a JSON {kind}") from None
        if type(now) is int and isinstance(value, float):
            found[key] = int(value)
    return found


def _is_field(value: Any) -> bool:
    """Whether a value can be a field: a date cannot, nor infinity, nor an integer of 65 bits, nor what holds one."""
    return type(value) in _JSON and wire.carried(value)  # an ordered mapping is another type


def _schema(value: Any) -> dict[str, Any]:
    """JSON schema of a field; a list with mappings says so, else the form shows them as '[object Object]'."""
    nested = isinstance(value, list) and any(isinstance(one, dict) for one in value)
    alike = nested and all(isinstance(one, dict) for one in value)
    items = {"type": "object" if alike else ["object", "array", "string", "number", "boolean", "null"]}
    return {"type": _JSON[type(value)]} | ({"items": items} if nested else {})
