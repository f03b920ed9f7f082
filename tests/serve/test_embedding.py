"""Vectors are made for one request at a time: who waits too long is told so, and nobody's are made who left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from nightshift import encode
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
        """A token a text, and one that is long."""
        return [600 if text == "long" else 1 for text in texts]

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


@pytest.mark.parametrize(("policy", "read"), [("mask", "Is <EMAIL> in?"), ("keep", "Is ann@example.org in?")])
def test_what_is_personal_is_masked_as_in_a_chat(policy: str, read: str, tmp_path: Path) -> None:
    with encoding(tmp_path, personal_in=policy) as (one, encoder):
        encoder.let.set()
        assert embed(one, "plain", "Is ann@example.org in?").status_code == 200
        assert encoder.encoded == ["plain", read]
        counted = 'nightshift_masked_total{kind="EMAIL",where="in"} 1.0'
        until(lambda: not one.front.meters.in_flight._value.get())
        assert (counted in one.call("GET", "/metrics").text) == (policy == "mask")


def test_what_cannot_be_answered_is_told_so_before_it_waits(tmp_path: Path) -> None:
    with encoding(tmp_path, personal_in="refuse") as (one, encoder):
        first = threading.Thread(target=lambda: embed(one, "a"))
        first.start()
        assert encoder.begun.wait(20)  # and holds the only turn
        for texts, expected in (
            (["a", "long"], "context_length_exceeded"),
            (["a", "b " * 10_000], "context_length_exceeded"),
            (["a", "Is ann@example.org in?"], "content_policy_violation"),
        ):
            said = embed(one, *texts, timeout=5)
            assert (said.status_code, said.json()["error"]["code"]) == (400, expected)
            assert "ann" not in said.text
        assert one.gateway.embedding.turns.asked == 1
        encoder.let.set()
        first.join()
        assert encoder.encoded == ["a"]


def test_one_thread_cuts_no_texts_of_another() -> None:
    """A question is cut at fewer tokens than what is counted, by the same tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    encoder = encode.Encoder(SimpleNamespace(config=SimpleNamespace(hidden_size=2)), words, "cpu")
    encoder._vectors = lambda ids: np.full((len(ids), 2), len(ids[0]), np.float16)  # type: ignore[method-assign]
    found: dict[int, set[float]] = {8: set(), 16: set()}

    def asks(first_tokens: int) -> None:
        for _ in range(300):
            found[first_tokens] |= set(encoder.encode(["a " * 600] * 8, first_tokens)[:, 0].tolist())

    threads = [threading.Thread(target=asks, args=[first_tokens]) for first_tokens in found]
    for one in threads:
        one.start()
    counted = {length for _ in range(300) for length in encoder.lengths(["a " * 600] * 8)}
    for one in threads:
        one.join()
    assert (counted, found) == ({encode.BUCKETS[-1] + 1}, {8: {8.0}, 16: {16.0}})


def until(true: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + 5
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()
