"""The pod that Airflow's KubernetesExecutor would ask a cluster for, without one; and whether Kubernetes knows it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest


def stage(airflow: str) -> str:
    return f"stages:\n  one:\n    cmd: a\n    outs: [x]\n    meta:\n      airflow: {airflow}\n"


class Api:
    """A cluster that is not there: it takes pods, and remembers them as they came over the wire."""

    def __init__(self) -> None:
        from kubernetes.client import ApiClient, Configuration

        self.api_client, self.created = ApiClient(Configuration()), list[dict[str, Any]]()

    def create_namespaced_pod(self, body: dict[str, Any], namespace: str, **kwargs: Any) -> None:
        self.created.append(json.loads(json.dumps(body)))


def created(dag: Any, monkeypatch: pytest.MonkeyPatch, template: Path) -> dict[str, Any]:
    """The pod that Airflow's KubernetesExecutor asks a cluster for when the task's turn has come.

    The DAG is read back from its serialised form, and the task's executor_config from a column of the database, as
    the scheduler has them.
    """
    from airflow.executors.workloads import BundleInfo, ExecuteTask
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.models.taskinstance import TaskInstance
    from airflow.providers.cncf.kubernetes.executors import kubernetes_executor, kubernetes_executor_utils
    from airflow.serialization.serialized_objects import DagSerialization
    from sqlalchemy.dialects.sqlite import dialect

    read = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    column = TaskInstance.__table__.c.executor_config.type
    kept = column.bind_processor(dialect())(read.get_task("one").executor_config)
    config = column.result_processor(dialect(), None)(kept)
    ti = TaskInstanceDTO(
        id=uuid.uuid4(), dag_version_id=uuid.uuid4(), task_id="one", dag_id="toy", run_id="run", try_number=1,
        map_index=-1, pool_slots=1, queue="default", priority_weight=1, executor_config=config,
    )  # fmt: skip
    bundle = BundleInfo(name="project", version="c" * 40)
    work = ExecuteTask(ti=ti, dag_rel_path=Path("dags/toy.py"), token="t", log_path="log", bundle_info=bundle)
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE", str(template))
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE", "nightshift")
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY", "nightshift")
    monkeypatch.setenv("AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG", "main")
    scheduler = kubernetes_executor_utils.AirflowKubernetesScheduler
    monkeypatch.setattr(scheduler, "_make_kube_watchers", lambda self: {})  # they would ask a cluster for news
    executor, api = kubernetes_executor.KubernetesExecutor(), Api()
    executor.job_id, executor.scheduler_job_id, executor.task_queue = 1, "1", Queue()
    executor.queue_workload(work, session=SimpleNamespace())
    executor._process_workloads([work])
    assert executor.event_buffer[next(iter(executor.event_buffer))][0] == "queued"
    scheduler(executor.kube_config, Queue(), api, "1").run_next(executor.task_queue.get_nowait())
    (pod,) = api.created
    return pod


def known(pod: Mapping[str, Any], api: Api, model: str = "V1Pod") -> bool:
    """Whether an object is one by Kubernetes' own models: keys known, values of their type, what is required there.

    Reading it back drops what no model knows, and refuses what a model requires.
    """
    read = api.api_client.deserialize(SimpleNamespace(data=json.dumps(pod)), model)
    return bool(api.api_client.sanitize_for_serialization(read) == pod)
