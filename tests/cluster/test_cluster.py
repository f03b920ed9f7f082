"""The whole night on machines that share no disk, one of which is killed: the same as on one machine.

PostgreSQL, Redis, S3 and a Git remote are servers on loopback; two schedulers; a worker that keeps what must not be
lost, and one for what takes long, which dies in the middle of a training and is replaced by an empty one.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ruamel.yaml import YAML

from tests.cluster import servers
from tests.cluster.machines import Cluster, cluster
from tests.night.project import Project, make

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]
STRUCK = "pretrain"  # long enough to be killed in the middle, and saves checkpoints
LONGER = {"pretrain.width": 256, "pretrain.layers": 6, "pretrain.feed_forward": 688, "pretrain.heads": 4,
          "pack.tokens": 30000, "pretrain.tokens": 30000, "pretrain.save_every": 10}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project, with a DVC remote in S3, and pretraining on the queue of the machine that has the GPU."""
    folder = tmp_path_factory.mktemp("single")
    made = make(folder / "project", folder / "home")
    (made.folder / ".dvc" / "config").write_text(
        "[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://dvc/cache\n"
    )
    path, yaml = made.folder / "dvc.yaml", YAML()
    said = yaml.load(path)
    said["stages"][STRUCK]["meta"]["airflow"]["queue"] = "gpu"
    yaml.dump(said, path)
    made.git("commit", "-qam", "Run on a cluster")
    return made


@pytest.fixture(scope="module")
def far(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, with the project pushed to its Git remote."""
    with cluster(tmp_path_factory.mktemp("cluster"), project.folder, project.environ) as made:
        project.git("push", "-q", made.remote, "main")
        made.start("head", "api-server")
        made.start("head", "dag-processor")
        made.start("head", "scheduler")
        made.start("head-2", "scheduler")
        made.worker("keeper", "default", "keeper")
        made.worker("gpu", "gpu", "default")
        servers.until(lambda: made.ask("GET", "pools"), made.folder / "logs" / "head-api-server.log", 120)
        pools = [{"name": "cpu", "slots": 2}]
        action = {"action": "create", "action_on_existence": "overwrite", "entities": pools}
        made.ask("PATCH", "pools", {"actions": [action]})
        yield made


def store(far: Cluster) -> Any:
    """A client of the object store."""
    around = {"endpoint_url": far.around["AWS_ENDPOINT_URL"], "region_name": far.around["AWS_DEFAULT_REGION"]}
    return boto3.client("s3", aws_access_key_id="test", aws_secret_access_key="test", **around)


def held(far: Cluster, prefix: str) -> list[str]:
    """Keys of what the machines share."""
    return [one["Key"] for one in store(far).list_objects_v2(Bucket="state", Prefix=prefix).get("Contents", [])]


@pytest.fixture(scope="module")
def night(far: Cluster) -> tuple[str, dict[str, dict[str, Any]]]:
    """The night, in which the machine that pretrains dies: the run's id, and what Airflow says of its tasks."""
    run = far.trigger({"profile": "tiny", **LONGER})
    deadline = time.monotonic() + 900
    while not any(name.endswith("/manifest.json") for name in held(far, "night/checkpoints/")):  # a whole one
        task = far.tasks(run).get(STRUCK) or {}
        assert time.monotonic() < deadline and task.get("state") not in ("success", "failed", "upstream_failed"), task
        time.sleep(0.2)
    task = far.tasks(run)[STRUCK]
    assert (task["state"], task["hostname"]) == ("running", "gpu")
    servers.end(far.pids["gpu celery"], signal.SIGKILL)
    for process in Path("/proc").glob("[0-9]*"):  # all of that machine, as when its power goes
        if f"{far.folder}/machines/gpu/".encode() in _environ(process):
            servers.kill(int(process.name))
    far.worker("gpu-2", "gpu", "default")
    far.end(run, within_s=1200)
    return run, far.tasks(run)


def _environ(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:
        return b""


def test_stages_land_on_every_machine_and_a_lost_one_goes_on_elsewhere(night: Any) -> None:
    hosts = {name: task["hostname"] for name, task in night[1].items()}
    assert {"keeper", "gpu-2"} <= set(hosts.values())
    assert {hosts[name] for name in ("pin", "publish", "deploy", "certify", "end")} == {"keeper"}
    assert (hosts[STRUCK], night[1][STRUCK]["try_number"]) == ("gpu-2", 2)


def record(far: Cluster) -> dict[str, Any]:
    """night.json."""
    (key,) = [name for name in held(far, "night/runs/") if name.endswith("/night.json")]
    found: dict[str, Any] = json.loads(store(far).get_object(Bucket="state", Key=key)["Body"].read())
    return found


def test_the_training_went_on_from_its_checkpoint(far: Cluster, night: Any) -> None:
    said = record(far)
    assert said["stages"][STRUCK]["resumed_from"] > 0
    assert said["deployed"] == "prod"


def test_the_version_of_the_dag_is_the_commit_that_ran(far: Cluster, night: Any, project: Project) -> None:
    head = project.git("rev-parse", "main")
    run = far.ask("GET", f"dags/nightly/dagRuns/{night[0]}")
    assert run["bundle_version"] == head
    assert [one["bundle_version"] for one in run["dag_versions"]] == [head]
    pinned = record(far)["commit"]  # with the values that the trigger named
    project.git("fetch", "-q", far.remote, "refs/heads/nightly")
    assert project.git("rev-parse", f"{pinned}^") == head


def test_the_night_is_the_same_as_on_one_machine(far: Cluster, night: Any, project: Project) -> None:
    """The same lock entries and metrics, made by a single machine's Airflow with a cache and a state of its own."""
    project.git("fetch", "-q", far.remote, "+refs/heads/nightly:refs/heads/far", "--no-tags")
    far.running.close()  # its servers stay: the project's data go to its object store too
    project.environ |= {name: value for name, value in far.around.items() if name.startswith("AWS_")}
    values = [word for key, value in LONGER.items() for word in ("--set", f"{key}={value}")]
    ended = project.run("nightly", "--profile", "tiny", *values, timeout=1200)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert project.git("diff", "--name-only", "nightly", "far") == ""
