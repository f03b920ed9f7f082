"""A log line is plain for a person, and JSON with trace, run and release for a machine."""

from __future__ import annotations

import io
import json
import logging

import pytest

from nightshift import logs
from nightshift.spans import CURRENT, Tracer


@pytest.fixture(autouse=True)
def untouched() -> object:
    """The logger as it was, once a test is over."""
    logger = logging.getLogger(logs.NAME)
    before = (logger.handlers[:], logger.level, logger.propagate)
    token = CURRENT.set(None)
    yield
    CURRENT.reset(token)
    logger.handlers[:], logger.level, logger.propagate = before


def said(monkeypatch: pytest.MonkeyPatch, form: str, run: str = "") -> tuple[io.StringIO, logging.Logger]:
    monkeypatch.setenv(logs.VARIABLE, form)
    out = io.StringIO()
    logs.set_up("gateway", out, run)
    return out, logging.getLogger("nightshift.serve")


def test_a_line_is_plain_unless_json_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    out, log = said(monkeypatch, "")
    log.info("v0.3.0 is served")
    assert out.getvalue() == "gateway: v0.3.0 is served\n"


def test_a_line_of_a_request_names_its_trace_and_release(monkeypatch: pytest.MonkeyPatch) -> None:
    out, log = said(monkeypatch, "json", run="manual-1")
    log.info("before\nand after")
    trace = Tracer("x").request("chat")
    trace.set(release="a" * 64)
    try:
        raise ValueError("wrong")
    except ValueError:
        log.exception("it broke")
    first, second = (json.loads(line) for line in out.getvalue().splitlines())
    assert first == {
        "time": first["time"],
        "level": "info",
        "logger": "nightshift.serve",
        "message": "before\nand after",
        "service": "gateway",
        "run": "manual-1",
    }
    assert (second["trace"], second["release"], second["level"]) == (trace.trace_id, "a" * 64, "error")
    assert "ValueError" in second["exception"]
