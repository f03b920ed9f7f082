"""Nobody but who started an engine may ask it, and nothing but answers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from nightshift.guard import SECRET, Guard

BEARER = {"Authorization": "Bearer the-secret"}
REACHED = [("GET", "/health"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions")]
ELSEWHERE = [
    ("POST", "/load_model"),
    ("POST", "/reset"),
    ("GET", "/v1/models"),
    ("POST", "/v1/responses"),
    ("POST", "/invocations"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/chat/completions"),
    ("OPTIONS", "/v1/chat/completions"),
    ("HEAD", "/health"),
    ("POST", "/v1/chat/completions/"),
    ("POST", "//v1/chat/completions"),
]
WRONG = ["", "Bearer", "Bearer ", "Bearer the-secre", "Bearer the-secret ", "bearer the-secret", "Basic the-secret"]


async def inner(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inner"})


def ask(method: str, path: str, headers: Any, app: Guard | None = None) -> httpx.Response:
    async def asking() -> httpx.Response:
        transport = httpx.ASGITransport(app or Guard(inner, "the-secret"))  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asking())


@pytest.mark.parametrize(("method", "path"), [*REACHED, *ELSEWHERE])
@pytest.mark.parametrize("said", WRONG)
def test_without_the_secret_nothing_is_there(method: str, path: str, said: str) -> None:
    assert ask(method, path, {"Authorization": said} if said else {}).status_code == 401


def test_two_secrets_are_none() -> None:
    twice = [("Authorization", "Bearer the-secret"), ("Authorization", "Bearer the-secret")]
    assert ask("POST", "/v1/completions", twice).status_code == 401


@pytest.mark.parametrize(("method", "path"), REACHED)
def test_with_it_answers_are(method: str, path: str) -> None:
    assert ask(method, path, BEARER).text == "inner"


@pytest.mark.parametrize(("method", "path"), ELSEWHERE)
def test_and_nothing_else(method: str, path: str) -> None:
    said = ask(method, path, BEARER)
    assert said.status_code == 404
    assert method == "HEAD" or set(said.json()["error"]) == {"message", "type", "param", "code"}


def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/realtime", "headers": [(b"authorization", b"Bearer the-secret")]}
    asyncio.run(Guard(inner, "the-secret")(scope, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_it_takes_its_secret_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "another")
    assert ask("GET", "/health", BEARER, Guard(inner)).status_code == 401
    assert ask("GET", "/health", {"Authorization": "Bearer another"}, Guard(inner)).text == "inner"
