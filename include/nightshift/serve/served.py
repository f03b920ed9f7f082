"""A release that is up: its system, its engines, whose turn it is, and what was seen of it."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nightshift import commit
from nightshift.answer import System
from nightshift.engine import Engine
from nightshift.registry import Release
from nightshift.serve.refused import Refused
from nightshift.serve.rollout import Seen
from nightshift.serve.turns import Turns

MOST_USERS = 100_000  # keys that are remembered as answered by a candidate
TIMED = 200  # answers whose times are remembered
SURE = 8  # answers that count as much as what is expected of them


@dataclass(eq=False)
class Served:
    """A release that answers.

    Args:
        engines: that hold its model; a request is given to the one with the fewest.
        side: what it is in a rollout; a copy of a request is nobody's, and counted on no side.
        prompt: sha256 of its prompt.
        corpus: digest of the documents in its index; None where its facts do not say.
        busy: requests under way, from the choice of it to their end: its engines are not stopped meanwhile.
        users: keys that it answered while it was a candidate.
        another: starts one more engine; None where there can be no other.
        lead_s: how long that took last, seconds.
        starting: engines that are on their way.
        leaving: engines that get no more requests, until their answers are out.
        took: seconds of answers, from their turn to their end.
    """

    release: Release
    system: System
    engines: list[Engine]
    turns: Turns
    side: Literal["stable", "canary"] = "stable"
    prompt: str = ""
    corpus: str | None = None
    busy: int = 0
    seen: Seen = field(default_factory=Seen)
    users: set[str] = field(default_factory=set)
    another: Callable[[], Engine] | None = None
    lead_s: float = 0.0
    starting: int = 0
    leaving: list[Engine] = field(default_factory=list)
    took: deque[float] = field(default_factory=lambda: deque(maxlen=TIMED))
    _running: Counter[int] = field(default_factory=Counter)

    @property
    def alive(self) -> bool:
        """Whether any engine runs."""
        return any(one.alive for one in self.engines)

    @property
    def whole(self) -> bool:
        """Whether all of its engines run."""
        return all(one.alive for one in self.engines)

    @property
    def warm(self) -> int:
        """Engines that answer."""
        return sum(one.alive for one in self.engines)

    @property
    def accepts(self) -> frozenset[str]:
        """The fields of a request that its engines honour."""
        return self.engines[0].accepts if self.engines else frozenset()

    @contextmanager
    def held(self) -> Iterator[None]:
        """A request is under way."""
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1

    @asynccontextmanager
    async def turn(self, key: str, cost: float, within_s: float = math.inf) -> AsyncIterator[Engine]:
        """A turn at an engine, which is not taken away meanwhile. Raises Refused, after `within_s` too."""
        async with self.turns.turn(key, cost, within_s):
            engine = self._least()
            self._running[id(engine)] += 1
            try:
                yield engine
            finally:
                self._running[id(engine)] -= 1

    def answered(
        self, key: str, good: bool, first_s: float | None, took_s: float | None = None, token_s: float | None = None
    ) -> None:
        """A client's request ended, `took_s` after its turn came; None for one that asked no engine.

        Such a one (an abstention, vectors) says nothing of how a candidate answers, unless it failed.
        """
        if took_s is not None or not good:
            self.seen.request(good, first_s, token_s)
        if good and took_s is not None:
            self.took.append(took_s)
        if self.side == "canary" and len(self.users) < MOST_USERS:
            self.users.add(key)

    def service_s(self, expected_s: float) -> float:
        """Seconds an answer, of the last ones; what is expected of them counts as much as some more."""
        return (sum(self.took) + SURE * expected_s) / (len(self.took) + SURE)

    def add(self, engine: Engine) -> None:
        """One more engine answers."""
        self.engines.append(engine)
        self._resize()

    def bury(self) -> int:
        """Forget engines that died while others live; how many."""
        dead = [one for one in self.engines if not one.alive]
        if not dead or not self.alive:
            return 0
        self.engines = [one for one in self.engines if one.alive]
        self.leaving += dead
        self._resize()
        return len(dead)

    def drop(self) -> None:
        """Give the engine that answers fewest no more requests."""
        one = self._least()
        self.engines.remove(one)
        self.leaving.append(one)
        self._resize()

    def left(self) -> list[Engine]:
        """Of the engines that leave, those whose answers are out: nobody asks them again."""
        done = [one for one in self.leaving if not self._running[id(one)]]
        self.leaving = [one for one in self.leaving if one not in done]
        for one in done:
            del self._running[id(one)]
        return done

    def stop(self) -> None:
        """Stop its engines."""
        for one in [*self.engines, *self.leaving]:
            one.stop()

    def _least(self) -> Engine:
        alive = [one for one in self.engines if one.alive]
        if not alive:
            raise Refused("engine_error", "The engine gave no whole answer; ask again.")
        return min(alive, key=lambda one: self._running[id(one)])

    def _resize(self) -> None:
        self.turns.resize(sum(one.slots for one in self.engines if one.alive))


def opened(release: Release, folder: Path, engines: list[Engine], queue: int, wait_s: float, system: System) -> Served:
    """A release whose engines were started, with a queue of its own."""
    turns = Turns(sum(one.slots for one in engines), queue, wait_s)
    prompt = commit.sha256(folder / "system" / "prompt.yaml")
    return Served(release, system, engines, turns, prompt=prompt, corpus=_corpus(folder))


def _corpus(release: Path) -> str | None:
    """The digest of the documents that a release's index holds."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((release / "facts.json").read_text(encoding="utf-8"))
        return str(said["tables"]["unique"]["digest"])
    return None
