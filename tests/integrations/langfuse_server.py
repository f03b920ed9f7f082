"""A Langfuse for tests: the public API that a client may rely on, and its refusals, on a loopback port.

Written from Langfuse's API definition, its ingestion handler and its SDK 5; what it takes and what it refuses is also
held against the real SDK (test_langfuse_sdk.py). Traces: Basic auth, `x-langfuse-ingestion-version` up to 4, protobuf
or JSON, gzip; one bad span rejects its whole batch with 400. A span that comes twice with other contents, without an
end, or without the context that Langfuse 4 no longer joins, is taken, as there, and noted in `complaints`. Scores are a
list from 4.59 on (202, or 207 with the rejected), else one at a time. Prompts have versions and labels that move.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.served import serving

PUBLIC, SECRET, PROJECT = "pk-lf-test", "sk-lf-test", "project-1"
TRACES = "/api/public/otel/v1/traces"
CONTEXT = ("langfuse.environment", "langfuse.release", "langfuse.trace.name")  # wanted on every span of ours
ENVIRONMENT = re.compile(r"(?!langfuse)[a-z0-9_-]{1,40}")
LABEL = re.compile(r"[a-z0-9_.-]{1,36}")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, error: str = "") -> None:
        super().__init__(message)
        self.status, self.body = status, {"message": message, "error": error or message}


@dataclass
class Langfuse:
    """What a project holds, and how the server behaves.

    Args:
        version: of the server; before 4.59 a score is sent alone.
        instead: statuses with which the next requests to a path are answered; a number alone, or with Retry-After.
        context: whether spans without CONTEXT are complained of; the SDK's own have other ways.
        poison: trace ids whose spans cannot be processed.
    """

    version: str = "4.59.0"
    context: bool = True
    poison: set[str] = field(default_factory=set)
    spans: dict[str, dict[str, Any]] = field(default_factory=dict)
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    prompts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    datasets: dict[str, dict[str, Any]] = field(default_factory=dict)
    items: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)  # of exports, unpacked
    complaints: list[str] = field(default_factory=list)
    instead: dict[str, deque[tuple[int, str]]] = field(default_factory=dict)
    got: threading.Condition = field(default_factory=threading.Condition)
    url: str = ""

    def asked(self, path: str) -> list[int]:
        """The statuses with which requests to a path were answered."""
        return [status for _, at, status in self.requests if at == path]

    def wait(self, path: str, count: int, seconds: float = 20) -> None:
        """Until so many requests to a path have come."""
        with self.got:
            assert self.got.wait_for(lambda: len(self.asked(path)) >= count, seconds), self.requests

    def wait_for(self, name: str, count: int, seconds: float = 20) -> None:
        """Until so many spans of this name have come."""
        with self.got:
            arrived = lambda: sum(one["name"] == name for one in list(self.spans.values())) >= count  # noqa: E731
            assert self.got.wait_for(arrived, seconds), self.spans

    @property
    def listed(self) -> bool:
        """Whether scores come as a list."""
        return tuple(map(int, self.version.split(".")))[:2] >= (4, 59)

    def export(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        """POST of traces: all of a batch or nothing."""
        version = headers.get("x-langfuse-ingestion-version")
        if version is not None and (not version.isdigit() or int(version) > 4):
            raise Refused(400, f'Unsupported x-langfuse-ingestion-version: "{version}". Maximum supported: "4".')
        kind = headers.get("content-type", "")
        if "gzip" in headers.get("content-encoding", ""):
            try:
                body = gzip.decompress(body)
            except (OSError, EOFError):
                raise Refused(400, "Failed to decompress request body") from None
        self.bodies.append(body)
        spans = list(_spans(_parsed(kind, body)))
        poisoned = {"traceId:not_an_id"} if any(span.get("traceId") in self.poison for span in spans) else set()
        if wrong := sorted(poisoned.union(*map(_wrong, spans))):
            message = f"Invalid OTLP trace export: {', '.join(wrong)}. The entire export was rejected"
            raise Refused(400, f"{message} and no spans were ingested.")
        if version != "4":
            self.complaints.append(f"ingestion version {version}")
        for span in spans:
            self._take(span)
        return {}

    def _take(self, span: dict[str, Any]) -> None:
        said = {one["key"]: _plain(one["value"]) for one in span.get("attributes", [])}
        kept = {key: span.get(key) for key in ("name", "traceId", "spanId", "parentSpanId")}
        kept |= {"start": span.get("startTimeUnixNano"), "end": span.get("endTimeUnixNano"), "attributes": said}
        known = self.spans.get(span["spanId"])
        if known is not None and known != kept:
            self.complaints.append(f"span {span['spanId']} came twice")
        if not kept["end"]:
            self.complaints.append(f"span {span['spanId']} has no end")
        if self.context and (lacks := [name for name in CONTEXT if not said.get(name)]):
            self.complaints.append(f"span {span['name']} lacks {lacks[0]}")
        if (environment := said.get("langfuse.environment")) and not ENVIRONMENT.fullmatch(environment):
            self.complaints.append(f"environment {environment}")
        self.spans[span["spanId"]] = kept

    def score(self, said: Any) -> tuple[int, dict[str, Any]]:
        """POST of scores in the form of the server's version."""
        if isinstance(said, list) != self.listed:
            raise Refused(400, "Invalid request data", f"expected {'array' if self.listed else 'object'}")
        if not self.listed:
            if problem := _unscored(said):
                raise Refused(400, problem)
            self.scores[said["id"]] = said
            return 200, {"id": said["id"]}
        errors = [problem for one in said if (problem := _unscored(one))]
        for one in said:
            if not _unscored(one):
                self.scores[one["id"]] = one
        if errors:
            listed = [{"message": one} for one in errors]
            return 207, {"accepted": len(said) - len(errors), "rejected": len(errors), "errors": listed}
        return 202, {"message": "Accepted"}

    def create(self, said: dict[str, Any]) -> dict[str, Any]:
        """POST of a prompt: its next version, which takes its labels and `latest` from the others."""
        labels = said.get("labels") or []
        if wrong := [one for one in labels if not LABEL.fullmatch(one)]:
            raise Refused(400, f"label {wrong[0]}")
        if "|" in said["name"] or said["name"] in ("new", "metrics", "prompt-detail"):
            raise Refused(400, f"name {said['name']}")
        versions = self.prompts.setdefault(said["name"], [])
        made = {"config": {}, "commitMessage": None, "type": "text", **said}
        made |= {"tags": said.get("tags") or [], "version": len(versions) + 1, "labels": []}
        versions.append(made)
        self._move(said["name"], made, [*labels, "latest"])
        return made

    def label(self, name: str, version: int, labels: list[str]) -> dict[str, Any]:
        """PATCH of a prompt's version: labels are added to it and leave the others."""
        if "latest" in labels:
            raise Refused(400, "Label 'latest' is always assigned to the latest prompt version")
        made = next((one for one in self.prompts.get(name, []) if one["version"] == version), None)
        if made is None:
            raise Refused(404, f"Prompt '{name}' version {version} not found in project", "LangfuseNotFoundError")
        self._move(name, made, labels)
        return made

    def prompt(self, name: str, query: dict[str, str]) -> dict[str, Any]:
        """GET of a prompt by version or label; `production` unless one is named."""
        wanted = query.get("label", "production")
        found = [
            one
            for one in self.prompts.get(name, [])
            if (one["version"] == int(query["version"]) if "version" in query else wanted in one["labels"])
        ]
        if not found:
            raise Refused(404, f"Prompt not found: '{name}' with label '{wanted}'", "LangfuseNotFoundError")
        return found[-1]

    def _move(self, name: str, to: dict[str, Any], labels: list[str]) -> None:
        for one in self.prompts[name]:
            one["labels"] = [label for label in one["labels"] if label not in labels]
        to["labels"] = [*to["labels"], *labels]

    def answer(self, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Any:
        """Status and JSON of one request. Raises Refused."""
        if path == "/api/public/health":
            return 200, {"status": "OK", "version": self.version}
        basic = base64.b64encode(f"{PUBLIC}:{SECRET}".encode()).decode()
        if headers.get("authorization") != f"Basic {basic}":
            raise Refused(401, "Invalid credentials. Confirm that you've configured the correct host.")
        said = json.loads(body) if body and path != TRACES and "json" in headers.get("content-type", "") else None
        prompt = re.fullmatch(r"/api/public/v2/prompts/([^/]+)(?:/versions/(\d+))?", path)
        match method, path:
            case "POST", "/api/public/otel/v1/traces":
                return 200, self.export(headers, body)
            case "POST", "/api/public/scores":
                return self.score(said)
            case "GET", "/api/public/projects":
                about = {"id": PROJECT, "name": "Tests", "metadata": {}, "organization": {"id": "o", "name": "O"}}
                return 200, {"data": [about]}
            case "POST", "/api/public/v2/prompts":
                return 201, self.create(said)
            case "POST", "/api/public/v2/datasets":
                return 200, self._dataset(said)
            case "POST", "/api/public/dataset-items":
                return 200, self._item(said)
            case "GET", "/api/public/dataset-items":
                found = [one for one in self.items.values() if one["datasetName"] == query.get("datasetName")]
                meta = {"page": 1, "limit": 50, "totalItems": len(found), "totalPages": 1}
                return 200, {"data": found, "meta": meta}
            case "GET", _ if path.startswith("/api/public/v2/datasets/"):
                return 200, self._named(unquote(path.rpartition("/")[2]))
            case "GET", _ if prompt and not prompt[2]:
                return 200, self.prompt(unquote(prompt[1]), query)
            case "PATCH", _ if prompt and prompt[2]:
                return 200, self.label(unquote(prompt[1]), int(prompt[2]), said["newLabels"])
        raise Refused(404, "Not Found")  # /ingestion and /dataset-run-items too: version 4 has them no more

    def _dataset(self, said: dict[str, Any]) -> dict[str, Any]:
        stamps = {"createdAt": "2026-11-26T00:00:00Z", "updatedAt": "2026-11-26T00:00:00Z"}
        made = {"id": f"dataset-{len(self.datasets) + 1}", "projectId": PROJECT, "metadata": None, **stamps}
        return self.datasets.setdefault(said["name"], made | {"description": None, **said})

    def _named(self, name: str) -> dict[str, Any]:
        if name not in self.datasets:
            raise Refused(404, "Dataset not found", "LangfuseNotFoundError")
        return self.datasets[name]

    def _item(self, said: dict[str, Any]) -> dict[str, Any]:
        stamps = {"createdAt": "2026-11-26T00:00:00Z", "updatedAt": "2026-11-26T00:00:00Z"}
        of = self._named(said["datasetName"])
        made = {"id": f"item-{len(self.items) + 1}", "status": "ACTIVE", "datasetId": of["id"], **stamps}
        made |= {"sourceTraceId": None, "sourceObservationId": None, "metadata": None, "expectedOutput": None}
        made |= {"mediaReferences": []}
        made |= said
        self.items[made["id"]] = made
        return made


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    langfuse: Langfuse

    def _any(self) -> None:
        length = int(self.headers.get("content-length", 0))
        body = self.rfile.read(length)
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        queued = self.langfuse.instead.get(url.path)
        status, answer, again = 0, {}, ""
        if queued:
            status, again = queued.popleft()
            answer = {"message": "for now", "error": "for now"}
        if status == -1:  # the connection breaks
            self.close_connection = True
        elif not status:
            try:
                status, answer = self.langfuse.answer(self.command, url.path, query, headers, body)
            except Refused as refused:
                status, answer = refused.status, refused.body
        with self.langfuse.got:  # noted before the client can know of it
            self.langfuse.requests.append((self.command, url.path, status))
            self.langfuse.headers.append(headers)
            self.langfuse.got.notify_all()
        if status > 0:
            self._send(status, answer, again)

    do_GET = do_POST = do_PATCH = _any  # noqa: N815  as the standard library calls them

    def _send(self, status: int, answer: Any, again: str) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        if again:
            self.send_header("retry-after", again)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def langfuse(port: int = 0, **changed: Any) -> Iterator[Langfuse]:
    """A server until the block ends; `changed` are fields of Langfuse."""
    held = Langfuse(**changed)
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"langfuse": held}))
    with serving(server) as held.url:
        yield held


def _parsed(kind: str, body: bytes) -> list[Any]:
    """resourceSpans of an export, ids as hex."""
    if "application/x-protobuf" in kind:
        try:
            request = ExportTraceServiceRequest.FromString(body)
        except DecodeError:
            raise Refused(400, "Failed to parse OTel Protobuf Trace") from None
        said = MessageToDict(request)
        for span in _spans(said.get("resourceSpans", [])):
            for key in ("traceId", "spanId", "parentSpanId"):
                if key in span:
                    span[key] = base64.b64decode(span[key]).hex()
        return said.get("resourceSpans", [])
    if "application/json" in kind:
        try:
            return json.loads(body).get("resourceSpans", [])
        except ValueError:
            raise Refused(400, "Failed to parse OTel JSON Trace") from None
    raise Refused(400, "Invalid content type")


def _spans(resources: Any) -> Iterator[dict[str, Any]]:
    for resource in resources or []:
        for scope in resource.get("scopeSpans", []):
            yield from scope.get("spans", [])


def _wrong(span: dict[str, Any]) -> Iterator[str]:
    """What makes a span one that cannot be processed."""
    for key in ("traceId", "spanId"):
        if not span.get(key):
            yield f"{key}:absent"
        elif not isinstance(span[key], str | list):
            yield f"{key}:not_an_id"
    for key in ("attributes", "events"):
        if key in span and not isinstance(span[key], list):
            yield f"{key}:not_an_array"


def _unscored(one: dict[str, Any]) -> str:
    """What is wrong with a score; "" when nothing is."""
    if not one.get("name") or "value" not in one:
        return "name and value are required"
    if not any(one.get(key) for key in ("traceId", "sessionId", "datasetRunId")):
        return "a score needs a traceId, a sessionId or a datasetRunId"
    if one.get("dataType", "NUMERIC") in ("NUMERIC", "BOOLEAN") and not isinstance(one["value"], int | float):
        return "value must be a number"
    if not ENVIRONMENT.fullmatch(one.get("environment", "default")):
        return f"environment {one['environment']}"
    if "timestamp" in one and not re.search(r"(Z|[+-]\d\d:\d\d)$", one["timestamp"]):
        return "timestamp needs an offset"
    return ""


def _plain(value: dict[str, Any]) -> Any:
    ((kind, said),) = value.items()
    if kind == "intValue":
        return int(said)
    return [_plain(one) for one in said.get("values", [])] if kind == "arrayValue" else said
