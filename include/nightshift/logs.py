"""Log lines of the gateway and of stages: plain for a person, JSON for a machine.

`NIGHTSHIFT_LOGS=json` makes each line one JSON object: time (UTC), level, logger, message, service, and, where they are
known, trace, span, run and release: those of the request that the line belongs to, found by the context that it runs
in. Without it a line is `service: message`, as it always was. A message is a sentence of ours, or of the HTTP server
and the event loop below us; what a user wrote is never put into one.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from typing import IO, Any

from nightshift import spans

NAME = "nightshift"  # of the logger that every other of ours hangs below
BELOW = ("uvicorn", "asyncio")  # who else logs in a process that serves
VARIABLE = "NIGHTSHIFT_LOGS"


class JsonLines(logging.Formatter):
    """One JSON object a record.

    Args:
        service: gateway, stage.
        run: the night that this process is of; "" for none.
    """

    def __init__(self, service: str, run: str = "") -> None:
        super().__init__()
        self.about = {"service": service} | ({"run": run} if run else {})

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        said: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.about,
            **_traced(),
        }
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


class Plain(logging.Formatter):
    """`service: message`, with a traceback below where there is one."""

    def __init__(self, service: str) -> None:
        super().__init__(f"{service}: %(message)s")


def set_up(service: str, out: IO[str] | None = None, run: str = "") -> logging.Logger:
    """The logger of this process, writing to stderr in the form that NIGHTSHIFT_LOGS asks for; once is enough.

    So do those of what serves below it.
    """
    handler = logging.StreamHandler(out or sys.stderr)
    handler.setFormatter(JsonLines(service, run) if as_json() else Plain(service))
    for name in (NAME, *BELOW):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    ours = logging.getLogger(NAME)
    ours.setLevel(logging.INFO)
    return ours


def as_json() -> bool:
    """Whether lines are asked for as JSON."""
    return os.environ.get(VARIABLE) == "json"


def _traced() -> dict[str, str]:
    """Trace, span and release of the request that runs here; none outside of one."""
    trace = spans.CURRENT.get()
    if trace is None:
        return {}
    said = {"trace": trace.trace_id, "span": f"{trace.id:016x}"}
    words = {key: trace.attributes.get(key) for key in ("release", "run")}
    return said | {key: str(value) for key, value in words.items() if value}
