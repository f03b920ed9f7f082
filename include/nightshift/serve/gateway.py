"""The OpenAI-compatible endpoint: keys, limits and errors of ours in front of the engine.

`POST /v1/chat/completions` answers the last user turn from the sections that the key's groups may see, whole or as a
stream, and names them: `nightshift.sections` of the answer (of the last chunk, in a stream) has id, title and source of
each. Everything else is 404 in the same shape. No key, no answer. The admin application, on a listener of its own,
says what is served.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from nightshift import engine
from nightshift.retrieve import Hit
from nightshift.serve.follow import Follower, Served
from nightshift.serve.keys import Key, Keys
from nightshift.serve.request import MAX_BODY, Chat, Refused, parse

MODEL = "nightshift"  # the name that clients ask for: the release behind it changes every night
ANSWER_WITHIN_S = 120.0
# what is said while nothing answers
NOT_READY = {
    "none": "No release is in production yet; try again after a night has released one.",
    "loading": "The release in production is being loaded; try again in a few seconds.",
    "refused": "The release in production did not pass its check; its operator has to look into it.",
}


class Gateway:
    """Answers for one follower and one key store."""

    def __init__(self, follower: Follower, home: Path) -> None:
        self.follower, self.keys = follower, Keys(home)
        self.client = httpx.AsyncClient(timeout=ANSWER_WITHIN_S)

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        key = self._allowed(request, "infer:chat")
        asked = parse(await _body(request), MODEL)
        served = self._serving()
        hits = self._sections(served, asked, key)
        messages = served.system.messages(asked.question, hits, asked.messages[:-1])
        limit = min(asked.max_tokens or served.system.settings["max_new_tokens"], served.system.settings["context"])
        _fits(served, messages, limit)
        body = served.engine.body(messages, limit)
        head = {"x-model-digest": served.release.digest}
        if asked.stream:
            chunks = self._stream(served, body, hits, asked.usage)
            return StreamingResponse(chunks, media_type="text/event-stream", headers=head)
        return JSONResponse(await self._whole(served, body, hits), headers=head)

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        self._allowed(request, "models:read", "infer:chat")
        one = {"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}
        return JSONResponse({"object": "list", "data": [one]})

    async def healthy(self, request: Request) -> Response:
        """GET /healthz: the process is up."""
        return JSONResponse({"ok": True})

    async def ready(self, request: Request) -> Response:
        """GET /readyz: a verified release answers."""
        up = self.follower.phase == "serving"
        return JSONResponse({"ready": up}, status_code=200 if up else 503)

    async def deployment(self, request: Request) -> Response:
        """GET /admin/v1/deployment, on the admin listener: what is served."""
        served = self.follower.served
        said = (
            {"version": served.release.version, "digest": served.release.digest, "busy": served.busy} if served else {}
        )
        return JSONResponse({"state": self.follower.phase, "served": said or None, "failed": self.follower.failed})

    def _allowed(self, request: Request, *scopes: str) -> Key:
        """The key of a request, which has one of these scopes. Raises Refused: the same text whatever else is wrong."""
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if not text:
            raise Refused(401, "authentication_error", "missing_api_key", "Give a key: 'Authorization: Bearer ns_…'.")
        key = self.keys.check(text.strip(), time.time()) if kind == "Bearer" else None
        if key is None:
            raise Refused(401, "authentication_error", "invalid_api_key", "This key is not valid.")
        if not set(scopes) & set(key.scopes):
            lacks = "' or '".join(scopes)
            raise Refused(403, "permission_error", "insufficient_scope", f"This key lacks the scope '{lacks}'.")
        return key

    def _serving(self) -> Served:
        served = self.follower.served
        if served is None or not served.engine.alive:
            why = NOT_READY.get(self.follower.phase, NOT_READY["loading"])
            raise Refused(503, "overloaded_error", "not_ready", why)
        return served

    def _sections(self, served: Served, asked: Chat, key: Key) -> list[Hit]:
        """What the question is answered from; nothing that the key's groups may not see."""
        return served.system.sections(asked.question, key.groups) if served.system.settings["sections"] else []

    async def _whole(self, served: Served, body: dict[str, Any], hits: list[Hit]) -> dict[str, Any]:
        async with served.answering():
            try:
                said = await self.client.post(f"{served.engine.url}/v1/chat/completions", json=body)
                said.raise_for_status()
                answer: dict[str, Any] = said.json()
            except (httpx.HTTPError, ValueError):
                raise Refused(502, "server_error", "engine_error", "The engine gave no answer; try again.") from None
        return answer | {"id": _identifier(), "model": MODEL, "nightshift": named(served, hits)}

    async def _stream(self, served: Served, body: dict[str, Any], hits: list[Hit], usage: bool) -> AsyncIterator[bytes]:
        """The engine's chunks under our name; the sections come with the last; a broken stream says so."""
        identifier, finished = _identifier(), False
        about = {"id": identifier, "model": MODEL}
        counted: dict[str, Any] | None = None
        async with served.answering():
            try:
                url = f"{served.engine.url}/v1/chat/completions"
                async with self.client.stream("POST", url, json=body | {"stream": True}) as said:
                    said.raise_for_status()
                    async for line in said.aiter_lines():
                        for chunk in engine.deltas(line):
                            counted = chunk.pop("usage", None) or counted
                            ends = any(one.get("finish_reason") for one in chunk.get("choices", []))
                            finished = finished or ends
                            more = {"nightshift": named(served, hits)} if ends else {}
                            yield _event(chunk | about | more)
            except (httpx.HTTPError, ValueError):
                finished = False
        if not finished:
            broken = Refused(502, "server_error", "engine_error", "The answer broke off; ask again.")
            yield _event(broken.body)
        elif usage and counted:
            yield _event({"object": "chat.completion.chunk", "created": 0, "choices": [], "usage": counted} | about)
        yield b"data: [DONE]\n\n"


def named(served: Served, hits: list[Hit]) -> dict[str, Any]:
    """The release that answered, and the sections that it answered from."""
    sections = [{"id": hit.id, "title": hit.title, "source": hit.source, "path": hit.path} for hit in hits]
    return {"release": served.release.digest, "version": served.release.version, "sections": sections}


def application(gateway: Gateway) -> Starlette:
    """The public application; it follows the registry as long as it runs."""
    routes = [
        Route("/v1/chat/completions", gateway.chat, methods=["POST"]),
        Route("/v1/models", gateway.models, methods=["GET"]),
        Route("/healthz", gateway.healthy, methods=["GET"]),
        Route("/readyz", gateway.ready, methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers={Refused: _refused, HTTPException: _elsewhere, Exception: _bug})


def admin(gateway: Gateway) -> Starlette:
    """The admin application: loopback only."""
    routes = [Route("/admin/v1/deployment", gateway.deployment), Route("/healthz", gateway.healthy)]
    return Starlette(routes=routes, exception_handlers={HTTPException: _elsewhere})


async def _body(request: Request) -> bytes:
    """The body, counted as it arrives. Raises Refused once it is too long."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise Refused(413, "invalid_request_error", "request_too_large", f"The body is over {MAX_BODY} bytes.")
    return body


def _fits(served: Served, messages: list[dict[str, str]], limit: int) -> None:
    """Refuse what the model could not read whole."""
    context = served.system.settings["context"]
    read = sum(len(served.system.tokens.encode(turn["content"]).ids) + 8 for turn in messages)
    if read + limit > context:
        message = f"The model reads {context} tokens; this asks for {read} and an answer of {limit}."
        raise Refused(400, "invalid_request_error", "context_length_exceeded", message, "messages")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    head = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    head |= {"Retry-After": "5"} if error.status == 503 else {}
    return JSONResponse(error.body, status_code=error.status, headers=head)


async def _elsewhere(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    wrong = Refused(error.status_code, "invalid_request_error", code, "There is nothing at this address.")
    return await _refused(request, wrong)


async def _bug(request: Request, error: Exception) -> Response:
    return await _refused(request, Refused(500, "server_error", "internal_error", "Something went wrong here."))


def _identifier() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def _event(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()
