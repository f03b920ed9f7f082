"""Vectors are made for one request at a time: who waits too long is told so, and nobody's are made who left."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import PLAIN, ROWS, Endpoint, endpoint


@dataclass
class Encoder:
    """Encodes when it is let."""

    begun: threading.Event = field(default_factory=threading.Event)
    let: threading.Event = field(default_factory=threading.Event)
    encoded: list[str] = field(default_factory=list)
    width: int = 2

    def lengths(self, texts: list[str]) -> list[int]:
        """A token a text."""
        return [1 for _ in texts]

    def encode(self, texts: list[str], first_tokens: int) -> Any:
        """The same vector for all."""
        self.begun.set()
        assert self.let.wait(20)
        self.encoded += texts
        return np.ones((len(texts), self.width), np.float16)


@contextmanager
def encoding(folder: Path, **changed: Any) -> Iterator[tuple[Endpoint, Encoder]]:
    """An endpoint whose encoder waits."""
    system = models.system(folder / "plain", ROOT, ROWS)
    with endpoint(folder / "served", system, **changed) as one:
        one.served.system.index.encoder = encoder = Encoder()  # type: ignore[assignment]
        yield one, encoder
        encoder.let.set()


def embed(one: Endpoint, *texts: str, timeout: float = 30) -> httpx.Response:
    """Ask for vectors."""
    head = {"Authorization": f"Bearer {one.key}"}
    body = {"model": "nightshift", "input": list(texts)}
    return httpx.post(f"{one.url}/embeddings", json=body, headers=head, timeout=timeout, verify=PLAIN)


def test_who_waits_too_long_for_the_encoder_is_told_when_to_come_again(tmp_path: Path) -> None:
    with encoding(tmp_path, queue_s=0.3) as (one, encoder):
        said: list[httpx.Response] = []
        first = threading.Thread(target=lambda: said.append(embed(one, "a")))
        first.start()
        assert encoder.begun.wait(20)
        late = embed(one, "b", timeout=5)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "server_overloaded")
        assert "retry-after" in late.headers
        assert (one.served.seen.requests, one.served.seen.bad) == (0, 0)  # the queue is not the release's
        encoder.let.set()
        first.join()
        assert said[0].status_code == 200
        assert len(embed(one, *map(str, range(70))).json()["data"]) == 70


def test_for_who_left_no_more_vectors_are_made(tmp_path: Path) -> None:
    with encoding(tmp_path) as (one, encoder):
        texts = [str(number) for number in range(100)]
        with pytest.raises(httpx.ReadTimeout):
            embed(one, *texts, timeout=0.5)
        assert encoder.begun.wait(20)
        turns = one.gateway.embedding.turns
        assert turns.running == 1  # what was begun holds its turn
        encoder.let.set()
        assert embed(one, "after").status_code == 200
        assert encoder.encoded[-1] == "after"
        assert len(encoder.encoded) < 100
        assert turns.running == 0
