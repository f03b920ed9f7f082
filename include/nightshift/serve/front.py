"""The door of the endpoint: who may come in, with what, and in which shape everything is refused.

Made from a table of routes (routes.py), so that no address can be without its scopes. What reaches a handler has a
valid key with one of the route's scopes, stands within the key's limits, and has a body of the route's type. Every
response has a request id; every refusal, of unknown addresses and of our own mistakes too, has OpenAI's shape.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nightshift.counts import TURNS
from nightshift.drift import Outcome
from nightshift.errors import NightshiftError
from nightshift.serve.body import Body, parse, typed
from nightshift.serve.call import CALLERS, LEFT, Call, Ending, Gone
from nightshift.serve.counting import Answered, Counting
from nightshift.serve.given import Given
from nightshift.serve.keys import FORM, Key, Keys
from nightshift.serve.limits import Guesses, Limiter
from nightshift.serve.meters import Meters
from nightshift.serve.promises import Promises
from nightshift.serve.refused import CODES, Refused
from nightshift.serve.routes import Entry
from nightshift.serve.writing import Writing
from nightshift.serving import Limits
from nightshift.spans import Trace, Tracer

REQUEST_ID = re.compile(r"[\w-]{1,64}")
KEY_IN_ADDRESS = re.compile(rb"ns_[a-z]+_[a-z2-7]{10}_")
SHED = "server_overloaded"
LONGEST_ADDRESS = 64  # characters: a proxy may pass on any text
ASKING = ("chat", "completions", "embeddings")  # routes whose answers the objectives are about
Handler = Callable[[Any], Awaitable[Response]]
log = logging.getLogger("nightshift.serve")


@dataclass
class Front:
    """What all routes share.

    Args:
        keys: who may come in.
        clock: seconds that only grow.
        wall: seconds since 1970.
        bounds: objective → its threshold; those of speed are seconds.
        serves: digest of the release that serves; "" while none does.
        given: which key was given which answer.
        counting: is told of each answer; None counts none.
        promises: looks at an account when a request of it ended.
    """

    keys: Keys
    limits: Limits
    tracer: Tracer
    meters: Meters = field(default_factory=Meters)
    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    bounds: Mapping[str, float] = field(default_factory=dict)
    serves: Callable[[], str] = lambda: ""
    given: Given = field(default_factory=Given)
    counting: Counting | None = None
    promises: Promises | None = None

    def __post_init__(self) -> None:
        self.meters.traces(self.tracer)
        self.limiter = Limiter(self.limits.key)
        self.guesses = Guesses(self.limits.auth_failures_a_minute)

    def application(self, entries: Sequence[Entry], handlers: object) -> ASGIApp:
        """The application of these routes; `handlers` has a method for each by its name."""
        routes = [
            Route(entry.path, self._endpoint(entry, getattr(handlers, entry.name)), methods=[entry.method])
            for entry in entries
        ]
        handled: Any = {HTTPException: _elsewhere, Exception: _bug}
        app = Starlette(routes=routes, exception_handlers=handled)
        app.router.redirect_slashes = False
        return Shell(app)

    def count(self, call: Call[Any]) -> None:
        """Count a call that is over."""
        now, side = self.clock(), call.served.side if call.served else "stable"
        meters = self.meters
        meters.in_flight.dec()
        if self.promises is not None:
            self.promises.account(call.taken.account)
        meters.requests.labels(call.name, "broken" if call.broken else str(call.status), side).inc()
        meters.seconds.labels(call.name, side).observe(now - call.begun)
        meters.abstained.inc(call.abstained)
        for kind, number in call.masked_in.items():
            meters.masked.labels(kind, "in").inc(number)
        said = CODES[call.broken][0] if call.broken else call.status  # what a stream said too late for a status
        if call.name not in ASKING or call.status in CALLERS or said in CALLERS:
            return
        good = said < 500
        if self.counting and call.questions and call.served is not None:
            self.counting.answers.extend(_answered(call, call.served.release.digest, good))
        digest = call.served.release.digest if call.served else ""
        meters.event("availability", digest, good)
        if call.name != "embeddings" and not call.abstained:
            meters.event(TURNS, digest, good)
        if call.served is not None and not call.shed:  # a full queue says nothing of the release that it is before
            writing, took = call.writing, now - call.asked_at if call.asked_at is not None else None
            first_s = writing.first - call.begun if writing and writing.first else None
            call.served.answered(call.key.id, good, first_s, took, writing.token_s if writing else None)
        if good and call.writing is not None:
            self._timed(call, call.writing, digest, side, now)

    def _timed(self, call: Call[Any], writing: Writing, digest: str, side: str, now: float) -> None:
        """How long an answer's parts took, and whether that is within its objectives."""
        for kind, number in writing.masked.items():
            self.meters.masked.labels(kind, "out").inc(number)
        self.meters.blocked.inc(len(writing.harmful))
        if writing.first is None or call.asked_at is None:
            return
        first = writing.first - call.begun
        overhead = call.asked_at - call.begun - call.waited_s + now - writing.last
        self.meters.first_token.labels(side).observe(first)
        self.meters.overhead.observe(overhead)
        took = {"first_token": first, "first_token_tail": first, "overhead": overhead}
        if (gap := writing.token_s) is not None:
            took["speed"] = gap
            self.meters.gap.labels(side).observe(gap)
        for sli, seconds in took.items():
            if sli in self.bounds:
                self.meters.event(sli, digest, seconds <= self.bounds[sli])

    def _endpoint(self, entry: Entry, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
        async def guarded(request: Request) -> Response:
            return await self._within(entry, handler, request) if entry.scopes else await handler(None)

        return guarded

    async def _within(self, entry: Entry, handler: Handler, request: Request) -> Response:
        begun, call, response = self.clock(), None, Response(status_code=LEFT)
        trace = self.tracer.request(entry.name, request.headers.get("traceparent"))
        try:
            call = await self._call(entry, request, trace, begun)
            response = await handler(call)
        except Refused as refused:
            refused.headers.setdefault("x-trace-id", trace.trace_id)
            trace.fail(refused.code)
            self.meters.shed.inc(refused.code == SHED)
            if call is not None:
                call.shed = refused.code == SHED
                refused.headers |= call.release
            response = refusal(refused)
        except (Gone, ClientDisconnect):
            pass  # nobody reads a response
        except Exception as error:
            trace.fail(type(error).__name__)
            response = Response(status_code=500)
            raise
        finally:
            if call is None:
                self._outside(entry, trace, response.status_code)
            elif not isinstance(response, Ending):  # which ends it with its last byte
                call.status = response.status_code
                call.end_soon()
        return response

    def _outside(self, entry: Entry, trace: Trace, status: int) -> None:
        """A request ended before it was let in; where that is our fault, it is one that was not answered."""
        if entry.name in ASKING and status >= 500:
            self.meters.event("availability", self.serves(), False)
        self.meters.requests.labels(entry.name, str(status), "stable").inc()
        trace.set(status=status)
        trace.end()

    async def _call(self, entry: Entry, request: Request, trace: Trace, begun: float) -> Call[Any]:
        """A request as a call. Raises Refused."""
        if KEY_IN_ADDRESS.search(request.scope["query_string"]):
            raise Refused("invalid_value", "A key stands in the address, where others read it; revoke it.", "query")
        key = await self._allowed(request, entry.scopes)
        account = self.limiter.account(key.id, key.limits, self.clock())
        taken = self.limiter.take(account)
        try:
            asked = await self._asked(request, entry.body) if entry.body else None
        except BaseException:
            taken.give_back(0)
            raise
        self.meters.in_flight.inc()
        return Call(self, request, entry.name, key, trace, taken, asked, begun, self.wall())

    async def _allowed(self, request: Request, scopes: Sequence[str]) -> Key:
        """The key of a request, which has one of these scopes. Raises Refused: the same text whatever is wrong."""
        address = request.client.host[:LONGEST_ADDRESS] if request.client else ""
        given = request.headers.getlist("authorization")
        if not given:
            raise Refused("missing_api_key", "Give a key: 'Authorization: Bearer ns_…'.")
        kind, _, text = given[0].partition(" ")
        key = self._check(text.strip()) if len(given) == 1 and kind.lower() == "bearer" else None
        if key is None:  # who has a key is answered, whoever guesses beside them at the same address
            self.guesses.check(address, self.clock())
            self.guesses.wrong(address, self.clock())
            raise Refused("invalid_api_key", "This key is not valid.")
        if not set(scopes) & set(key.scopes):
            lacks = "' or '".join(scopes)
            raise Refused("insufficient_scope", f"This key lacks the scope '{lacks}'.")
        return key

    def admits(self) -> bool:
        """Whether the store of keys can tell who asks; else everybody is refused."""
        try:
            self.keys.readable()
        except NightshiftError:
            return False
        return True

    def _check(self, text: str) -> Key | None:
        """The key of this text; while the store cannot be read nobody is let in."""
        if not FORM.fullmatch(text):
            return None
        try:
            return self.keys.check(text, self.wall())
        except NightshiftError as error:
            log.error("%s", error)
            raise Refused("dependency_unavailable", "Keys cannot be checked now; try again.") from None

    async def _asked(self, request: Request, kind: type[Body]) -> Body:
        """The body as its type. Raises Refused."""
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json" or request.headers.get("content-encoding", "identity") != "identity":
            raise Refused("unsupported_media_type", "The body is sent as application/json, not compressed.")
        return typed(parse(await self._body(request), self.limits.json_depth), kind)

    async def _body(self, request: Request) -> bytes:
        """The body, counted as it arrives. Raises Refused once it is too long."""
        most, pieces, size = self.limits.body_bytes, [], 0
        said = request.headers.get("content-length", "0")
        if said.isdigit() and int(said) > most:
            raise Refused("request_too_large", f"The body is over {most} bytes.")
        async for piece in request.stream():
            size += len(piece)
            if size > most:
                raise Refused("request_too_large", f"The body is over {most} bytes.")
            pieces.append(piece)
        return b"".join(pieces)


@dataclass
class Shell:
    """What stands around an application: a request id on every response."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
        identifier = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(16)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = identifier
            await send(message)

        await self.app(scope, receive, sent)


def _answered(call: Call[Any], digest: str, good: bool) -> Iterator[Answered]:
    """What is to be scored: each choice of an answer, with the text that it answers; a chat's first for drift, too."""
    choices, each = call.writing.choices if call.writing else {}, call.asked.n or 1
    last = len(call.questions) - 1
    for place in sorted({0, *choices}):
        one = choices.get(place)
        outcome: Outcome = "abstained" if call.abstained else "answered" if good else "failed"
        if one is not None and one.outgoing.harmful:
            outcome = "blocked"
        question = call.questions[max(0, min(place // each, last))]  # an engine may number choices as it likes
        text, drifts = one.text if one else "", call.name == "chat" and place == 0
        yield Answered(digest, question, text, outcome, tuple(call.sections), drifts)


def refusal(refused: Refused) -> Response:
    """A refusal as a response."""
    return Response(refused.content, refused.status, refused.headers, "application/json")


async def _elsewhere(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    if status == 405:
        return refusal(Refused("method_not_allowed", "This address does not take that method."))
    return refusal(Refused("not_found", "There is nothing at this address."))


async def _bug(request: Request, error: Exception) -> Response:
    return refusal(Refused("internal_error", "Something went wrong here."))
