"""The endpoint as a client of any framework needs to know it: address, key, the model's name and its context window.

Three ways lead here: address and key as they are; an Airflow connection of a type that Airflow's common-ai provider
has (`langchain`, `llamaindex`, `pydanticai`), whose host is the base URL and whose password is the key; or `model`,
which asks GET /v1/models once, since the window that a client believes in decides what it cuts off.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import httpx
import numpy as np
import numpy.typing as npt

from nightshift.errors import AccessDenied, StorageError, UsageError

ANSWER_WITHIN_S = 30.0
TEXTS_A_REQUEST = 64


class Connection(Protocol):
    """What is read of an Airflow connection."""

    host: str | None
    password: str | None


@dataclass(frozen=True)
class Model:
    """What GET /v1/models says of the model that answers."""

    name: str
    context_window: int  # tokens of prompt and answer together


@dataclass(frozen=True)
class Endpoint:
    """Where a release answers."""

    url: str  # the base URL, with /v1
    key: str = field(repr=False)

    @classmethod
    def of(cls, connection: Connection) -> Endpoint:
        """The endpoint that an Airflow connection names. Raises UsageError where it has no base URL or no key."""
        url = connection.host or ""
        if not url.startswith(("http://", "https://")) or not connection.password:
            do = "host is the base URL, as http://127.0.0.1:8000/v1, and the password a key of the endpoint"
            raise UsageError("it names no endpoint", "the connection", do)
        return cls(url.rstrip("/"), connection.password)

    @cached_property
    def model(self) -> Model:
        """The model that answers; asked once. Raises AccessDenied, StorageError."""
        said = self._json("GET", "/models")
        try:
            one = said["data"][0]
            return Model(str(one["id"]), int(one["context_window"]))
        except (LookupError, TypeError, ValueError):
            do = "look whether the base URL ends in /v1 of a Nightshift endpoint"
            raise StorageError("it names no model with a context window", f"{self.url}/models", do) from None

    def vectors(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors of the index's encoder, (texts, width). Raises AccessDenied, StorageError."""
        made = []
        for at in range(0, len(texts), TEXTS_A_REQUEST):
            asked = {"model": self.model.name, "input": list(texts[at : at + TEXTS_A_REQUEST])}
            said = self._json("POST", "/embeddings", asked | {"encoding_format": "base64"})
            made += [base64.b64decode(one["embedding"]) for one in said["data"]]
        return np.stack([np.frombuffer(one, dtype="<f4") for one in made])

    def _json(self, method: str, path: str, asked: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer's body. Raises AccessDenied for a key that may not, StorageError for no answer or another one."""
        head = {"Authorization": f"Bearer {self.key}"}
        try:
            said = httpx.request(method, self.url + path, json=asked, headers=head, timeout=ANSWER_WITHIN_S)
            if said.status_code in (401, 403):
                raise AccessDenied(_message(said), self.url + path, "give a key that may")
            if said.is_error:
                do = "try again" if said.is_server_error else "look whether its address ends in /v1"
                raise StorageError(_message(said), self.url + path, do)
            return dict(said.json())
        except (httpx.HTTPError, ValueError) as error:
            do = "start the endpoint (`make up`), or mend its address"
            raise StorageError(f"it gave no answer ({error})", self.url + path, do) from None


def _message(said: httpx.Response) -> str:
    """What the endpoint says about a refusal."""
    try:
        return str(said.json()["error"]["message"]).rstrip(".")
    except (ValueError, LookupError, TypeError):
        return f"it answered {said.status_code}"
