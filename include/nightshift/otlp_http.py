"""Send traces to an OTLP sink over HTTP: any collector, or Langfuse.

Protobuf by OpenTelemetry's own encoder, gzip, and the answers as OTLP/HTTP means them: 200 is taken, though it may
count spans that were not; 429, 502, 503 and 504 and no answer at all are tried again, after `Retry-After` or with
back-off to half a minute; everything else is final. A 400 rejects the whole batch for one bad span, so that a batch is
halved until the bad trace stands alone, and only that one is lost. A read that timed out is tried again too: the sink
then sees the same span ids twice, and one that stores by id keeps one.
"""

from __future__ import annotations

import gzip
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from nightshift import otlp
from nightshift.backoff import pause
from nightshift.spans import Step, Trace

if TYPE_CHECKING:
    import httpx

AGAIN = {408, 429, 502, 503, 504}
FIRST_S, LONGEST_S = 1.0, 30.0  # of back-off
TIMEOUT_S = 10.0
log = logging.getLogger("nightshift.traces")
Attributes = Callable[[Trace, Step], dict[str, Any]]


@dataclass
class HttpSink:
    """One endpoint.

    Args:
        name: in counts and logs.
        url: with its path, like http://127.0.0.1:4318/v1/traces.
        headers: with what lets us in.
        more: attributes of the sink's own, for every span.
        first_s: wait after the first try in vain; doubled after each further one, up to half a minute.
    """

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    more: Attributes | None = None
    first_s: float = FIRST_S
    failed: int = 0
    rejected_spans: int = 0
    _tries: int = 0
    _said: set[str] = field(default_factory=set)
    _client: httpx.Client | None = None

    def send(self, todo: list[Trace]) -> float:
        """Send them, from the first on; seconds to wait before the rest, where the sink is away or busy."""
        size = len(todo)
        while todo:
            batch = todo[:size]
            status, wait = self._post(batch)
            if status in AGAIN or status == 0:
                self._tries += 1
                self._say(f"it is away ({status or 'no answer'})")
                return wait or pause(self._tries, self.first_s, LONGEST_S)
            self._tries = 0
            if status == 400 and len(batch) > 1:
                size = len(batch) // 2
                continue
            if status >= 300:
                self.failed += len(batch)
                self._say(f"it refused traces ({status})")
            del todo[: len(batch)]
            size *= 2
        return 0.0

    def tidy(self) -> None:
        """Nothing of it stays here."""

    def _post(self, traces: list[Trace]) -> tuple[int, float]:
        """Status and `Retry-After` in seconds of one export; 0 for no answer."""
        import httpx
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

        # messages one after another are one message with all of their spans (Protocol Buffers, encoding)
        each = (encode_spans(otlp.readable(one, self.more)).SerializeToString() for one in otlp.yielding(traces))
        body = gzip.compress(b"".join(each), compresslevel=5)
        about = {"content-type": "application/x-protobuf", "content-encoding": "gzip", **self.headers}
        self._client = self._client or httpx.Client(timeout=TIMEOUT_S)
        try:
            said = self._client.post(self.url, content=body, headers=about)
        except httpx.HTTPError:
            return 0, 0.0
        if said.status_code == 200:
            self._rejected(said.content)
        wait = said.headers.get("retry-after", "")
        return said.status_code, float(wait) if wait.isdigit() else 0.0

    def _rejected(self, body: bytes) -> None:
        """Say that a sink took a batch but for some spans (OTLP's partial success)."""
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        try:
            partial = ExportTraceServiceResponse.FromString(body).partial_success
        except DecodeError:  # JSON, as Langfuse answers: {} says that all is well
            return
        if partial.rejected_spans:
            self.rejected_spans += partial.rejected_spans
            self._say(f"it left out {partial.rejected_spans} spans")

    def _say(self, what: str) -> None:
        """Say each kind of trouble once a process: a sink that is away for a night is no reason for a log of it."""
        kind = what.partition(" (")[0]
        if kind not in self._said:
            self._said.add(kind)
            log.warning("traces to %s: %s", self.name, what)


def headers() -> dict[str, str]:
    """What OTEL_EXPORTER_OTLP_TRACES_HEADERS or OTEL_EXPORTER_OTLP_HEADERS says: `name=value,…`, percent-coded."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
    said = next((os.environ[name] for name in names if os.environ.get(name)), "")
    pairs = (one.partition("=") for one in said.split(",") if "=" in one)
    return {name.strip().lower(): unquote(value.strip()) for name, _, value in pairs}
