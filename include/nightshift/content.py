"""The words of some requests, where an operator asked for them: without personal data, apart, and for a few days.

Off unless `traces.content` is `scrubbed`. Then question and answer of a share of requests are written, each with what
mask.py finds taken out, to NIGHTSHIFT_HOME/traces/content-….jsonl: for its owner alone, removed after
`traces.content_days`. Spans never hold them. Names of people are not masked: see mask.py.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nightshift import mask, segments
from nightshift.segments import Segments
from nightshift.spans import Trace

SERVICE = "content"
log = logging.getLogger("nightshift.traces")


@dataclass
class ContentSink:
    """Writes the words of the traces that kept some."""

    segments: Segments
    now: Callable[[], float] = time.time
    name: str = SERVICE
    failed: int = 0

    def send(self, todo: list[Trace]) -> float:
        """Mask and write them."""
        kept = [one for one in todo if one.question or one.answer]
        todo.clear()
        try:
            if kept:
                self.segments.append(b"".join(_line(one) for one in kept), self.now())
        except OSError as error:
            if not self.failed:
                log.warning("the words of traces cannot be written: %s", error.strerror)
            self.failed += len(kept)
        return 0.0

    def tidy(self) -> None:
        """Remove what is old, also where no words are kept any more."""
        self.segments.tidy(self.now())


def scrubbed(text: str) -> str:
    """A text without the personal data and secrets that mask.py finds."""
    return mask.replace(text)[0]


def find(folder: Path, trace: str) -> dict[str, str] | None:
    """question and answer of a trace; None where they were not kept, or are no more."""
    for path in reversed(segments.files(folder, SERVICE)):
        for line in segments.lines(path, trace.encode()):
            with suppress(ValueError, TypeError, KeyError):  # a torn line is none
                said = json.loads(line)
                if said["trace"] == trace:
                    return {"question": said["question"], "answer": said["answer"]}
    return None


def _line(trace: Trace) -> bytes:
    said = {"trace": trace.trace_id, "question": scrubbed(trace.question), "answer": scrubbed(trace.answer)}
    return json.dumps(said, ensure_ascii=False).encode() + b"\n"
