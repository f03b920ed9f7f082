"""Clients that are slow, half-open, too many or not HTTP end in time, and the others are served meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from nightshift import params
from nightshift.errors import AccessDenied
from nightshift.serve.exposure import allowed
from nightshift.serve.listener import protocol
from nightshift.serving import KeyLimits, Limits, Listen, Tls
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import ROWS, Endpoint, chat, endpoint

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
QUICK = {"header_s": 0.6, "body_s": 0.8, "idle_s": 0.7, "write_s": 0.5, "connections_an_address": 40}
UNCLEANED: dict[str, Any] = {"personal_out": "keep", "links": "keep"}  # megabytes of answers are soon said
WIDE = KeyLimits(concurrency=64, requests_a_minute=100_000, tokens_a_minute=100_000_000)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("listener")
    system = models.system(folder / "plain", ROOT, ROWS)
    with endpoint(folder / "served", system, slots=4, key=WIDE, connections=60, **QUICK, **UNCLEANED) as one:
        yield one


def connected(running: Endpoint) -> socket.socket:
    address = httpx.URL(running.url)
    return socket.create_connection((address.host, address.port or 80), timeout=5)


def rest(one: socket.socket) -> tuple[bytes, float]:
    """Everything until the other side closes, and how long that took."""
    begun, said = time.monotonic(), b""
    try:
        while piece := one.recv(65536):
            said += piece
    except ConnectionResetError:
        pass
    return said, time.monotonic() - begun


def refused(said: bytes) -> tuple[int, str]:
    """Status and code of a refusal, which has a request id as every response."""
    head, _, body = said.partition(b"\r\n\r\n")
    assert re.search(rb"\r\nx-request-id: [0-9a-f]{32}(\r\n|$)", head)
    return int(head.split()[1]), json.loads(body)["error"]["code"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", None),
        (b"POST /v1/chat", (408, "request_timeout")),
        (HEAD, (408, "request_timeout")),
        (HEAD + b"Content-Length: 100\r\n\r\n{", (401, "missing_api_key")),
    ],
)
def test_a_request_that_does_not_arrive_is_given_up(
    running: Endpoint, sent: bytes, expected: tuple[int, str] | None
) -> None:
    with closing(connected(running)) as one:
        one.sendall(sent)
        said, took = rest(one)
    assert took < 2
    assert (refused(said) if said else None) == expected


def test_a_body_that_does_not_arrive_is_given_up(running: Endpoint) -> None:
    with closing(connected(running)) as one:
        one.sendall(HEAD + f"Authorization: Bearer {running.key}\r\nContent-Length: 100\r\n\r\n{{".encode())
        said, took = rest(one)
    assert refused(said) == (408, "request_timeout")
    assert took < 2


def test_thirty_half_open_sockets_stop_nobody(running: Endpoint) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(connected(running))) for _ in range(30)]
        for one in slow:
            one.sendall(b"POST /v1/chat")
        assert httpx.get(running.url.removesuffix("/v1") + "/healthz").status_code == 200
        assert running.ask("Hello").status_code == 200
        for one in slow:
            assert refused(rest(one)[0]) == (408, "request_timeout")


def test_a_quiet_connection_is_closed(running: Endpoint) -> None:
    with closing(connected(running)) as one:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        said, took = rest(one)
    assert b" 200 " in said and 0.4 < took < 2


def test_one_address_has_so_many_connections(running: Endpoint) -> None:
    with ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(closing(connected(running))).sendall(b"GET /healthz")
        with closing(connected(running)) as one:
            said, _ = rest(one)
    assert refused(said) == (429, "concurrency_limit")
    assert b"retry-after" in said


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", (431, "headers_too_large")),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (431, "headers_too_large")),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", (431, "headers_too_large")),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 40_000, (431, "headers_too_large")),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", (400, "bad_request")),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", (400, "bad_request")),
        (b"POST /v1/models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", (400, "bad_request")),
    ],
)
def test_what_is_not_a_request_is_said_so(running: Endpoint, sent: bytes, expected: tuple[int, str]) -> None:
    with closing(connected(running)) as one:
        one.sendall(sent)
        said, took = rest(one)
    last = said[said.rindex(b"HTTP/1.1") :]
    assert refused(last) == expected
    assert took < 2


def test_a_websocket_finds_nothing(running: Endpoint) -> None:
    upgrade = b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with closing(connected(running)) as one:
        one.sendall(upgrade)
        said, _ = rest(one)
    assert int(said.split()[1]) in (400, 401)


def test_a_client_that_reads_nothing_ends(running: Endpoint) -> None:
    """The answer is larger than what the kernel keeps for the connection; its writing stalls, and ends."""
    body = json.dumps(chat("SAY:x")).encode()
    running.script.instead = {"x": "y" * 8_000_000}
    with closing(connected(running)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        head = HEAD + f"Authorization: Bearer {running.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        one.sendall(head + body)
        while not running.script.asked:
            time.sleep(0.01)
        deadline = time.monotonic() + 10
        while (running.served.busy or _open(running) > 1) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running.served.busy == 0
        assert running.ask("Hello").status_code == 200


@pytest.mark.parametrize(("stream", "head"), [(True, b""), (False, b"Connection: close\r\n")])
def test_the_connection_of_a_client_that_reads_nothing_is_closed(running: Endpoint, stream: bool, head: bytes) -> None:
    """Its end waits until all that was written is sent, which is never: it is cut."""
    body = json.dumps(chat("SAY:x", stream=stream)).encode()
    running.script.instead = {"x": "y " * 2_000_000}
    asked = len(running.script.asked)
    assert _connections(running, 0) == 0  # those before
    with closing(connected(running)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        key = f"Authorization: Bearer {running.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        one.sendall(HEAD + head + key + body)
        while len(running.script.asked) == asked:
            time.sleep(0.01)
        assert _connections(running, 1) == 1
        assert _connections(running, 0) == 0


def test_a_client_that_reads_slowly_gets_all_of_it(running: Endpoint) -> None:
    """Each pause is shorter than what one may read nothing for; together they are longer."""
    body = json.dumps(chat("SAY:x")).encode()
    running.script.instead = {"x": "y " * 2_000_000}
    key = f"Authorization: Bearer {running.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    said, pauses = b"", 0.0
    with closing(connected(running)) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        one.sendall(HEAD + b"Connection: close\r\n" + key + body)
        while piece := one.recv(400_000, socket.MSG_WAITALL):
            said += piece
            pauses += 0.2
            time.sleep(0.2)
    assert pauses > 2 * QUICK["write_s"]
    assert json.loads(said.partition(b"\r\n\r\n")[2])["choices"][0]["finish_reason"] == "stop"


def _connections(running: Endpoint, wanted: int) -> int:
    """How many are open, once it is so many, or they had their time."""
    deadline = time.monotonic() + 8
    while (found := sum(running.guard.open.values())) != wanted and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _open(running: Endpoint) -> int:
    return int(running.front.meters.in_flight._value.get())


def test_several_requests_of_one_connection_are_answered_in_their_order(running: Endpoint) -> None:
    with closing(connected(running)) as one:
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        said, _ = rest(one)
    assert re.findall(rb"HTTP/1\.1 (\d+)", said) == [b"200", b"404"]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "gateway.example.org"])
def test_it_does_not_listen_beyond_loopback_in_the_clear(host: str) -> None:
    with pytest.raises(AccessDenied, match="in the clear"):
        allowed(Listen(host=host, tls=None, behind_proxy=[]))
    allowed(Listen(host=host, tls=Tls(certificate="a", key="b"), behind_proxy=[]))
    allowed(Listen(host=host, tls=None, behind_proxy=["10.0.0.1"]))


@pytest.mark.parametrize(
    ("came", "plain", "let_in"),
    [("10.0.0.9", True, True), ("127.0.0.1", True, True), ("192.0.2.7", True, False), ("192.0.2.7", False, True)],
)
def test_where_proxies_end_tls_nobody_else_sends_a_key_in_the_clear(came: str, plain: bool, let_in: bool) -> None:
    made = protocol(params.load(ROOT / params.FILE, Limits), ["10.0.0.0/8"], plain)
    connection = made.__new__(made)
    connection._came = came
    assert (not made.only_proxies or connection._near()) is let_in


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_it_listens_on_loopback(host: str) -> None:
    allowed(Listen(host=host, tls=None, behind_proxy=[]))


def test_at_sigterm_streams_end_whole_and_nobody_else_is_let_in(tmp_path: Path) -> None:
    """In a process of its own: the stream that is under way is read to its end, and the process ends well."""
    script = tmp_path / "run.py"
    script.write_text(DRAINED)
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'include'}{os.pathsep}{ROOT}"}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=env, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout
        url, key = next(line for line in child.stdout if line.startswith("http")).split()
        head = {"Authorization": f"Bearer {key}"}
        text = "SAY:SLOW " + " ".join(str(n) for n in range(30))
        with httpx.stream("POST", f"{url}/chat/completions", json=chat(text, stream=True), headers=head) as said:
            lines = said.iter_lines()
            next(lines)
            child.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(httpx.ConnectError):
                httpx.get(url.removesuffix("/v1") + "/healthz")
            read = [line for line in lines if line]
        assert read[-1] == "data: [DONE]"
        assert json.loads(read[-2][6:])["choices"][0]["finish_reason"] == "stop"
        assert child.wait(20) == 0


DRAINED = """
import asyncio, signal, sys
from pathlib import Path
from typing import Any
from nightshift.serve import server
from tests import models
from tests.conftest import ROOT
from tests.serve import scripted

folder = Path(sys.argv[1])
system = models.system(folder / "plain", ROOT, scripted.ROWS)
with scripted.endpoint(folder / "served", system) as one:
    settings = scripted._changed(server.Settings.read(ROOT), {"abstain_below": None})
    follower = one.follower
    follower.repository = folder
    async def follow():
        await asyncio.sleep(3600)
    follower.follow = follow
    port = scripted.port.unused()
    key = one.keys.create("t", ("infer:chat",), ("public",), 1, __import__("time").time())
    async def run():
        service = server.Service.of(follower, one.home, ROOT, settings, scripted.TRACER)
        task = asyncio.create_task(server.run(service, follower, port, settings))
        await asyncio.sleep(0.5)
        print(f"http://127.0.0.1:{port}/v1", key, flush=True)
        await task
    asyncio.run(run())
"""
