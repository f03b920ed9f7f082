"""A release's judged items as an experiment in Langfuse, so that two nights can be laid side by side there.

Reads, at the release's commit, the test items and what the judge noted of each (evaluate/ask.py has its metrics). The
items become a dataset named by its digest; the experiment is a span for each item with `langfuse.experiment.*` on it,
and its metrics as scores: `choice_accuracy (open)` of an item, their means of the experiment. Ids are made of digests,
so that sending it again changes nothing. Answers are not kept by a night, so that no item has an output. Questions and
right answers come from the corpus, which was sanitised; they are masked once more.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift.content import scrubbed
from nightshift.errors import NotKept, StorageError
from nightshift.integrations.langfuse import Server, iso, sink
from nightshift.integrations.langfuse_scores import SCORES
from nightshift.otlp_http import HttpSink
from nightshift.past import Past
from nightshift.registry import Release
from nightshift.spans import INTERNAL, Step, Trace, Tracer

ITEMS = "data/items/test/items.parquet"
ENVIRONMENT = "sdk-experiment"  # under which Langfuse files experiments that a client ran
BATCH = 100  # scores in one request


@dataclass(frozen=True)
class Item:
    """One judged item."""

    id: str
    kind: str
    question: str
    expected: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Run:
    """Everything that one release's experiment consists of; `moment_ns` is when its commit was made."""

    release: Release
    items: list[Item]
    dataset: str
    moment_ns: int

    @property
    def name(self) -> str:
        """What it is called there."""
        return f"{self.release.version} {self.release.digest[:12]}"

    def means(self) -> dict[str, float]:
        """The mean of each metric over the items that have it."""
        values: dict[str, list[float]] = defaultdict(list)
        for item in self.items:
            for name, value in item.scores.items():
                values[name].append(value)
        return {name: sum(some) / len(some) for name, some in sorted(values.items())}


def read(repository: Path, release: Release) -> Run:
    """The judged items of a release. Raises NotKept where its system was not judged, StorageError."""
    past = Past(repository, release.commit)
    system = hashlib.sha256(past.read("release/system/manifest.json")).hexdigest()
    if system not in json.loads(past.read("judged/judged.json"))["roles"].values():
        what = f"the system of {release.version} was not judged by its own night"
        raise NotKept(what, f"commit {release.commit[:10]}", "take the version that it was first released as")
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    for row in past.table(f"judged/{system}.parquet").iter_rows(named=True):
        scores[row["item"]][f"{row['metric']} ({row['book']})"] = row["value"]
    table = past.table(ITEMS)
    items = [
        Item(row["id"], row["kind"], scrubbed(row["question"]), scrubbed(row["answer"]), scores[row["id"]])
        for row in table.iter_rows(named=True)
        if row["id"] in scores
    ]
    digest = json.loads(past.read("release/facts.json"))["tables"].get("items_test", {}).get("digest", system)
    moment = int(past.git("log", "-1", "--format=%ct") or 0) * 10**9
    return Run(release, items, f"nightshift-test-{digest[:12]}", moment)


def send(server: Server, run: Run) -> Iterator[str]:
    """Send a release's experiment; yields a line for each step. Raises StorageError, AccessDenied."""
    server.current()
    dataset = _dataset(server, run)
    yield f"dataset {run.dataset}: {len(run.items)} items"
    experiment = _experiment(server.project(), dataset, run.name)
    tracer = Tracer("nightshift-experiment")
    there = _sink(server, run, dataset, experiment)
    todo = [_trace(tracer, run, item) for item in run.items]
    if there.send(todo) or there.failed:
        raise StorageError(f"{len(todo) + there.failed} items were not taken", server.url, "send them again")
    yield f"experiment {run.name}: {len(run.items)} items"
    scores = [_score(run, item, *one) for item in run.items for one in item.scores.items()]
    scores += [_overall(run, experiment, *one) for one in run.means().items()]
    for first in range(0, len(scores), BATCH):
        said = server.ask("POST", SCORES, json=scores[first : first + BATCH]) or {}
        if said.get("rejected"):
            raise StorageError(f"{said['rejected']} scores were rejected", server.url, "see its log")
    yield f"scores: {len(scores)}"


def _dataset(server: Server, run: Run) -> str:
    """The id of the dataset with these items; sent again it is the same one."""
    about = {"name": run.dataset, "description": "Test items of Nightshift's judge."}
    made = server.ask("POST", "/api/public/v2/datasets", json=about)
    for item in run.items:
        body = {"datasetName": run.dataset, "id": item.id, "input": item.question, "expectedOutput": item.expected}
        server.ask("POST", "/api/public/dataset-items", json=body | {"metadata": {"kind": item.kind}})
    return str(made["id"])


def _experiment(project: str, dataset: str, name: str) -> str:
    """Langfuse's own id of a run by name on a dataset: 16 hex digits (its SDK 5, `_create_experiment_id`)."""
    parts = json.dumps(["langfuse-experiment-v1", project, dataset, name], separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def _sink(server: Server, run: Run, dataset: str, experiment: str) -> HttpSink:
    """The sink of traces, with what makes a span one of an experiment on each."""
    items = {_id(run, item, 32): item for item in run.items}

    def more(trace: Trace, step: Step) -> dict[str, Any]:
        item = items[trace.trace_id]
        about = {
            "id": experiment,
            "name": run.name,
            "dataset.id": dataset,
            "item.id": item.id,
            "item.root_observation_id": f"{trace.id:016x}",
            "item.expected_output": item.expected,
            "metadata": json.dumps({"release": run.release.digest, "commit": run.release.commit}),
            "item.metadata": json.dumps({"kind": item.kind}),
        }
        return {
            "langfuse.environment": ENVIRONMENT,
            "langfuse.release": run.release.version,
            "langfuse.trace.name": "experiment-item-run",
            "langfuse.observation.type": "span",
            "langfuse.observation.input": item.question,
            "langfuse.internal.as_root": True,
        } | {f"langfuse.experiment.{key}": value for key, value in about.items()}

    made = sink(server, ENVIRONMENT)
    made.more = more
    return made


def _trace(tracer: Tracer, run: Run, item: Item) -> Trace:
    trace = tracer.begin("experiment-item-run", INTERNAL, int(_id(run, item, 32), 16), None)
    trace.id = int(_id(run, item, 48)[32:], 16)
    trace.start_ns = trace.end_ns = run.moment_ns
    trace.set(release=run.release.digest, version=run.release.version, commit=run.release.commit)
    return trace


def _id(run: Run, item: Item, digits: int) -> str:
    return hashlib.sha256(f"experiment\x1f{run.release.digest}\x1f{item.id}".encode()).hexdigest()[:digits]


def _score(run: Run, item: Item, name: str, value: float) -> dict[str, Any]:
    about = {"id": hashlib.sha256(f"{_id(run, item, 32)}\x1f{name}".encode()).hexdigest()[:32]}
    subject = {"traceId": _id(run, item, 32), "observationId": _id(run, item, 48)[32:]}
    return about | subject | _valued(run, name, value)


def _overall(run: Run, experiment: str, name: str, value: float) -> dict[str, Any]:
    about = {"id": hashlib.sha256(f"{experiment}\x1f{name}".encode()).hexdigest()[:32], "datasetRunId": experiment}
    return about | _valued(run, f"mean {name}", value)


def _valued(run: Run, name: str, value: float) -> dict[str, Any]:
    said = {"name": name, "value": value, "dataType": "NUMERIC", "timestamp": iso(run.moment_ns)}
    return said | {"environment": ENVIRONMENT}
