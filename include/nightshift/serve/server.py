"""Run the gateway: the endpoint on one listener, its admin on another that is on loopback alone, until told to stop.

It does not listen beyond loopback over plain HTTP: there a key would be read by whoever listens in. At SIGTERM it takes
no new requests and lets those under way end, then stops its engine.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import uvicorn

from nightshift import golden, hours, logs, openslo, params, slo
from nightshift import port as ports
from nightshift.counts import Counts
from nightshift.deployment import Deployment, Environments, Traffic
from nightshift.engine import Kind
from nightshift.errors import AccessDenied, PortInUse
from nightshift.registry import Release
from nightshift.scaling import Rules
from nightshift.sections import Compute, Night
from nightshift.serve import exposure
from nightshift.serve.admin import ADMIN, Admin
from nightshift.serve.counting import Counting
from nightshift.serve.follow import Follower, to_log
from nightshift.serve.front import Front
from nightshift.serve.gateway import Gateway
from nightshift.serve.given import Given
from nightshift.serve.keys import Keys
from nightshift.serve.listener import Connection, protocol
from nightshift.serve.outgoing import NO_HARM, Harm
from nightshift.serve.pool import Pool, room
from nightshift.serve.probing import Probing
from nightshift.serve.promises import Promises
from nightshift.serve.routes import PUBLIC
from nightshift.serving import Engines, Limits, Listen, Rails, Rollouts, Warm
from nightshift.spans import FOLDER, Tracer

HOST = "127.0.0.1"
DRAIN_MORE_S = 2  # seconds beyond the longest request, until what is still open at the end is cut
# objects more than went, after which garbage is looked for: at Python's 700 one request in 17 waits 0.5 ms
YOUNG = 10_000
SWITCH_S = 0.0005  # that a thread may hold the interpreter while the event loop waits for it
HARM = Path("include", "policies", "harm.yaml")


@dataclass(frozen=True)
class Settings:
    """What params.yaml says of the endpoint."""

    listen: Listen
    limits: Limits
    rails: Rails
    rollouts: Rollouts
    warm: Warm
    traffic: Traffic
    zone: ZoneInfo
    threads: int
    kind: Kind
    private: bool = True  # what a release is built on

    @classmethod
    def read(cls, root: Path) -> Settings:
        """Read them. Raises ParamsError."""
        read = params.Document(root / params.FILE).load
        asked, zone = read(Deployment), ZoneInfo(read(Night).timezone)
        threads, kind, private = read(Compute).threads, read(Engines).kind, asked.private_architecture
        rules = (read(Listen).within(root), read(Limits), read(Rails), read(Rollouts), read(Warm))
        return cls(*rules, asked.traffic, zone, threads, kind, private)


class _Server(uvicorn.Server):
    """One of two in a process: a signal is for both. A TLS handshake has `handshake_s` seconds, no minute."""

    def __init__(self, config: uvicorn.Config, handshake_s: float) -> None:
        super().__init__(config)
        self.handshake_s = handshake_s

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, as uvicorn does, which has no word for the handshake. Raises AccessDenied where nothing can."""
        config = self.config
        more: dict[str, Any] = {}
        if config.ssl is not None:
            more = {"ssl": config.ssl, "ssl_handshake_timeout": self.handshake_s}
        http: Any = config.http_protocol_class
        made = partial(http, config=config, server_state=self.server_state, app_state=self.lifespan.state)
        listening = asyncio.get_running_loop().create_server
        try:
            self.servers = [await listening(made, config.host, config.port, backlog=config.backlog, **more)]
        except OSError as error:
            what, where = f"nothing can listen there ({error.strerror})", f"{config.host}:{config.port}"
            raise AccessDenied(what, where, "give another serve.listen.host or port") from None
        self.started = True


def serve(repository: Path, home: Path, state: Path, port: int, traced: Callable[[], Tracer]) -> None:
    """Serve what is in production. Raises PortInUse; ends on SIGTERM or SIGINT, with the engine and the tracer.

    Two in one home would both lead the rollout and both count, so that a second is refused.
    """
    logs.set_up("serve")
    settings = Settings.read(repository)
    exposure.check(repository / params.FILE, settings.listen)
    for one in (port, port + 1):
        free(one)
    slo.Policy.read(repository)  # a bad one is said before anything is served
    with _alone(home):
        _serve(repository, home, state, port, traced, settings)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the home's lock until this process ends, however it ends. Raises PortInUse while another one holds it."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serve.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            do = "stop it, or give this one a NIGHTSHIFT_HOME of its own"
            raise PortInUse("another endpoint serves from this home", str(home), do) from None
        yield


def _serve(
    repository: Path, home: Path, state: Path, port: int, traced: Callable[[], Tracer], settings: Settings
) -> None:
    def permits(release: Release) -> slo.Decision:
        return slo.may_release(release.role, home, repository, int(time.time()) // 60)

    follower = Follower(
        repository,
        home,
        state,
        settings.threads,
        to_log,
        rules=settings.rollouts,
        queue=settings.limits.queue,
        wait_s=settings.limits.queue_s,
        permits=permits,
        kind=settings.kind,
    )
    tracer = traced()
    service = Service.of(follower, home, repository, settings, tracer)
    scheme = "https" if settings.listen.tls else "http"
    to_log(f"{scheme}://{settings.listen.host}:{port}/v1, and its admin at http://{HOST}:{port + 1}")
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(run(service, follower, port, settings))
    finally:
        follower.close()
        tracer.close()


def loop() -> asyncio.AbstractEventLoop:
    """uvloop's event loop: a request takes a third less of a core than in asyncio's own."""
    import uvloop

    return uvloop.new_event_loop()


def free(port: int) -> None:
    """Raises PortInUse when something listens there, AccessDenied when one may not."""
    ports.free(port, "stop it, or set NIGHTSHIFT_PORT (`serve` takes --port too)")


@dataclass
class Service:
    """The parts of a running endpoint."""

    gateway: Gateway
    public: Any
    admin: Any
    counting: Counting
    probing: Probing
    pool: Pool

    @classmethod
    def of(cls, follower: Follower, home: Path, root: Path, settings: Settings, tracer: Tracer) -> Service:
        """Made of what params.yaml and include/policies say. Raises ParamsError."""
        promised = openslo.promised(root)
        bounds = {name: one.threshold for name, one in promised.items() if one.threshold is not None}
        word = params.load(root / params.FILE, Environments).prod.keys
        keys = Keys(home, word)
        given = Given(home / FOLDER)
        front = Front(keys, settings.limits, tracer, bounds=bounds, given=given)
        front.promises = Promises(home, front.meters, front.wall, settings.rails.personal_out == "mask")
        front.counting = Counting(Counts(home), front.meters, front.wall, bounds.get("grounded"), front.promises)
        front.serves = lambda: follower.served.release.digest if follower.served else ""
        follower.unverified = front.promises.release
        follower.loaded.drain_s = drain_s(settings.limits)
        follower.loaded.restarted = front.meters.restarts.inc
        harm = Harm.read(root / HARM) if settings.rails.harm == "block" else NO_HARM
        gateway = Gateway(front, follower, home, settings.rails, harm, settings.private)
        probing = Probing(follower, front.meters, gateway.inside, golden.read, golden.grade, front.clock)
        pool = Pool(
            follower,
            Rules.of(settings.warm, promised),
            Counts(home),
            hours.week(settings.traffic),
            settings.zone,
            settings.traffic.seconds_an_answer,
            lambda served: room(served, settings.kind),
            front.meters.restarts.inc,
        )
        public, admin = front.application(PUBLIC, gateway), Admin(follower, keys, front.meters)
        return cls(gateway, public, front.application(ADMIN, admin), front.counting, probing, pool)


def hasten() -> None:
    """Put requests first in this process: its threads give way sooner (Python lets each compute for 5 ms), and what was
    loaded before the first request is never again gone through for garbage, which stops everything for a while."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)


def drain_s(limits: Limits) -> int:
    """Seconds that an endpoint which is stopped waits for its answers, of which none takes longer."""
    return math.ceil(limits.request_s) + DRAIN_MORE_S


async def run(service: Service, follower: Follower, port: int, settings: Settings) -> None:
    """Serve until a signal."""
    hasten()
    listen = settings.listen
    tls = {"ssl_certfile": listen.tls.certificate, "ssl_keyfile": listen.tls.key} if listen.tls else {}
    guarded = protocol(settings.limits, listen.behind_proxy, plain=listen.tls is None)
    servers = [
        _server(service.public, listen.host, port, guarded, tls),
        _server(service.admin, HOST, port + 1, protocol(settings.limits)),
    ]

    def end() -> None:
        service.gateway.draining = True
        follower.end()
        for server in servers:
            server.should_exit = True

    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, end)
    forever = (follower.follow(), service.counting.count(), service.probing.probe(), service.pool.scale())
    beside = [asyncio.create_task(one) for one in forever]
    serving = [asyncio.create_task(server.serve()) for server in servers]
    await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
    end()
    await asyncio.gather(*serving)
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    service.counting.stop()
    await service.gateway.close()


def _server(
    app: Any, host: str, port: int, http: type[Connection], tls: dict[str, Any] | None = None
) -> uvicorn.Server:
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=http,
        ws="none",
        lifespan="off",
        log_level="warning",
        log_config=None,  # its lines go where ours do: logs.py
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=bool(http.trusted),  # then a client's address is the last of X-Forwarded-For that is no proxy's
        forwarded_allow_ips=[str(one) for one in http.trusted],
        timeout_graceful_shutdown=drain_s(http.bounds),
        **(tls or {}),
    )
    return _Server(config, http.bounds.header_s)
