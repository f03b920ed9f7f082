"""A log line is plain for a person, and JSON with trace, run and release for a machine."""

from __future__ import annotations

import io
import json
import logging

import pytest

from nightshift import logs
from nightshift.serve import server
from nightshift.serve.listener import protocol
from nightshift.spans import CURRENT, Tracer
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def untouched() -> object:
    """The loggers as they were, once a test is over."""
    loggers = [logging.getLogger(name) for name in (logs.NAME, *logs.BELOW)]
    before = [(one, one.handlers[:], one.level, one.propagate) for one in loggers]
    token = CURRENT.set(None)
    yield
    CURRENT.reset(token)
    for one, handlers, level, propagate in before:
        one.handlers[:], one.level, one.propagate = handlers, level, propagate


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


def test_lines_of_the_http_server_and_the_event_loop_have_the_same_form(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("uvicorn", "uvicorn.error", "asyncio"):  # as in a new process, whatever ran in this one before
        one = logging.getLogger(name)
        for attribute, value in {"disabled": False, "propagate": True, "handlers": []}.items():
            monkeypatch.setattr(one, attribute, value)
    out, _ = said(monkeypatch, "json")
    server._server(None, server.HOST, 0, protocol(server.Settings.read(ROOT).limits))
    for name in ("uvicorn.error", "asyncio"):
        logging.getLogger(name).critical("it is odd")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(one["logger"], one["message"]) for one in lines] == [
        ("uvicorn.error", "it is odd"),
        ("asyncio", "it is odd"),
    ]
