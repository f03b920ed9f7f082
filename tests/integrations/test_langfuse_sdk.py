"""The test server answers Langfuse's real SDK 5 as Langfuse does; its drop-in for openai asks the endpoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nightshift.integrations import langfuse as langfuse_
from nightshift.integrations.langfuse import PUBLIC, SECRET, TRACES, Server
from nightshift.integrations.langfuse_prompts import SERVED, Prompts
from nightshift.otlp import Background
from nightshift.spans import Tracer
from tests import models
from tests.conftest import ROOT
from tests.integrations import environments, langfuse_server
from tests.integrations.langfuse_server import Langfuse, langfuse
from tests.serve import scripted
from tests.serve.scripted import Endpoint

KEYS = {PUBLIC: langfuse_server.PUBLIC, SECRET: langfuse_server.SECRET}
CASES = "tests/integrations/langfuse_cases.py"


@pytest.fixture
def held() -> Iterator[Langfuse]:
    with langfuse(context=False) as made:
        yield made


def case(held: Langfuse, name: str, tmp_path: Path, **environ: str) -> dict[str, Any]:
    """What a case printed."""
    said: dict[str, Any] = json.loads(program(held, [str(ROOT / CASES), name], tmp_path, **environ).splitlines()[-1])
    return said


def program(held: Langfuse, words: list[str], folder: Path, **environ: str) -> str:
    """What a program in the SDK's environment printed."""
    known = {key: value for key, value in os.environ.items() if key not in environments.OTHERS}
    around = known | KEYS | {"LANGFUSE_BASE_URL": held.url} | environ
    asked = [str(environments.python("langfuse")), *words]
    ended = subprocess.run(asked, cwd=folder, env=around, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_its_observations_and_scores_are_taken(held: Langfuse, tmp_path: Path) -> None:
    said = case(held, "observe", tmp_path)
    assert said["auth"] is True
    spans = {one["name"]: one for one in held.spans.values()}
    assert {one["traceId"] for one in spans.values()} == {said["trace"]}
    generation = spans["llm"]["attributes"]
    assert (generation["user.id"], generation["session.id"]) == ("u1", "s1")
    assert generation["langfuse.observation.type"] == "generation"
    assert json.loads(generation["langfuse.observation.usage_details"]) == {"input": 3, "output": 1}
    assert {one["name"]: one["value"] for one in held.scores.values()} == {"helpful": 1.0, "rating": 0.5}
    assert held.asked(langfuse_.TRACES.replace("otel/v1/traces", "scores")) == [202]
    assert [one["x-langfuse-ingestion-version"] for one in held.headers if "x-langfuse-ingestion-version" in one]
    assert held.complaints == []


def test_what_push_put_there_is_what_its_users_get(held: Langfuse, tmp_path: Path) -> None:
    file = (ROOT / "include/prompts/lora.yaml").read_text()
    Prompts(Server.of(held.url, KEYS)).create(SERVED, file, "lora", ["prod", "production"])
    said = case(held, "prompts", tmp_path)
    assert said["version"] == 1
    assert said["compiled"][-1]["content"].startswith("Pump\nOiled by the keeper.")
    assert said["compiled"][-1]["content"].strip().endswith("Who oils the pump?")
    assert (said["moved"], said["text"], said["missing"]) == (2, "Tell it.", "NotFoundError")


def test_its_own_experiment_stands_beside_ours(held: Langfuse, tmp_path: Path) -> None:
    server = Server.of(held.url, KEYS)
    server.ask("POST", "/api/public/v2/datasets", json={"name": "nightshift-test-x"})
    for item, expected in (("one", "The keeper."), ("two", "On Friday.")):
        body = {"datasetName": "nightshift-test-x", "id": item, "input": "?", "expectedOutput": expected}
        server.ask("POST", "/api/public/dataset-items", json=body)
    said = case(held, "experiment", tmp_path, DATASET="nightshift-test-x")
    assert said["items"] == 2
    roots = [one for one in held.spans.values() if one["attributes"].get("langfuse.experiment.id") == said["id"]]
    assert {one["attributes"]["langfuse.experiment.item.id"] for one in roots} == {"one", "two"}
    assert {one["attributes"]["langfuse.experiment.dataset.id"] for one in roots} == {said["dataset"]}
    from nightshift.integrations.langfuse_experiment import _experiment

    assert said["id"] == _experiment(langfuse_server.PROJECT, said["dataset"], "by hand 1")  # the SDK's own derivation
    assert sorted(one["value"] for one in held.scores.values()) == [0.0, 1.0]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("endpoint")
    with scripted.endpoint(folder, models.system(folder / "plain", ROOT, scripted.ROWS)) as made:
        yield made


@contextmanager
def traced(held: Langfuse, endpoint: Endpoint) -> Iterator[Tracer]:
    """The endpoint sends its traces there until the block ends, and all of them by then."""
    sink = langfuse_.sink(Server.of(held.url, KEYS), "staging")
    tracer = Tracer("nightshift-gateway", [Background(sink, 100, every_s=0.01)])
    before, endpoint.front.tracer = endpoint.front.tracer, tracer
    endpoint.served.prompt = endpoint.served.corpus = "d" * 64
    try:
        yield tracer
    finally:
        endpoint.front.tracer = before
        tracer.close()


def test_the_program_of_its_page_runs(held: Langfuse, endpoint: Endpoint, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python run\n(.*?)```", (ROOT / "docs" / "langfuse.md").read_text(), flags=re.S)
    (tmp_path / "page.py").write_text(block)
    with traced(held, endpoint):
        trace = program(held, ["page.py"], tmp_path, ENDPOINT=endpoint.url, KEY=endpoint.key).strip()
    names = {one["name"] for one in held.spans.values() if one["traceId"] == trace}
    assert {"app", "chat", "engine"} <= names


def test_its_drop_in_for_openai_and_the_endpoint_write_one_trace(
    held: Langfuse, endpoint: Endpoint, tmp_path: Path
) -> None:
    with traced(held, endpoint) as tracer:
        said = case(held, "dropin", tmp_path, ENDPOINT=endpoint.url, KEY=endpoint.key)
    assert said["about"]["trace"] == said["trace"]
    assert said["about"]["sections"][0]["path"] == "pump.md"
    assert said["streamed"].strip()
    spans = list(held.spans.values())
    names = {one["name"] for one in spans if one["traceId"] == said["trace"]}
    assert {"app", "whole", "streamed", "chat", "retrieve", "engine"} <= names
    by_name = {one["name"]: one["attributes"] for one in spans}
    for name in ("whole", "streamed"):
        assert json.loads(by_name[name]["langfuse.observation.usage_details"])["total_tokens"] > 0
    ours = next(one for one in spans if one["name"] == "chat" and one["traceId"] == said["trace"])
    app = next(one for one in spans if one["name"] == "app")
    assert ours["parentSpanId"] == app["spanId"]
    assert tracer.refused == {}
    assert tracer.counts()["langfuse"]["failed"] == 0
    assert set(held.asked(TRACES)) == {200}
