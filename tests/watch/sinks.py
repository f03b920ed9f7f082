"""A mail server and a webhook on loopback that keep what they are sent, and fail as they are told to."""

from __future__ import annotations

import json
import socketserver
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_string
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.served import serving


@dataclass
class Sink:
    """What arrived; `answers` are the next answers instead of a good one, each used once."""

    port: int = 0
    answers: list[int] = field(default_factory=list)
    mails: list[Message] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    calls: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    tries: int = 0
    encrypted: bool = False


@contextmanager
def mail(tls: ssl.SSLContext | None = None, at_once: bool = False) -> Iterator[Sink]:
    """An SMTP server (RFC 5321, as far as a client that sends goes); with TLS by STARTTLS, or at once."""
    sink = Sink()

    class Session(socketserver.BaseRequestHandler):
        def say(self, text: str) -> None:
            self.request.sendall(f"{text}\r\n".encode())

        def encrypt(self, context: ssl.SSLContext) -> bool:
            with suppress(ssl.SSLError):  # who does not know this certificate hangs up
                self.request = context.wrap_socket(self.request, server_side=True)
                return True
            return False

        def handle(self) -> None:
            if tls and at_once and not self.encrypt(tls):
                return
            lines = self.request.makefile("r", encoding="utf-8", newline="")
            self.say("220 sink")
            to: list[str] = []
            sink.tries += 1
            while line := lines.readline():
                word = line[:4].upper().strip()
                if word == "EHLO":
                    more = "250-STARTTLS\r\n" if tls and not sink.encrypted else ""
                    self.say(f"250-sink\r\n{more}250 AUTH PLAIN")
                elif line.upper().startswith("STARTTLS") and tls:
                    self.say("220 go on")
                    if not self.encrypt(tls):
                        return
                    lines, sink.encrypted = self.request.makefile("r", encoding="utf-8", newline=""), True
                elif word == "AUTH":
                    sink.logins.append(line.split()[-1])
                    self.say("235 come in")
                elif word == "RCPT":
                    if sink.answers:
                        self.say(f"{sink.answers.pop(0)} no")
                        continue
                    to.append(line.split("<")[1].split(">")[0])
                    self.say("250 known")
                elif word == "DATA":
                    self.say("354 tell")
                    text = "".join(iter(lines.readline, ".\r\n"))
                    sink.mails.append(message_from_string(text.replace("\r\n", "\n")))
                    sink.recipients.append(to)
                    self.say("250 taken")
                elif word == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 well")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session)
    sink.port = server.server_address[1]
    with serving(server):
        yield sink


@contextmanager
def webhook() -> Iterator[Sink]:
    """An HTTP server that takes any POST."""
    sink = Sink()

    class Request(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sink.tries += 1
            status = sink.answers.pop(0) if sink.answers else 200
            if status < 300:
                sink.calls.append((dict(self.headers), json.loads(body)))
            self.send_response(status)
            self.send_header("location", "http://127.0.0.1:1/")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    sink.port = server.server_port
    with serving(server):
        yield sink
