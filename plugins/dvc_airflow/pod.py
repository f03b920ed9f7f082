"""The pod of a stage: what Airflow's KubernetesExecutor lays over its pod template for a stage with `image` or `pod`.

A stage that asks for one goes to the executor that makes pods, where Airflow has several. Where it has none, the DAG
is refused: in another image the command would run among other packages than it was written for, and nobody would
know. A DAG that is to run there all the same says `pods=False`.

What a pod has is for the scheduler alone. So the Kubernetes client, which takes a second to import, is imported where
a DAG with such a stage is parsed, and never in a task: in a pod Airflow may well be told of another executor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.executors.executor_loader import ExecutorLoader
from airflow.sdk import BaseOperator, get_parsing_context

from dvc_engine.pipeline import check
from dvc_engine.pipeline.meta import Meta, Wrong
from dvc_engine.pipeline.pod import GPU, Pod
from dvc_engine.pipeline.project import Stage

CONTAINER = "base"  # by this name the executor finds the one that runs the task
BESIDE = (
    1 << 30
)  # bytes for what runs beside a stage's command: 0.25 GB of Airflow's and DVC's processes, and a remote's client
SHM = "dshm"


def give(task: BaseOperator, stage: Stage, root: Path, pods: bool) -> None:
    """Give a task the pod that its stage asks for, and an executor that makes pods.

    Args:
        root: of the project, for the line of what is wrong.
        pods: False to let it run where the others do.

    Raises:
        ProjectError: nothing here can make it.
    """
    said = stage.airflow
    if get_parsing_context().task_id:
        return
    if not pods:
        task.executor = None
        return
    try:
        task.executor = _executor(task.executor, said)
        task.executor_config = {"pod_override": _pod(said)}
    except Wrong as error:
        raise check.wrong(root, stage, error) from None


def _executor(named: str | None, said: Meta) -> str | None:
    """The executor of a task with a pod: the one that it names, Airflow's own, or another of it that makes pods."""
    every = [one for one in ExecutorLoader.get_executor_names(validate_teams=False) if not one.team_name]
    known = {one.alias or one.module_path: one.module_path for one in every}
    mine = named or next(iter(known))
    path = next((path for name, path in known.items() if mine in (name, path, path.rpartition(".")[2])), mine)
    if _makes_pods(path):
        return named
    key = "pod" if said.pod else "image"
    if named:
        raise Wrong((key,), f"{key}: executor {named} makes no pods; name KubernetesExecutor, or none")
    if found := [name for name, path in known.items() if _makes_pods(path)]:
        return found[0]
    what = f"Airflow makes no pods here, its [core] executor is {', '.join(known)}; add KubernetesExecutor to it"
    raise Wrong((key,), f"{key}: {what}, or let the DAG say pods=False to run the stage where the others run")


def _makes_pods(executor: str) -> bool:
    """Whether an executor, by its class or its alias, is Kubernetes' or made from it."""
    return "Kubernetes" in executor.rpartition(".")[2]


def _pod(said: Meta) -> Any:
    """A V1Pod with what the stage says, and nothing that it does not: all else is the template's."""
    try:
        from kubernetes.client import models
    except ImportError:
        what = "the Kubernetes client is not installed: pip install apache-airflow-providers-cncf-kubernetes"
        raise Wrong(("pod" if said.pod else "image",), what) from None
    pod = said.pod or Pod()
    requests, limits = dict(pod.requests), dict(pod.limits)
    if said.memory and "memory" not in requests | limits:
        requests["memory"] = limits["memory"] = str(said.memory + BESIDE)
    if pod.gpus:
        limits[GPU] = str(pod.gpus)
    names = {path: f"claim-{number}" for number, path in enumerate(pod.volumes)}
    volumes = [
        models.V1Volume(
            name=names[path],
            persistent_volume_claim=models.V1PersistentVolumeClaimVolumeSource(claim_name=claim),
        )
        for path, claim in pod.volumes.items()
    ]
    mounts = [models.V1VolumeMount(name=name, mount_path=path) for path, name in names.items()]
    if pod.shm:
        held = models.V1EmptyDirVolumeSource(medium="Memory", size_limit=pod.shm)
        volumes.append(models.V1Volume(name=SHM, empty_dir=held))
        mounts.append(models.V1VolumeMount(name=SHM, mount_path="/dev/shm"))
    resources = models.V1ResourceRequirements(requests=requests or None, limits=limits or None)
    container = models.V1Container(
        name=CONTAINER,
        image=said.image,
        resources=resources if requests or limits else None,
        volume_mounts=mounts or None,
    )
    spec = models.V1PodSpec(
        containers=[container],
        node_selector=pod.node_selector or None,
        tolerations=[models.V1Toleration(**one.model_dump()) for one in pod.tolerations] or None,
        service_account_name=pod.service_account,
        volumes=volumes or None,
    )
    return models.V1Pod(spec=spec)
