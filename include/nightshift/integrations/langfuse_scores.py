"""Feedback on answers as Langfuse's scores, in the form that the server's version takes.

From 4.59 on a list of scores in one request, as its SDK 5 sends it (202, or 207 with those that were rejected, which
are not sent again); before, one at a time. A score's id is made of trace, name and key, so that Langfuse can tell that
a key rated the same answer again. A correction goes along, masked, as the score's comment, where `traces.content` keeps
words at all.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nightshift.backoff import pause
from nightshift.content import scrubbed
from nightshift.errors import NightshiftError
from nightshift.integrations.langfuse import OLDEST, Server, iso
from nightshift.otlp import Background
from nightshift.otlp_http import AGAIN, FIRST_S, LONGEST_S
from nightshift.spans import Rating

SCORES = "/api/public/scores"
log = logging.getLogger("nightshift.traces")


@dataclass
class ScoreSink:
    """Sends ratings to one server."""

    server: Server
    environment: str
    first_s: float = FIRST_S
    name: str = "langfuse-scores"
    failed: int = 0
    _version: tuple[int, ...] | None = None
    _tries: int = 0

    def send(self, todo: list[Rating]) -> float:
        """Send them, all at once or one by one; seconds to wait where the server is away or busy."""
        import httpx

        try:
            self._version = self._version or self.server.version()
            size = len(todo) if self._version >= OLDEST else 1
            while todo:
                size = min(size, len(todo))
                status = self._post(todo[:size])
                if status in AGAIN:
                    return self._later()
                if status == 400 and size > 1:  # one wrong score rejects its whole list
                    size //= 2
                    continue
                if status >= 300:
                    self._lost(size, f"it answered {status}")
                del todo[:size]
        except (httpx.HTTPError, NightshiftError):  # away, or its version is not to be had
            return self._later()
        self._tries = 0
        return 0.0

    def tidy(self) -> None:
        """Nothing of it stays here."""

    def _post(self, ratings: Sequence[Rating]) -> int:
        """The status of sending these, whose rejected ones are counted."""
        bodies = [score(one, self.environment) for one in ratings]
        listed = self._version is not None and self._version >= OLDEST
        said = self.server.client.post(SCORES, json=bodies if listed else bodies[0])
        if said.status_code == 207:
            self._lost(int(said.json()["rejected"]), "it rejected some")
        return said.status_code

    def _later(self) -> float:
        self._tries += 1
        return pause(self._tries, self.first_s, LONGEST_S)

    def _lost(self, count: int, why: str) -> None:
        if not self.failed:
            log.warning("scores to Langfuse: %s", why)
        self.failed += count


def score(rating: Rating, environment: str) -> dict[str, Any]:
    """One score as the API takes it."""
    identifier = hashlib.sha256("\x1f".join([rating.trace, rating.name, rating.by]).encode()).hexdigest()[:32]
    made = {
        "id": identifier,
        "traceId": rating.trace,
        "name": rating.name,
        "value": rating.value,
        "dataType": "NUMERIC",
        "environment": environment,
        "timestamp": iso(rating.at_ns),
    }
    return made | ({"comment": scrubbed(rating.words)} if rating.words else {})


def rater(server: Server, environment: str, queue: int) -> Background[Rating]:
    """Carries ratings to a server, `queue` of them at most waiting."""
    return Background(ScoreSink(server, environment), queue)
