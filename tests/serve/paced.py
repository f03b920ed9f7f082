"""An engine of fixed speed, in a process of its own: for load, drills and benchmarks.

    python -m tests.serve.paced PORT SLOTS TOKENS TOKEN_S [good | errors | garbage | dies]

It says TOKENS words, one every TOKEN_S seconds, to SLOTS at a time; that is all that it computes. Word k is due at
start + k × TOKEN_S, however late the one before was, so that a stream ends when a whole answer would. It speaks HTTP by
itself, because a framework's time a chunk would be measured as the gateway's. A bad one answers 500, says other words,
or dies in its tenth answer.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
import uvloop

# no digits: those a gateway may hold back
WORDS = ("the", "pump", "is", "oiled", "every", "Monday", "by", "the", "old", "miller")
ABOUT: dict[str, Any] = {"id": "x", "created": 0, "model": "m"}
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def said(tokens: int) -> str:
    """What a good engine answers."""
    return "".join(_word(number) for number in range(tokens))


@dataclass
class Engine:
    """What its connections share."""

    slots: int
    tokens: int
    token_s: float
    kind: str = "good"
    answers: int = 0
    waiting: deque[Callable[[], None]] = field(default_factory=deque)

    def take(self, begin: Callable[[], None]) -> None:
        """Begin an answer now, or when one before has ended."""
        if self.slots:
            self.slots -= 1
            begin()
        else:
            self.waiting.append(begin)

    def give_back(self) -> None:
        """An answer has ended."""
        self.slots += 1
        if self.waiting:
            self.take(self.waiting.popleft())

    def word(self, number: int) -> str:
        """The word at this place."""
        return "lorem " if self.kind == "garbage" else _word(number)

    def usage(self) -> dict[str, int]:
        """Tokens read and written."""
        return {"prompt_tokens": 7, "completion_tokens": self.tokens, "total_tokens": 7 + self.tokens}


class Connection(asyncio.Protocol):
    """One asker's connection."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.begun = False  # whether it holds a slot
        self.due: list[asyncio.TimerHandle] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody came."""
        self.transport: Any = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Somebody left: what was under way stops."""
        if self._begin in self.engine.waiting:
            self.engine.waiting.remove(self._begin)
        self._end()

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """The parser's: a request begins."""
        self.body = b""

    def on_body(self, body: bytes) -> None:
        """The parser's: a part of its body."""
        self.body += body

    def on_message_complete(self) -> None:
        """The parser's: it is whole."""
        if self.parser.get_method() == b"GET":
            self._respond("200 OK", {})
        elif self.engine.kind == "errors":
            self._respond("500 Broken", {"error": "broken"})
        else:
            self.streamed = bool(json.loads(self.body).get("stream"))
            if self.streamed:
                self.transport.write(STREAM)
            self.engine.take(self._begin)

    def _begin(self) -> None:
        loop, engine, self.begun = asyncio.get_running_loop(), self.engine, True
        engine.answers += 1
        start = loop.time()
        if engine.kind == "dies" and engine.answers >= 10:
            loop.call_at(start + engine.tokens // 2 * engine.token_s, os._exit, 1)
        if not self.streamed:
            self.due = [loop.call_at(start + engine.tokens * engine.token_s, self._whole)]
            return
        self.due = [
            loop.call_at(start + (number + 1) * engine.token_s, self._say, number) for number in range(engine.tokens)
        ]

    def _say(self, number: int) -> None:
        """The word at this place; what is due with the last comes with it."""
        if self.transport.is_closing():
            return
        last = number == self.engine.tokens - 1
        events = [_chunk({"content": self.engine.word(number)}, None)]
        if last:
            counted = json.dumps(ABOUT | {"choices": [], "usage": self.engine.usage()})
            events += [_chunk({}, "stop"), f"data: {counted}\n\n".encode(), b"data: [DONE]\n\n"]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in events)
        self.transport.write(framed + (b"0\r\n\r\n" if last else b""))
        if last:
            self._end()

    def _whole(self) -> None:
        text = "".join(self.engine.word(number) for number in range(self.engine.tokens))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        about = ABOUT | {"object": "chat.completion", "choices": [choice], "usage": self.engine.usage()}
        self._respond("200 OK", about)
        self._end()

    def _end(self) -> None:
        for one in self.due:
            one.cancel()
        if self.begun:
            self.begun = False
            self.engine.give_back()

    def _respond(self, status: str, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        if not self.transport.is_closing():
            self.transport.write(head.encode() + content)


def _word(number: int) -> str:
    return f"{WORDS[number % len(WORDS)]} "


def _chunk(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps(ABOUT | {'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n".encode()


async def run(at: int, engine: Engine) -> None:
    """Answer, until the process ends."""
    served = await asyncio.get_running_loop().create_server(lambda: Connection(engine), "127.0.0.1", at)
    await served.serve_forever()


if __name__ == "__main__":
    at, slots, tokens, token_s, *kind = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(int(at), Engine(int(slots), int(tokens), float(token_s), *kind)))
