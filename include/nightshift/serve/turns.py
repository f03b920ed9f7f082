"""Whose turn it is when more ask than an engine answers at a time: a bounded queue that is fair between keys.

Self-clocked fair queueing (Golestani 1994): a request's tag is the larger of the virtual time and its key's last tag,
plus its cost; the smallest tag goes first, and the virtual time is the tag of the request in service. So a key that
asks for much waits behind its own requests, and hardly delays another's. A full queue sheds the last of the key that
has most waiting; a request that waited too long is shed too: both are told when to try again.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nightshift.serve.refused import Refused

REMEMBERED = 10_000  # keys whose last tag is kept


@dataclass(eq=False)
class _Waiting:
    key: str
    tag: float
    number: int
    turn: asyncio.Future[None]


@dataclass(eq=False)
class Turns:
    """The turns of one release's engines.

    Args:
        slots: requests that are answered at a time.
        queue: requests that wait, at most.
        wait_s: how long one waits, seconds.
        asked: how many asked for a turn, or were told that there is no room.
    """

    slots: int
    queue: int
    wait_s: float
    running: int = 0
    shed: int = 0
    asked: int = 0
    _waiting: list[_Waiting] = field(default_factory=list)
    _tags: OrderedDict[str, float] = field(default_factory=OrderedDict)
    _virtual: float = 0.0
    _number: int = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def turn(self, key: str, cost: float, within_s: float = math.inf) -> AsyncIterator[None]:
        """Wait for a turn, `within_s` at most, and hold it. Raises Refused when there is no room, or it took longer."""
        await self._take(key, cost, within_s)
        try:
            yield
        finally:
            self.running -= 1
            self._next()

    def room(self, key: str) -> None:
        """Raises Refused where a request of this key would be shed at once: before any work is done for it."""
        if len(self._waiting) < self.queue:
            return
        counted = Counter(one.key for one in self._waiting)
        if counted[key] >= max(counted.values()):
            self.asked += 1
            self.shed += 1
            raise self._full()

    def resize(self, slots: int) -> None:
        """Engines came or went; who has a turn keeps it."""
        self.slots = slots
        self._next()

    async def _take(self, key: str, cost: float, within_s: float = math.inf) -> None:
        self.asked += 1
        tag = self._tag(key, cost)
        if self.running < self.slots and not self._waiting:
            self.running += 1
            self._virtual = tag
            return
        one = _Waiting(key, tag, self._number, asyncio.get_running_loop().create_future())
        self._waiting.append(one)
        if len(self._waiting) > self.queue:
            self._shed(self._most())
        try:
            async with asyncio.timeout(min(within_s, self.wait_s)):
                await one.turn
        except BaseException as error:
            if one.turn.done() and not one.turn.cancelled() and one.turn.exception() is None:
                self.running -= 1  # its turn came as its client left, or as its time was over
                self._next()
            if isinstance(error, TimeoutError):
                self.shed += 1
                raise self._full() from None
            raise
        finally:
            if one in self._waiting:
                self._waiting.remove(one)

    def _tag(self, key: str, cost: float) -> float:
        self._number += 1
        if not self.running and not self._waiting:  # nobody is served: nothing to be fair about
            self._virtual = 0.0
            self._tags.clear()
        tag = self._tags[key] = max(self._virtual, self._tags.get(key, 0.0)) + cost
        self._tags.move_to_end(key)
        while len(self._tags) > REMEMBERED:
            self._tags.popitem(last=False)
        return tag

    def _next(self) -> None:
        while self.running < self.slots and self._waiting:
            one = min(self._waiting, key=lambda waiting: (waiting.tag, waiting.number))
            self._waiting.remove(one)
            if not one.turn.done():
                self._virtual = one.tag
                self.running += 1
                one.turn.set_result(None)

    def _most(self) -> _Waiting:
        """The last of the key that has most waiting."""
        counted = Counter(one.key for one in self._waiting)
        return max(self._waiting, key=lambda one: (counted[one.key], one.number))

    def _shed(self, one: _Waiting) -> None:
        self.shed += 1
        self._waiting.remove(one)
        one.turn.set_exception(self._full())

    def _full(self) -> Refused:
        return Refused("server_overloaded", "More is asked than can be answered now.", again_s=self.wait_s)
