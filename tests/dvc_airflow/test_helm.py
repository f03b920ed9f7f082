"""deploy/helm/values.yaml: what it sets is read by somebody, and the pods that come of it are pods.

With `helm` on PATH and the path of Airflow's official chart in NIGHTSHIFT_CHART all of it is rendered too; both are
to be had where there is a network, and in none of the package registries that the tests use.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.pods import Api, created, known, stage

Make = Callable[..., Toy]
SECRETS = ("AIRFLOW__DATABASE", "AIRFLOW_CONN", "AIRFLOW__CELERY__BROKER", "AIRFLOW__CORE__FERNET", "SECRET_KEY", "JWT")
CHART = os.environ.get("NIGHTSHIFT_CHART", "")
RENDERED = pytest.mark.skipif(
    not (CHART and shutil.which("helm")), reason="needs helm, and the path of the chart in NIGHTSHIFT_CHART"
)


@pytest.fixture
def values(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(root / "deploy" / "helm" / "values.yaml")
    return found


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """Variables of every process."""
    found: dict[str, str] = YAML(typ="safe").load(values["extraConfigMaps"]["nightshift-environment"]["data"])
    return found


def test_every_variable_is_one_that_somebody_reads(values: dict[str, Any], root: Path) -> None:
    code = "".join(path.read_text() for name in ("dags", "include") for path in (root / name).rglob("*.py"))
    (keeper,) = values["workers"]["celery"]["sets"]
    set_ = {*environment(values), *(one["name"] for one in keeper["env"])}
    ours = {name for name in set_ if name.startswith("NIGHTSHIFT_")}
    assert {"NIGHTSHIFT_STATE", "NIGHTSHIFT_REMOTE", "NIGHTSHIFT_CHECKOUT", "NIGHTSHIFT_KEEPER"} < ours
    assert [name for name in ours if name not in code and f'"{name.removeprefix("NIGHTSHIFT_")}"' not in code] == []
    assert all(isinstance(value, str) for value in environment(values).values())


def test_what_all_machines_of_a_cluster_have_these_have_too(values: dict[str, Any], root: Path) -> None:
    said = dict(re.findall(r"(?m)^([A-Z_]+)=(.*)$", (root / "deploy" / "cluster.env").read_text()))
    of_the_chart = {"AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CORE__LOAD_EXAMPLES", "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG"}
    longer = {"AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT"}  # a pod waits for a node
    same = {name: value for name, value in said.items() if name not in of_the_chart | longer}
    assert len(same) > 5
    assert {name: environment(values).get(name) for name in same} == same
    assert longer < set(environment(values))


def test_every_option_is_one_that_airflow_has(values: dict[str, Any]) -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    ProvidersManager().initialize_providers_configuration()
    named = [name.lower().split("__")[1:] for name in environment(values) if name.startswith("AIRFLOW__")]
    named += [[section, key] for section, options in values["config"].items() for key in options]
    assert len(named) > 10
    has = conf.configuration_description
    assert [one for one in named if one[1] not in has.get(one[0], {}).get("options", {})] == []


def test_the_engines_own_tasks_have_a_worker_that_keeps_what_others_must_not_have(values: dict[str, Any]) -> None:
    (keeper,) = values["workers"]["celery"]["sets"]
    assert keeper["queue"] == environment(values)["NIGHTSHIFT_KEEPER"] != values["workers"]["celery"]["queue"]
    (home,) = [one["value"] for one in keeper["env"] if one["name"] == "NIGHTSHIFT_HOME"]
    claims = {one["metadata"]["name"] for one in keeper["volumeClaimTemplates"]}
    assert {one["name"] for one in keeper["extraVolumeMounts"] if one["mountPath"] == home} == claims == {"home"}
    assert "NIGHTSHIFT_HOME" not in environment(values)
    assert home not in json.dumps([values["workers"]["extraVolumeMounts"], values["podTemplate"]])


def test_airflow_takes_the_bundle_from_git(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")  # the chart's own
    listed = values["dagProcessor"]["dagBundleConfigList"]
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps(listed))
    monkeypatch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", str(tmp_path / "bundles"))
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    (bundle,) = DagBundlesManager().get_all_dag_bundles()
    assert (type(bundle).__name__, bundle.name, bundle.refresh_interval) == ("GitDagBundle", "nightshift", 60)
    assert bundle.path.name == "dags"
    assert bundle.repo_url == environment(values)["NIGHTSHIFT_REMOTE"]


def test_a_stage_has_its_pod_of_the_template_and_none_of_airflows_secrets(
    values: dict[str, Any], toy: Make, airflow: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow(values["executor"])
    from dvc_airflow import DvcDag

    template = tmp_path / "pod.yaml"
    template.write_text(values["podTemplate"])
    asked = "{image: 'team/train:1', pod: {gpus: 1, node_selector: {nvidia.com/gpu.product: NVIDIA-L4}}}"
    made = toy(stage(asked))
    pod = created(DvcDag("toy", made.root), monkeypatch, template)
    assert known(pod, Api())
    (container,) = pod["spec"]["containers"]
    assert container["image"] == "team/train:1"
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "1"}}  # instead of the template's, as a whole
    assert pod["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["spec"]["volumes"]}
    names = [*environment(values), *(one["name"] for one in container["env"])]
    assert [name for name in names for secret in SECRETS if secret in name and not name.startswith("AWS_")] == []
    assert [one for one in container["env"] if "SECRET" in one["name"] and "value" in one] == []
    made.commit({"dvc.yaml": stage("{image: 'team/train:2'}")})
    plain = DvcDag("toy", made.root)
    requests = created(plain, monkeypatch, template)["spec"]["containers"][0]["resources"]["requests"]
    assert requests == {"cpu": "1", "memory": "2Gi", "ephemeral-storage": "10Gi"}
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert {str(Path(environment(values)[f"NIGHTSHIFT_{one}"]).parent) for one in ("CHECKOUT", "SCRATCH")} <= mounted


@RENDERED
def test_every_value_is_one_that_the_chart_has(values: dict[str, Any]) -> None:
    """Its schema lets others in, and they would be obeyed by nothing."""
    shown = subprocess.run(["helm", "show", "values", CHART], capture_output=True, text=True, check=True).stdout
    chart = YAML(typ="safe").load(shown)
    free = ("config", "extraConfigMaps", "resources")
    assert list(unknown(values, chart, free)) == []
    workers = chart["workers"] | chart["workers"]["celery"]
    for one in values["workers"]["celery"]["sets"]:
        assert list(unknown(one, workers | {"name": ""}, free)) == []


def unknown(said: Mapping[str, Any], chart: Mapping[str, Any], free: tuple[str, ...], above: str = "") -> Iterator[str]:
    """Dotted keys that the chart's values do not have; `free` are those below which anything may stand."""
    for key, value in said.items():
        if key not in chart:
            yield f"{above}{key}"
        elif isinstance(value, dict) and isinstance(chart[key], dict) and key not in free:
            yield from unknown(value, chart[key], free, f"{above}{key}.")


@RENDERED
def test_helm_renders_objects_that_kubernetes_knows(values: dict[str, Any], root: Path) -> None:
    asked = ["--namespace", "nightshift", "--values", str(root / "deploy" / "helm" / "values.yaml")]
    ran = subprocess.run(["helm", "template", "nightshift", CHART, *asked], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    objects = [one for one in YAML(typ="safe").load_all(ran.stdout) if one]
    found = {f"{one['kind']} {one['metadata']['name']}": one for one in objects}
    assert [name for name, one in found.items() if not known(pruned(one), Api(), f"V1{one['kind']}")] == []
    config = found["ConfigMap nightshift-config"]["data"]
    pod = YAML(typ="safe").load(config["pod_template_file.yaml"])
    assert pod == YAML(typ="safe").load(values["podTemplate"])
    assert f"ServiceAccount {pod['spec']['serviceAccountName']}" in found
    for volume in pod["spec"]["volumes"]:
        if "configMap" in volume:
            assert f"ConfigMap {volume['configMap']['name']}" in found
        if "persistentVolumeClaim" in volume:
            assert f"PersistentVolumeClaim {volume['persistentVolumeClaim']['claimName']}" in found
    assert "airflow celery worker -q keeper" in json.dumps(found["StatefulSet nightshift-worker-keeper"])
    running = [one["spec"]["template"]["spec"]["containers"] for one in objects if "template" in one.get("spec", {})]
    ours = [one for containers in running for one in containers if one["image"].startswith("registry.example.org/")]
    assert len(ours) == 6  # API server, DAG processor, scheduler, worker, keeper, migration
    assert [one["name"] for one in ours if "/entrypoint" in json.dumps(one) or "/clean-logs" in json.dumps(one)] == []


def pruned(said: Any) -> Any:
    """Without nulls, and what is empty for them: Kubernetes reads these as not said."""
    if isinstance(said, dict):
        return {key: pruned(value) for key, value in said.items() if value is not None}
    return [pruned(one) for one in said] if isinstance(said, list) else said
