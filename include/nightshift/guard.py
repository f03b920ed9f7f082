"""Who may ask an engine, and what: only the process that started it, and only to answer.

An engine listens on loopback, where every user of the machine can knock. The server of transformers has no key, and
would load another model for whoever asks; vLLM's key covers paths under /v1 alone. So this layer lies around each kind
of engine, ours too: without the secret everything is 401, and with it there are three paths, and everything else is
404. It stands on the standard library alone, because vLLM imports it into an environment of its own.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

SECRET = "NIGHTSHIFT_ENGINE_SECRET"  # variable of an engine's process: what its askers send as bearer token
REACHED = {("GET", "/health"), ("POST", "/v1/chat/completions"), ("POST", "/v1/completions")}
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application around an engine's.

    Args:
        app: the engine's own.
        secret: that askers have to know; None takes it from the environment, as vLLM can give no argument.
    """

    def __init__(self, app: App, secret: str | None = None) -> None:
        self.app = app
        self.wanted = f"Bearer {os.environ[SECRET] if secret is None else secret}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif not self._known(scope):
            await _refuse(send, 401, "Only the process that started this engine may ask it.")
        elif (scope["method"], scope["path"]) not in REACHED:
            await _refuse(send, 404, "There is nothing at this address.")
        else:
            await self.app(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        """Whether the request has one such header, and it is right."""
        said = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(said) == 1 and hmac.compare_digest(said[0], self.wanted)


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": {"message": message, "type": "engine", "param": None, "code": None}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
