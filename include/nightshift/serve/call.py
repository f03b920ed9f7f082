"""One request from its key to its last byte, and what is counted of it.

A request ends once: when its answer is out, when its stream broke off, or when its client left. Then what it did not
use goes back to the key, its trace is closed, and its objectives are counted: what the caller did wrong is no event,
and a stream that broke off under status 200 is a bad one.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from nightshift.serve.keys import Key
from nightshift.serve.limits import Taken
from nightshift.serve.refused import Refused
from nightshift.spans import Step, Trace

if TYPE_CHECKING:
    from nightshift.serve.front import Front
    from nightshift.serve.served import Served
    from nightshift.serve.writing import Writing

LEFT = 499  # the status that is counted for a client that left
CALLERS = {400, 401, 403, 404, 405, 408, 413, 415, 429, 431, LEFT}  # statuses that are no event of an objective
B = TypeVar("B")
T = TypeVar("T")


class Gone(Exception):
    """The client left."""


@dataclass
class Call(Generic[B]):
    """A request that was let in.

    Args:
        begun: when it came, seconds of the front's clock; `wall`, seconds since 1970.
        used: tokens that it cost, known at its end.
        waited_s: for its turn.
        asked_at: when its engine was asked; None before.
        until: when all of it has to be over, in seconds of the front's clock.
        status: of the answer.
        shed: refused because the queue was full.
        scrub: cleaning what the engine says, from its first token on.
        questions: what was asked, masked: a chat's last turn, or each text of a completion; and `sections` the bodies
            that it is answered from, until they are scored.
    """

    front: Front
    request: Request
    name: str
    key: Key
    trace: Trace
    taken: Taken
    asked: B
    begun: float
    wall: float
    used: int = 0
    waited_s: float = 0.0
    asked_at: float | None = None
    until: float = math.inf
    status: int = 200
    broken: str | None = None
    abstained: bool = False
    shed: bool = False
    masked_in: Counter[str] = field(default_factory=Counter)
    served: Served | None = None
    writing: Writing | None = None
    scrub: Step | None = None
    questions: Sequence[str] = ()
    sections: Sequence[str] = ()
    ended: bool = False

    def by(self, served: Served) -> None:
        """The release that answers it, which is not stopped until it ends; from now on it has so long."""
        self.until = self.front.clock() + self.front.limits.request_s
        self.served = served
        served.busy += 1
        release = served.release
        self.trace.set(release=release.digest, version=release.version, commit=release.commit, side=served.side)
        self.trace.set(corpus=served.corpus)

    @property
    def left_s(self) -> float:
        """Seconds until it has to be over; below 0 once it is late."""
        return self.until - self.front.clock()

    def about(self, user: str | None, session: str | None) -> None:
        """Whose question it is, as the client says it: kept under a pseudonym."""
        name = self.front.tracer.pseudonym
        self.trace.set(user=name(user) if user else None, session=name(session) if session else None)

    def reserve(self, tokens: int) -> None:
        """Take tokens from the key's account. Raises Refused."""
        self.front.limiter.more(self.taken, tokens)

    @property
    def release(self) -> dict[str, str]:
        """The header that names the release that answers it, or was to."""
        return {"x-model-digest": self.served.release.digest} if self.served else {}

    def headers(self) -> dict[str, str]:
        """The headers of its answer."""
        return {"x-trace-id": self.trace.trace_id, **self.taken.account.headers(), **self.release}

    def wrote(self, writing: Writing, usage: dict[str, int]) -> None:
        """The engine's part is over."""
        self.writing = writing
        meters = self.front.meters
        meters.tokens.labels("in").inc(usage["prompt_tokens"])
        meters.tokens.labels("out").inc(usage["completion_tokens"])
        if self.served is not None:
            self.front.given.note(self.trace.trace_id, self.key.id, self.served.release.digest)
        self.trace.content(answer=writing.text)
        if self.scrub is not None:
            masked, blocked = writing.masked, dict(Counter(writing.harmful))
            links = masked.pop("LINK", 0)
            self.scrub.set(masked_out=dict(masked) or None, links=links or None, blocked=blocked or None)
            self.scrub.end()

    def broke(self, refused: Refused) -> None:
        """Its stream ends with an error, at a status that says otherwise."""
        self.broken = refused.code
        self.trace.fail(refused.code)

    def end_soon(self) -> None:
        """End it once what was written is on its way: nobody waits for what is counted."""
        asyncio.get_running_loop().call_soon(self.end)

    def end(self) -> None:
        """It is over; a second time says nothing."""
        if self.ended:
            return
        self.ended = True
        if self.served is not None:
            self.served.busy -= 1
        self.taken.give_back(self.used)
        self.front.count(self)
        found: dict[str, Any] = {"masked_in": dict(self.masked_in) or None, "abstained": self.abstained or None}
        self.trace.set(key=self.key.id, status=self.status, **found)
        self.trace.end()


class Ending(StreamingResponse):
    """A stream that ends its call however it ends: read to its end, broken off, or left."""

    def __init__(self, events: AsyncGenerator[bytes], call: Call[Any], headers: dict[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers | {"cache-control": "no-store"})
        self.events, self.call = events, call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; a client that leaves cancels what makes it."""
        ends = False

        async def sent(message: Message) -> None:
            nonlocal ends
            await send(message)
            ends = ends or (message["type"] == "http.response.body" and not message.get("more_body"))

        try:
            with suppress(Gone):
                await until_gone(receive, self.stream_response(sent))
        finally:
            if not ends:
                self.call.status = LEFT
            await self.events.aclose()
            self.call.end_soon()


async def until_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What this work gives, unless the client leaves first: then it is cancelled, and Gone is raised.

    `receive` is the request's, whose body was read already.
    """
    working, over = asyncio.current_task(), False

    def stop(_: asyncio.Task[None]) -> None:
        if working is not None and not over:
            working.cancel()

    leaving = asyncio.create_task(_left(receive))
    leaving.add_done_callback(stop)
    try:
        return await work
    except asyncio.CancelledError:
        if working is not None and leaving.done() and working.uncancel() == 0:
            raise Gone from None
        raise  # somebody else cancelled it too
    finally:
        over = True
        leaving.cancel()


async def _left(receive: Receive) -> None:
    """Returns when the client hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
