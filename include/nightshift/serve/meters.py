"""What the endpoint counts, as Prometheus reads it, and as good and valid events of its objectives.

No label holds a key, a user or a text, so that the number of series does not grow with either. Names of ours are kept
apart from OpenTelemetry's, which are not stable yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from threading import Lock

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client import Counter as Counted
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from nightshift.counts import TURNS
from nightshift.openslo import COUNTED
from nightshift.spans import Tracer

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0)
GAPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Traced(Collector):
    """What became of the traces and ratings of a tracer, which counts them itself: asked at each look."""

    tracer: Tracer

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Both counters."""
        about = "Traces and ratings by sink: sent, dropped because its queue was full, failed because it would not"
        found = CounterMetricFamily("nightshift_traces", about, labels=("sink", "outcome"))
        for sink, counted in self.tracer.counts().items():
            for outcome, number in counted.items():
                found.add_metric((sink, outcome), number)
        yield found
        about = "Attributes that were left out of traces because they had another form, by word: a bug"
        refused = CounterMetricFamily("nightshift_attributes_refused", about, labels=("word",))
        for word, number in list(self.tracer.refused.items()):
            refused.add_metric((word,), number)
        yield refused


@dataclass
class Meters:
    """The counters of one gateway; `events` gathers what the objectives count until it is taken."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    events: Counter[tuple[str, str, bool]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._noting = Lock()  # requests note in one thread, and answers are scored and taken in another

        def counter(name: str, about: str, *labels: str) -> Counted:
            return Counted(f"nightshift_{name}", about, labels, registry=self.registry)

        def histogram(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"nightshift_{name}", about, labels, buckets=buckets, registry=self.registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"nightshift_{name}", about, labels, registry=self.registry)

        self.requests = counter("requests", "Requests that were answered", "route", "status", "side")
        self.good = counter("good", "Events that met an objective", "sli")
        self.valid = counter("valid", "Events that an objective counts", "sli")
        self.tokens = counter("tokens", "Tokens read and written", "direction")
        self.shed = counter("shed", "Requests that there was no room for")
        self.masked = counter("masked", "Personal data, secrets and links replaced", "kind", "where")
        self.abstained = counter("abstained", "Questions that no section answers")
        self.blocked = counter("blocked", "Answers that a rail ended")
        self.restarts = counter("engine_restarts", "Engines that were started again")
        self.broken = counter("broken", "What must never happen, and did", "invariant")
        self.queue = gauge("queue", "Requests that wait for an engine")
        self.in_flight = gauge("in_flight", "Requests under way")
        self.engines = gauge(
            "engines", "Engines of the release that serves, by state: warm, starting, leaving", "state"
        )
        self.first_token = histogram("first_token_seconds", "Until the first token left", SECONDS, "side")
        self.seconds = histogram("request_seconds", "Until the last byte left", SECONDS, "route", "side")
        self.gap = histogram("token_gap_seconds", "Mean time between two tokens of an answer", GAPS, "side")
        self.overhead = histogram("overhead_seconds", "Of a request, outside of queue and engine", SECONDS)
        for sli in COUNTED:
            self.good.labels(sli)
            self.valid.labels(sli)

    def event(self, sli: str, release: str, good: bool) -> None:
        """Count one valid event of an objective, or of TURNS."""
        if sli != TURNS:
            self.valid.labels(sli).inc()
            self.good.labels(sli).inc(good)
        with self._noting:
            self.events[sli, release, good] += 1

    def take(self) -> dict[tuple[str, str], tuple[int, int]]:
        """(objective, release) → good and valid events since this was asked last."""
        found: dict[tuple[str, str], tuple[int, int]] = {}
        with self._noting:
            events, self.events = self.events, Counter()
        for (sli, release, good), number in events.items():
            right, valid = found.get((sli, release), (0, 0))
            found[sli, release] = (right + number * good, valid + number)
        return found

    def traces(self, tracer: Tracer) -> None:
        """Count what this tracer loses, too; once."""
        self.registry.register(Traced(tracer))

    def text(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self.registry)
