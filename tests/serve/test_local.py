"""The endpoint is found by its process, not by a number that may be another's by now."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nightshift import params
from nightshift.process import Process
from nightshift.serve.local import Endpoint
from nightshift.serve.server import drain_s
from nightshift.serving import Limits
from nightshift.stage import SERVING
from tests.conftest import ROOT
from tests.served import serving


@pytest.mark.parametrize("pid", [os.getpid(), os.getppid(), 1], ids=["own", "parent", "init"])
def test_after_a_reboot_a_strangers_pid_is_not_the_endpoint(
    pid: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(*_: int) -> None:
        raise PermissionError

    for name in ("kill", "killpg"):
        monkeypatch.setattr(os, name, signalled)
    (tmp_path / SERVING).write_text(json.dumps({"port": 1, "pid": pid, "began": 0}))
    endpoint = Endpoint(tmp_path, tmp_path, {})
    assert not endpoint.up()
    endpoint.stop()
    assert not (tmp_path / SERVING).exists()


def test_it_is_given_the_time_that_its_answers_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(Process, "stop", lambda self, within_s: waited.append(within_s))
    Process(tmp_path / SERVING).keep(os.getpid(), 1)
    Process(tmp_path / SERVING).note(drain_s=drain_s(params.load(ROOT / params.FILE, Limits)))
    Endpoint(tmp_path, tmp_path, {}).stop()
    assert waited[0] > params.load(ROOT / params.FILE, Limits).request_s


@contextmanager
def answering() -> Iterator[int]:
    """The port of a listener on loopback that is well."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield server.server_port


def test_whether_it_is_up_says_its_admin_however_the_other_listens(tmp_path: Path) -> None:
    with answering() as admin:  # where the public listener would be, nobody speaks plain HTTP
        Process(tmp_path / SERVING).keep(os.getpid(), admin - 1)
        assert Endpoint(tmp_path, tmp_path, {}).up()


@pytest.mark.parametrize(
    ("host", "tls", "url"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:8000/v1"),
        ("0.0.0.0", {"certificate": "a.pem", "key": "a.key"}, "https://127.0.0.1:8000/v1"),
        ("models.example", {"certificate": "a.pem", "key": "a.key"}, "https://models.example:8000/v1"),
        ("fd00::5", {"certificate": "a.pem", "key": "a.key"}, "https://[fd00::5]:8000/v1"),
    ],
)
def test_clients_are_given_the_address_that_it_listens_at(
    host: str, tls: dict[str, str] | None, url: str, tmp_path: Path
) -> None:
    shutil.copyfile(ROOT / params.FILE, tmp_path / params.FILE)
    values = {"serve.listen.host": host} | ({"serve.listen.tls": tls} if tls else {})
    params.write(tmp_path / params.FILE, values, "test")
    assert Endpoint(tmp_path, tmp_path, {}).url == url


def test_one_that_is_not_known_is_where_it_would_start(tmp_path: Path) -> None:
    assert Endpoint(tmp_path, tmp_path, {}).port == 8000
    assert Endpoint(tmp_path, tmp_path, {"NIGHTSHIFT_PORT": "9100"}).port == 9100
    Process(tmp_path / SERVING).keep(os.getpid(), 9200)
    assert Endpoint(tmp_path, tmp_path, {"NIGHTSHIFT_PORT": "9100"}).port == 9200
