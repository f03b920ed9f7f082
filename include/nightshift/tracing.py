"""What params.yaml may hold about traces, and the tracer of a process as it says.

A gateway's traces go to local files and, where `traces.otlp` names one, to an OTLP sink; more outlets (Langfuse) are
handed in by whoever starts the process. `OTEL_SDK_DISABLED`, which switches off what packages report about themselves,
does not switch these off: nothing here leaves the machine unless params.yaml says where to.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from nightshift import commit, content, otlp_http
from nightshift.otlp import Background, FileSink
from nightshift.otlp_http import HttpSink
from nightshift.params import Section, Strict
from nightshift.segments import Segments
from nightshift.spans import FOLDER, Outlet, Rater, Tracer

SECRET = "pseudonyms.key"  # in FOLDER: under what users' and sessions' names are hashed
Address = Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]


class Langfuse(Strict):
    """A Langfuse server; its keys are read from LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY."""

    url: Address = Field(description="Its address, without a path: https://langfuse.example.org")
    environment: str = Field(pattern=r"^[a-z0-9_-]{1,40}$", description="What Langfuse files the traces under")

    @field_validator("environment")
    @classmethod
    def _not_theirs(cls, value: str) -> str:
        if value.startswith("langfuse"):
            raise ValueError(f"{value!r} begins with 'langfuse', which Langfuse keeps for itself")
        return value


class Traces(Section):
    """What is kept of requests, where, and for how long."""

    name: ClassVar[str] = "traces"
    segment_bytes: int = Field(ge=4096, description="Size of a file, bytes; then the next one is begun")
    total_bytes: int = Field(ge=4096, description="Of all files of a service, bytes, at most; the oldest goes first")
    days: float = Field(gt=0, le=366, description="Older files are removed, days")
    queue: int = Field(ge=1, le=100_000, description="Traces that wait for a sink, at most; then the oldest is lost")
    content: Literal["off", "scrubbed"] = Field(
        description="Whether questions and answers are kept, without personal data, in a file of their own"
    )
    content_share: float = Field(ge=0, le=1, description="Share of requests of which they are")
    content_days: float = Field(gt=0, le=30, description="How long they are, days")
    otlp: Address | None = Field(
        description="An OTLP/HTTP sink, with its path; headers are OTEL_EXPORTER_OTLP_HEADERS; null for none"
    )
    langfuse: Langfuse | None = Field(description="A Langfuse server; null for none")


def secret(home: Path) -> bytes:
    """The key of pseudonyms, made the first time; without it nobody can tell whose they are."""
    path = home / FOLDER / SECRET
    if not path.is_file():
        with suppress(FileExistsError):  # another process was faster
            commit.secret(path, secrets.token_bytes(32))
    return path.read_bytes()


def tracer(
    home: Path, params: Traces, service: str, more: Sequence[Outlet] = (), raters: Sequence[Rater] = ()
) -> Tracer:
    """The tracer of one process, its outlets running. `service` is a word, like gateway."""
    folder = home / FOLDER
    kept = Segments(folder, service, params.segment_bytes, params.total_bytes, params.days)
    words = Segments(folder, content.SERVICE, params.segment_bytes, params.total_bytes, params.content_days)
    outlets: list[Outlet] = [Background(FileSink(kept), params.queue), *more]
    outlets.append(Background(content.ContentSink(words), params.queue))  # that of yesterday is removed without any
    if params.otlp:
        outlets.append(Background(HttpSink("otlp", params.otlp, headers=otlp_http.headers()), params.queue))
    share = params.content_share if params.content == "scrubbed" else 0.0
    return Tracer(f"nightshift-{service}", outlets, share, secret(home), raters=raters)
