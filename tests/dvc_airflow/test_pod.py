"""A stage with `image` or `pod`: what is refused, who runs it, and the pod that Airflow's own executor would create."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from dvc_engine.pipeline import check, meta, project, reading
from dvc_engine.pipeline.pod import amount
from tests.dvc_airflow.conftest import Toy, repository
from tests.dvc_airflow.pods import Api, created, known, stage

Make = Callable[..., Toy]
BOTH = "CeleryExecutor,KubernetesExecutor"
TEMPLATE = Path("kubernetes_executor_templates", "basic_template.yaml")  # of Airflow's provider
LARGE = """\
{
        image: "registry.example.org:5000/team/train:1.2",
        memory: 24GB,
        env: {TOKEN: "airflow://variables/token"},
        pod: {
          requests: {cpu: 4, ephemeral-storage: 20Gi},
          limits: {cpu: 7500m},
          gpus: 2,
          node_selector: {cloud.google.com/gke-accelerator: nvidia-l4},
          tolerations: [{key: nvidia.com/gpu, effect: NoSchedule}, {key: team, value: ml}],
          service_account: trainer,
          shm: 8Gi,
          volumes: {/data: corpora},
        },
      }"""


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("{image: a b}", "image is 'a b': it is no name of an image, like registry.example.org/team/train:1.2"),
        ("{pod: {gpu: 1}}", "unknown key pod.gpu; name one of requests, limits, gpus, node_selector, tolerations, ser"),
        ("{pod: {tolerations: [{taint: a}]}}", "unknown key pod.tolerations.0.taint; name one of key, operator, value"),
        (
            "{pod: {tolerations: [{key: a, operator: Equal}]}}",
            "pod.tolerations.0 is {'key': 'a', 'operator': 'Equal'}: operator is",
        ),
        ("{pod: {limits: {mem: 2Gi}}}", "pod.limits is {'mem': '2Gi'}: 'mem' is no resource, like cpu, memory, ep"),
        ("{pod: {limits: {memory: 2gb}}}", "pod.limits is {'memory': '2gb'}: memory: '2gb' is no quantity of Kubernet"),
        ("{pod: {limits: {memory: 500m}}}", "pod.limits is {'memory': '500m'}: memory: 500m is less than a megabyte;"),
        ("{pod: {requests: {cpu: 0}}}", "pod.requests is {'cpu': 0}: cpu: 0 is nothing"),
        ("{pod: {requests: {cpu: 3}, limits: {cpu: 2500m}}}", "pod: requests asks for 3 of cpu, and limits lets it ha"),
        (
            "{pod: {requests: {amd.com/gpu: 1}}}",
            "pod: requests has amd.com/gpu, which Kubernetes takes from limits; na",
        ),
        ("{pod: {gpus: 1, limits: {nvidia.com/gpu: 1}}}", "pod: gpus and limits both say how many of nvidia.com/gpu"),
        ("{pod: {gpus: 0}}", "pod.gpus is 0: input should be greater than or equal to 1"),
        ("{pod: {node_selector: {gpu: true}}}", "pod.node_selector.gpu is True: write a text, in quotes"),
        ("{pod: {volumes: {data: a}}}", "pod.volumes is {'data': 'a'}: 'data' is no absolute path to mount a claim at"),
        ("{pod: {service_account: A}}", "pod.service_account is 'A': a name in Kubernetes has small letters, digits"),
        ("{queue: large, pod: {gpus: 1}}", "queue large is of Celery's workers, and a pod is none of them; leave one"),
        ("{memory: 8GB, pod: {limits: {memory: 8G}}}", "pod.limits.memory is 8G, and memory lets the command alone ha"),
    ],
)
def test_what_kubernetes_would_refuse_later_is_refused_at_once(said: str, sentence: str) -> None:
    with pytest.raises(meta.Wrong) as refused:
        meta.told(YAML(typ="safe").load(said), imported=False)
    assert str(refused.value).startswith(sentence)


def test_a_nested_key_has_its_own_line(toy: Make) -> None:
    made = toy(stage("\n        pod:\n          gpus: 1\n          gpu_kind: l4"))
    with pytest.raises(project.ProjectError, match=r"^dvc\.yaml:9: .* unknown key pod\.gpu_kind"):
        check.refuse(made.root, reading.read(made.root))


@pytest.mark.parametrize(
    "said", ["2", "0.5", ".5", "500m", "1e3", "12E", "3E2", "4Gi", "1.5Ti", "7k", "100n", "9u", "1Ei"]
)
def test_a_quantity_comes_to_what_kubernetes_makes_of_it(said: str) -> None:
    from kubernetes.utils.quantity import parse_quantity

    assert amount(said) == parse_quantity(said)


@pytest.mark.parametrize(
    ("executors", "said", "runs_by"),
    [
        ("KubernetesExecutor", "{pod: {gpus: 1}}", None),
        (BOTH, "{image: a}", "KubernetesExecutor"),
        (BOTH, "{image: a, executor: KubernetesExecutor}", "KubernetesExecutor"),
        ("LocalExecutor,gpus:KubernetesExecutor", "{image: a}", "gpus"),
        ("LocalExecutor,gpus:KubernetesExecutor", "{image: a, executor: gpus}", "gpus"),
        ("LocalExecutor,mine.pods.MyKubernetesExecutor", "{image: a}", "mine.pods.MyKubernetesExecutor"),
    ],
)
def test_a_pod_goes_to_the_executor_that_makes_pods(
    executors: str, said: str, runs_by: str | None, toy: Make, airflow: Callable[[str], None]
) -> None:
    airflow(executors)
    from dvc_airflow import DvcDag

    dag = DvcDag("toy", toy(stage(said)).root)
    assert (dag.get_task("one").executor, dag.get_task("publish").executor) == (runs_by, None)
    assert dag.get_task("one").executor_config["pod_override"].spec.containers[0].name == "base"
    assert dag.get_task("publish").executor_config == {}


@pytest.mark.parametrize(
    ("executors", "said", "sentence"),
    [
        ("LocalExecutor", "{image: a}", "image: Airflow makes no pods here, its [core] executor is LocalExecutor; add"),
        (BOTH, "{pod: {}, executor: CeleryExecutor}", "pod: executor CeleryExecutor makes no pods; name Kubernetes"),
    ],
)
def test_a_pod_that_nobody_would_make_is_refused(
    executors: str, said: str, sentence: str, toy: Make, airflow: Callable[[str], None]
) -> None:
    airflow(executors)
    from dvc_airflow import DvcDag

    with pytest.raises(project.ProjectError) as refused:
        DvcDag("toy", toy(stage(said)).root)
    assert str(refused.value).startswith(f"dvc.yaml:6: stage one: meta.airflow: {sentence}")


def test_a_dag_may_do_without_pods(toy: Make, airflow: Callable[[str], None]) -> None:
    airflow("LocalExecutor")
    from dvc_airflow import DvcDag

    task = DvcDag("toy", toy(stage("{image: a, executor: KubernetesExecutor}")).root, pods=False).get_task("one")
    assert (task.executor, task.executor_config) == (None, {})


def test_the_client_that_is_not_installed_is_named(
    toy: Make, airflow: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow("KubernetesExecutor")
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    from dvc_airflow import DvcDag

    with pytest.raises(project.ProjectError, match="pip install apache-airflow-providers-cncf-kubernetes"):
        DvcDag("toy", toy(stage("{pod: {gpus: 1}}")).root)


def test_only_a_parse_that_makes_pods_pays_for_the_client(toy: Make, tmp_path: Path) -> None:
    """In a pod Airflow may be told of another executor: nothing is refused there, and nothing imported."""
    podded = str(toy(stage("{image: a}")).root)
    plain = repository(tmp_path / "plain", {"dvc.yaml": stage("{}")})
    script = f"""
import os, sys
from pathlib import Path
from dvc_airflow import DvcDag
DvcDag("toy", Path({str(plain)!r}))
print("kubernetes" in sys.modules)
os.environ |= {{"_AIRFLOW_PARSING_CONTEXT_DAG_ID": "toy", "_AIRFLOW_PARSING_CONTEXT_TASK_ID": "one"}}
DvcDag("toy", Path({podded!r}))
print("kubernetes" in sys.modules)
del os.environ["_AIRFLOW_PARSING_CONTEXT_TASK_ID"]
try:
    DvcDag("toy", Path({podded!r}))
except Exception as error:
    print(error)
"""
    around = {"AIRFLOW_HOME": str(tmp_path / "airflow"), "AIRFLOW__CORE__EXECUTOR": "LocalExecutor"}
    around |= {"PYTHONPATH": str(Path(meta.__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", script], env=os.environ | around, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[:2] == ["False", "False"]
    assert "Airflow makes no pods here" in ran.stdout


def test_the_pod_that_airflow_asks_a_cluster_for(
    toy: Make, airflow: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow(BOTH)
    from airflow.providers.cncf import kubernetes

    from dvc_airflow import DvcDag

    monkeypatch.setenv("AIRFLOW_VAR_TOKEN", "t-1")
    dag = DvcDag("toy", toy(stage(LARGE)).root)
    pod = created(dag, monkeypatch, Path(kubernetes.__file__).parent / TEMPLATE)
    (container,) = pod["spec"]["containers"]
    assert (container["name"], container["image"]) == ("base", "registry.example.org:5000/team/train:1.2")
    memory = str(24 * 10**9 + 2**30)
    assert container["resources"] == {
        "requests": {"cpu": "4", "ephemeral-storage": "20Gi", "memory": memory},
        "limits": {"cpu": "7500m", "nvidia.com/gpu": "2", "memory": memory},
    }
    assert pod["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pod["spec"]["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "ml"},
    ]
    assert pod["spec"]["serviceAccountName"] == "trainer"
    volumes = {one.pop("name"): one for one in pod["spec"]["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    assert mounts["/data"] == {"persistentVolumeClaim": {"claimName": "corpora"}}
    assert mounts["/dev/shm"] == {"emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    assert mounts["/opt/airflow/logs"] == {"emptyDir": {}}  # the template's
    assert "t-1" not in json.dumps(pod)
    assert {one["name"] for one in container["env"]} >= {"AIRFLOW_IS_K8S_EXECUTOR_POD", "foo"}
    assert container["args"][:3] == ["python", "-m", "airflow.sdk.execution_time.execute_workload"]
    assert pod["metadata"]["namespace"] == "nightshift"


def test_that_pod_is_one_by_kubernetes_own_models(
    toy: Make, airflow: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow("KubernetesExecutor")
    from airflow.providers.cncf import kubernetes

    from dvc_airflow import DvcDag

    pod = created(DvcDag("toy", toy(stage(LARGE)).root), monkeypatch, Path(kubernetes.__file__).parent / TEMPLATE)
    assert known(pod, Api())
    container = pod["spec"]["containers"][0]
    assert not known(pod | {"spec": pod["spec"] | {"containers": [container | {"cpus": "4"}]}}, Api())
    assert not known(pod | {"spec": pod["spec"] | {"nodeSelector": {"gpus": 1}}}, Api())
    with pytest.raises(ValueError, match="must not be `None`"):
        known(pod | {"spec": pod["spec"] | {"containers": [{"image": "a"}]}}, Api())


def test_the_page_shows_a_pod_that_airflow_would_make(
    root: Path, toy: Make, airflow: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow(BOTH)
    from airflow.providers.cncf import kubernetes

    from dvc_airflow import DvcDag

    page = (root / "docs" / "dvc-on-airflow.md").read_text()
    (block,) = re.findall(r"```yaml\n(stages:\n.*?)```", page, flags=re.S)
    params = "image: 'team/train:1'\ntrain: 1\n"
    made = toy(block.replace("  train:\n", "  one:\n"), **{"params.yaml": params, "train.py": "", "data": ""})
    pod = created(DvcDag("toy", made.root), monkeypatch, Path(kubernetes.__file__).parent / TEMPLATE)
    (container,) = pod["spec"]["containers"]
    assert known(pod, Api())
    assert container["image"] == "team/train:1"
    assert container["resources"]["limits"] == {"memory": str(24 * 10**9 + 2**30), "nvidia.com/gpu": "1"}


def test_a_stage_without_an_image_has_the_installations(
    toy: Make, airflow: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow("KubernetesExecutor")
    from airflow.providers.cncf import kubernetes

    from dvc_airflow import DvcDag

    dag = DvcDag("toy", toy(stage("{pod: {limits: {cpu: 0.5, memory: 2Gi}}, memory: 1GB}")).root)
    (container,) = created(dag, monkeypatch, Path(kubernetes.__file__).parent / TEMPLATE)["spec"]["containers"]
    assert container["image"] == "nightshift:main"
    assert container["resources"] == {"limits": {"cpu": "0.5", "memory": "2Gi"}}


def test_an_image_is_named_by_a_param_whose_change_runs_the_stage_again(toy: Make) -> None:
    text = stage("{image: '${image}'}").replace("cmd: a", "cmd: echo > x")
    made = toy(f"{text}    params: [image]\n", **{"params.yaml": "image: a:1\n"})
    assert reading.read(made.root).stages["one"].airflow.image == "a:1"
    assert made.run("HEAD")["one"].outcome == "ran"
    assert made.run("HEAD")["one"].outcome == "unchanged"
    assert made.run(made.commit({"params.yaml": "image: a:2\n"}))["one"].outcome == "ran"
