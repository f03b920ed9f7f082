"""Every address of the endpoint, with what it takes to be let in: the one table that its application, the OpenAPI
document and the test of every route with every scope are made from. The admin's own is in admin.py.

A route without scopes needs no key. One of the scopes is enough where there are several.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nightshift.serve.body import Body
from nightshift.serve.keys import ASKING
from nightshift.serve.refused import CODES
from nightshift.serve.request import BARE, EMBEDDINGS, MODEL, Chat, Completion, Embeddings, Feedback, schema


@dataclass(frozen=True)
class Entry:
    """One method of one address.

    Args:
        name: of the method that answers, and of the route in counters and traces.
        scopes: of which a key has one; () for everybody.
        body: what is sent; None for nothing.
    """

    method: str
    path: str
    name: str
    scopes: tuple[str, ...]
    about: str
    body: type[Body] | None = None


PUBLIC = [
    Entry("POST", "/v1/chat/completions", "chat", ("infer:chat",), "Answer from the release's documents", Chat),
    Entry("POST", "/v1/completions", "completions", ("infer:completions",), "Go on with a text", Completion),
    Entry("POST", "/v1/embeddings", "embeddings", ("infer:embeddings",), "Vectors of texts", Embeddings),
    Entry("POST", "/v1/feedback", "feedback", ("infer:chat", "infer:completions"), "Rate an answer", Feedback),
    Entry("GET", "/v1/models", "models", ASKING, "What is served"),
    Entry("GET", "/v1/models/{model}", "model", ASKING, "One of them"),
    Entry("GET", "/openapi.json", "openapi", ASKING, "This document"),
    Entry("GET", "/healthz", "healthy", (), "The process is up"),
    Entry("GET", "/readyz", "ready", (), "A verified release answers"),
]


def document(entries: list[Entry], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    schemas: dict[str, Any] = {"Error": _error()}
    paths: dict[str, Any] = {}
    for entry in entries:
        said: dict[str, Any] = {
            "operationId": entry.name,
            "summary": entry.about,
            "responses": {"200": {"description": "An answer"}} | _refusals(),
        }
        if entry.scopes:
            said["security"] = [{"key": []}]
        if entry.body is not None:
            found = schema(entry.body)
            schemas |= found.pop("$defs", {})
            schemas[entry.body.__name__] = found
            reference = {"$ref": f"#/components/schemas/{entry.body.__name__}"}
            said["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
        if "{model}" in entry.path:
            names = {"type": "string", "enum": [MODEL, BARE, EMBEDDINGS]}
            said["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": names}]
        paths.setdefault(entry.path, {})[entry.method.lower()] = said
    keys = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "nightshift", "version": version},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": keys},
    }


def _refusals() -> dict[str, Any]:
    """Each status of a refusal, which all have one shape."""
    shape = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    statuses = sorted({status for status, _ in CODES.values()})
    return {str(status): {"description": "Refused", "content": shape} for status in statuses}


def _error() -> dict[str, Any]:
    text = {"type": "string"}
    inner = {
        "message": text,
        "type": {"enum": sorted({kind for _, kind in CODES.values()})},
        "param": {"type": ["string", "null"]},
        "code": {"enum": sorted(CODES)},
    }
    shape = {"type": "object", "properties": inner, "required": sorted(inner), "additionalProperties": False}
    return {"type": "object", "properties": {"error": shape}, "required": ["error"]}
