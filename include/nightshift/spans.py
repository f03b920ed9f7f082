"""What one request or one stage did, as OpenTelemetry spans, at a cost that a request does not feel.

    tracer = tracing.tracer(home, params.load(file, Traces), "gateway")
    with tracer.request("chat", traceparent) as trace:
        trace.set(release=digest, version="v0.3.0", key=key.id)
        with trace.step("retrieve") as step:
            step.set(sections=ids, scores=scores)

A request notes plain values and hands them over when it ends; a thread for each sink turns them into OpenTelemetry's
form (otlp.py). Five spans cost a request 8 µs that way, and 77 µs with the SDK's own `start_span` (in a loop; 2 cores,
Python 3.11, `python bench/spans.py`). A sink that is slow or away loses the oldest traces of its bounded queue, and
counts them; no request waits.

**Nothing personal.** ATTRIBUTES is the whole of what a span may hold: each name has a form (64 hex digits, one of a few
words, a number), and what has another form is left out and counted in `Tracer.refused`. There is no attribute for a
prompt, an answer, a secret, an address or free text; a user's and a session's names are kept as keyed hashes. The words
of a request are noted by `Trace.content` alone, and only where `traces.content` asks for them (content.py).
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol

from nightshift.attributes import ATTRIBUTES, ROUTES

SERVER, CLIENT, INTERNAL = 2, 3, 1  # SpanKind of OTLP
FOLDER = "traces"  # in NIGHTSHIFT_HOME
STEPS = {"retrieve": INTERNAL, "prompt": INTERNAL, "engine": CLIENT, "scrub": INTERNAL}
_RANDOM = random.Random()  # of ids alone: what a stage seeds is another
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Clock:
    """Nanoseconds since 1970 that never go back within a trace: the wall's at its start, then the monotonic one's."""

    def __init__(self, wall: Callable[[], int] = time.time_ns, since: Callable[[], int] = time.perf_counter_ns) -> None:
        self.now = since
        self.offset = wall() - since()


class Step:
    """One span: what `set` noted between its start and its end."""

    __slots__ = ("attributes", "clock", "end_ns", "failed", "id", "kind", "name", "start_ns")

    def __init__(self, name: str, kind: int, clock: Clock) -> None:
        self.name, self.kind, self.clock = name, kind, clock
        self.start_ns, self.end_ns = clock.now() + clock.offset, 0
        self.id = _RANDOM.getrandbits(64) or 1
        self.attributes: dict[str, Any] = {}
        self.failed = False

    def set(self, **attributes: Any) -> None:
        """Note attributes by the words of ATTRIBUTES; None says nothing."""
        self.attributes.update(attributes)

    def fail(self, code: str) -> None:
        """End in an error; `code` is ours (`engine_error`) or the name of an exception's class, never its message."""
        self.failed = True
        self.attributes["error"] = code

    def end(self) -> None:
        """End it now; a second time says nothing."""
        self.end_ns = self.end_ns or self.clock.now() + self.clock.offset

    @property
    def seconds(self) -> float:
        """How long it took, once it ended."""
        return (self.end_ns - self.start_ns) / 1e9

    def __enter__(self) -> Step:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None and not self.failed:
            self.fail(kind.__name__)
        self.end()


class Trace(Step):
    """The root span of a request, with the steps below it. Ends by `with`, or by `end` where an answer is streamed."""

    __slots__ = ("answer", "keeps_content", "parent", "question", "steps", "trace", "tracer")

    def __init__(self, name: str, kind: int, tracer: Tracer, trace: int, parent: int | None, content: bool) -> None:
        super().__init__(name, kind, tracer.clock())
        self.tracer, self.trace, self.parent, self.keeps_content = tracer, trace, parent, content
        self.steps: list[Step] = []
        self.question = self.answer = ""

    @property
    def trace_id(self) -> str:
        """32 hex digits: the answer's `trace`, and `x-trace-id`."""
        return f"{self.trace:032x}"

    def traceparent(self, step: Step | None = None) -> str:
        """The header for what is asked in turn, below a step where one is given (W3C Trace Context, level 1)."""
        return f"00-{self.trace:032x}-{(step or self).id:016x}-01"

    def step(self, name: str) -> Step:
        """Begin a step: retrieve, prompt, engine, scrub. Several may run at once, in any task."""
        made = Step(name, STEPS.get(name, INTERNAL), self.clock)
        self.steps.append(made)
        return made

    def content(self, question: str = "", answer: str = "") -> None:
        """Note the words, where `traces.content` asks for those of this trace; else forget them at once."""
        if self.keeps_content:
            self.question, self.answer = question or self.question, answer or self.answer

    def end(self) -> None:
        """End it, and every step that did not, and hand it over; a second time says nothing."""
        if self.end_ns:
            return
        super().end()
        for step in self.steps:
            step.end_ns = step.end_ns or self.end_ns
        self.tracer.ended(self)

    def __enter__(self) -> Trace:
        return self


CURRENT: ContextVar[Trace | None] = ContextVar("nightshift.trace", default=None)  # logs.py names it in every line


class Outlet(Protocol):
    """Where ended traces go. `put` is called on the request's way: it neither waits nor raises."""

    def put(self, one: Trace) -> None: ...

    def counts(self) -> dict[str, dict[str, int]]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Rating:
    """What somebody thought of an answer, for sinks that show it beside its trace.

    Args:
        trace: 32 hex digits.
        name: what is rated, like rating.
        value: how good it is, in the rater's own range.
        by: the key's id: a second rating by the same can be told from another's.
        at_ns: when, nanoseconds since 1970.
        words: a correction; forgotten unless `traces.content` keeps words.
    """

    trace: str
    name: str
    value: float
    by: str
    at_ns: int
    words: str = ""


class Rater(Protocol):
    """Where ratings go; like an Outlet otherwise."""

    def put(self, one: Rating) -> None: ...

    def counts(self) -> dict[str, dict[str, int]]: ...

    def close(self) -> None: ...


class Tracer:
    """Makes the traces of one process and hands them to its outlets.

    Args:
        service: `service.name` of OpenTelemetry: nightshift-gateway, nightshift-stage.
        outlets: where they go; none forgets them, and every request has its id all the same.
        raters: where ratings of answers go.
        content: share of requests whose words are kept, by trace id; 0 keeps none.
        secret: under which names of users and sessions are hashed.
    """

    def __init__(
        self,
        service: str,
        outlets: Sequence[Outlet] = (),
        content: float = 0.0,
        secret: bytes = b"",
        clock: Callable[[], Clock] = Clock,
        raters: Sequence[Rater] = (),
    ) -> None:
        self.service, self.outlets, self.raters = service, outlets, raters
        self.content, self.secret, self.clock = content, secret, clock
        self.refused: Counter[str] = Counter()  # words of attributes that had another form: a bug of the caller's

    def request(self, route: str, traceparent: str | None = None) -> Trace:
        """Begin the trace of a request; it goes on with the caller's where that header is one."""
        trace, parent = parsed(traceparent)
        made = self.begin(route, SERVER, trace or _RANDOM.getrandbits(128) or 1, parent)
        made.attributes["route"] = route
        return made

    def begin(self, name: str, kind: int, trace: int, parent: int | None) -> Trace:
        """Begin a root span of this process, and make it the one that log lines here are of."""
        keeps = self.content > 0 and (trace & 0xFFFFFFFF) < self.content * 2**32
        made = Trace(name, kind, self, trace, parent, keeps)
        CURRENT.set(made)
        return made

    def pseudonym(self, name: str) -> str:
        """What stands for a user or a session in traces: 16 hex digits of HMAC-SHA256, of use within this home."""
        return hmac.new(self.secret, name.encode(), hashlib.sha256).hexdigest()[:16]

    def ended(self, trace: Trace) -> None:
        """Hand an ended trace over; what was asked without a key, or of another route, is forgotten.

        Else a flood of wrong keys, or a probe every second, would push what matters out of a bounded file.
        """
        if trace.kind == SERVER and ("key" not in trace.attributes or trace.name not in ROUTES):
            return
        for outlet in self.outlets:
            outlet.put(trace)

    def rate(self, rating: Rating) -> None:
        """Hand a rating over; without its words where no words are kept."""
        for rater in self.raters:
            rater.put(rating if self.content else replace(rating, words=""))

    def kept(self, step: Step) -> dict[str, Any]:
        """The attributes of a step by their OpenTelemetry names; what has another form is counted and left out."""
        found: dict[str, Any] = {}
        for word, value in step.attributes.items():
            form = ATTRIBUTES.get(word)
            if value is None:
                continue
            if form is None or not form.holds(value):
                self.refused[word if form else "unknown"] += 1
            elif isinstance(value, Mapping):
                found |= {f"{form.name}.{kind}": count for kind, count in value.items()}
            else:
                found[form.name] = value
        return found

    def counts(self) -> dict[str, dict[str, int]]:
        """Sink → traces that were sent, dropped (its queue was full) and failed (it would not have them)."""
        return {name: counted for one in self._all for name, counted in one.counts().items()}

    def close(self) -> None:
        """Write what waits, and end the outlets."""
        for one in self._all:
            one.close()

    @property
    def _all(self) -> list[Outlet | Rater]:
        return [*self.outlets, *self.raters]


def night_of(run: str) -> tuple[int, int | None]:
    """Trace and root span of a night's stages, from its run's name; a trace of its own for a stage without a night."""
    if not run:
        return _RANDOM.getrandbits(128) or 1, None
    digest = hashlib.sha256(run.encode()).digest()
    return int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1


def parsed(traceparent: str | None) -> tuple[int, int | None]:
    """Trace and span of a `traceparent`; (0, None) where it is none (W3C Trace Context, §3.2.2)."""
    hit = _TRACEPARENT.fullmatch(traceparent) if traceparent and len(traceparent) < 128 else None
    if hit is None or hit[1] == "ff" or (hit[1] == "00" and hit[5]):
        return 0, None
    trace, span = int(hit[2], 16), int(hit[3], 16)
    return (trace, span) if trace and span else (0, None)
