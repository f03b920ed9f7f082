"""Langfuse (server 4.59 or newer) as a sink of traces, and the client that its other parts share.

Traces go by OTLP over HTTP to /api/public/otel/v1/traces with Basic auth and `x-langfuse-ingestion-version: 4`: one
complete span each, once, when its request is over; a span is not mended afterwards. What Langfuse files a trace under
(user, session, environment, release, tags) stands on every span, since it no longer joins them. Question and answer go
along only where `traces.content` kept them, masked once more here. While the server is away a bounded queue waits for
it, and no request does. Langfuse's own SDK is not needed: `spans.py` costs a request a tenth of what it does.
"""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nightshift import tracing
from nightshift.content import scrubbed
from nightshift.errors import AccessDenied, StorageError
from nightshift.otlp import Background
from nightshift.otlp_http import HttpSink
from nightshift.spans import Step, Trace

if TYPE_CHECKING:
    import httpx

TRACES = "/api/public/otel/v1/traces"
OLDEST = (4, 59)  # server from which Langfuse's SDK 5, and we, speak to it
PUBLIC, SECRET = "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"
ANSWER_WITHIN_S = 20.0
KINDS = {"retrieve": "retriever", "engine": "generation", "scrub": "guardrail"}  # langfuse.observation.type of a step
Linked = Callable[[str, str], tuple[str, int] | None]  # (prompt's name, its digest) → its name and version there


@dataclass(frozen=True)
class Server:
    """One project of a Langfuse server.

    Args:
        url: without a path.
        public: key, pk-lf-…
        secret: key, sk-lf-…
    """

    url: str
    public: str
    secret: str

    @classmethod
    def of(cls, url: str, environ: Mapping[str, str] = os.environ) -> Server:
        """The server with the keys of the environment. Raises AccessDenied where they are not there."""
        missing = next((name for name in (PUBLIC, SECRET) if not environ.get(name)), None)
        if missing:
            raise AccessDenied("the key of Langfuse's project is missing", missing, "set it in the environment")
        return cls(url.rstrip("/"), environ[PUBLIC], environ[SECRET])

    @property
    def headers(self) -> dict[str, str]:
        """What lets us in, and says which form of traces these are."""
        basic = base64.b64encode(f"{self.public}:{self.secret}".encode()).decode()
        return {
            "authorization": f"Basic {basic}",
            "x-langfuse-public-key": self.public,
            "x-langfuse-ingestion-version": "4",
        }

    @cached_property
    def client(self) -> httpx.Client:
        """For questions that a person, or a thread of its own, waits for."""
        import httpx

        return httpx.Client(base_url=self.url, headers=self.headers, timeout=ANSWER_WITHIN_S)

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """The answer's JSON; None where what is got is not there.

        Raises AccessDenied for a key that it does not take, StorageError for every other no.
        """
        import httpx

        try:
            said = self.client.request(method, path, **more)
        except httpx.HTTPError as error:
            what = f"it gave no answer ({type(error).__name__})"
            raise StorageError(what, f"{self.url}{path}", "look whether Langfuse is up") from None
        if said.status_code == 404 and method == "GET":
            return None
        if said.status_code in (401, 403):
            raise AccessDenied(f"Langfuse does not take this key ({said.status_code})", self.url, f"mend {SECRET}")
        if said.status_code >= 300:
            what = f"it answered {said.status_code}: {said.text[:200]}"
            raise StorageError(what, f"{self.url}{path}", "do what it says, or try again")
        try:
            return said.json()
        except ValueError:  # of a proxy's own page, most often
            what = f"it answered {said.status_code} with what is no JSON"
            raise StorageError(what, f"{self.url}{path}", "look what answers there") from None

    def version(self) -> tuple[int, ...]:
        """The server's version, like (4, 59, 0). Raises StorageError."""
        said = self.ask("GET", "/api/public/health") or {}
        return tuple(int(part) for part in str(said.get("version", "0")).partition("-")[0].split("."))

    def current(self) -> str:
        """Its version as text. Raises StorageError for one that is too old for traces and experiments."""
        found = self.version()
        if found < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            what = f"it is version {'.'.join(map(str, found))}, and {oldest} is the oldest that will do"
            raise StorageError(what, self.url, "upgrade Langfuse")
        return ".".join(map(str, found))

    def project(self) -> str:
        """The id of the project that the keys are of. Raises AccessDenied, StorageError."""
        return str(self.ask("GET", "/api/public/projects")["data"][0]["id"])


def outlet(params: tracing.Langfuse, queue: int, linked: Linked | None = None) -> Background[Trace]:
    """Carries traces to the server that params.yaml names, `queue` of them at most waiting. Raises AccessDenied."""
    server = Server.of(params.url)
    return Background(sink(server, params.environment, linked), queue)


def sink(server: Server, environment: str, linked: Linked | None = None) -> HttpSink:
    """Where and how traces go; `linked` finds a prompt's version there, in the sink's own thread."""

    def more(trace: Trace, step: Step) -> dict[str, Any]:
        return attributes(trace, step, environment, linked)

    return HttpSink("langfuse", f"{server.url}{TRACES}", server.headers, more)


def attributes(trace: Trace, step: Step, environment: str, linked: Linked | None = None) -> dict[str, Any]:
    """Langfuse's own attributes of one span, beside ours (it keeps those as metadata)."""
    root = trace.attributes
    said: dict[str, Any] = {
        "langfuse.environment": environment,
        "langfuse.release": root.get("version"),
        "langfuse.version": str(root.get("release", ""))[:12] or None,
        "langfuse.trace.name": root.get("route"),
        "langfuse.trace.tags": tuple(str(root[word]) for word in ("route", "side") if root.get(word)),
        "user.id": root.get("user"),
        "session.id": root.get("session"),
        "langfuse.observation.type": "chain" if step is trace else KINDS.get(step.name, "span"),
    }
    if step.failed:
        why = step.attributes.get("error")
        said |= {"langfuse.observation.level": "ERROR", "langfuse.observation.status_message": why}
    if step is trace:
        said |= _root(trace)
    elif step.name == "engine":
        said |= _generation(trace, step, linked)
    return {key: value for key, value in said.items() if value is not None}


def _root(trace: Trace) -> dict[str, Any]:
    """The root observation stands for the trace, also where a caller's span is above it that never comes here."""
    words = {"input": scrubbed(trace.question), "output": scrubbed(trace.answer)} if trace.keeps_content else {}
    return {"langfuse.internal.as_root": True} | {
        f"langfuse.observation.{key}": one for key, one in words.items() if one
    }


def _generation(trace: Trace, step: Step, linked: Linked | None) -> dict[str, Any]:
    """Model, usage, first token and prompt of the step that asked the engine."""
    kept = step.attributes
    usage = {"input": kept.get("input_tokens"), "output": kept.get("output_tokens")}
    settings = {word: kept[word] for word in ("max_tokens", "temperature", "top_p") if kept.get(word) is not None}
    said: dict[str, Any] = {
        "langfuse.observation.model.name": kept.get("model"),
        "langfuse.observation.model.parameters": json.dumps(settings) if settings else None,
        "langfuse.observation.usage_details": None if None in usage.values() else json.dumps(usage),
    }
    if (first := kept.get("first_token_s")) is not None:
        said["langfuse.observation.completion_start_time"] = iso(step.start_ns + int(first * 1e9))
    asked = next((one.attributes for one in trace.steps if one.name == "prompt"), {})
    name, digest = asked.get("prompt_name"), asked.get("prompt")
    if linked and name and digest and (found := linked(name, digest)):
        said |= {"langfuse.observation.prompt.name": found[0], "langfuse.observation.prompt.version": found[1]}
    return said


def iso(ns: int) -> str:
    """Nanoseconds since 1970 as Langfuse reads a time."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))
    return f"{stamp}.{ns // 1000 % 10**6:06d}Z"
