"""An answer in the shapes of OpenAI's API: whole, or as a stream of server-sent events.

A stream that breaks off says so in its place, as an error and never as an end: a client that reads only the status
would else take half an answer for a whole one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response

from nightshift.retrieve import Hit
from nightshift.serve.call import Call, Ending, until_gone
from nightshift.serve.pieces import Piece
from nightshift.serve.refused import Refused
from nightshift.serve.request import MODEL, Chat
from nightshift.serve.served import Served
from nightshift.serve.writing import Writing
from nightshift.spans import Step

log = logging.getLogger("nightshift.serve")


@dataclass
class Answer:
    """An answer as OpenAI's API shapes it, whole or as a stream."""

    call: Call[Any]
    served: Served
    writing: Writing
    hits: list[Hit]
    read: int
    step: Step | None = None

    def __post_init__(self) -> None:
        self.chat = isinstance(self.call.asked, Chat)
        self.id = ("chatcmpl-" if self.chat else "cmpl-") + secrets.token_hex(12)
        self.created = int(self.call.wall)
        self.came = self.writing.pieces()
        self._first: Piece | None = None

    async def begin(self) -> None:
        """Wait for the first piece, so that what goes wrong before it has a status of its own."""
        try:
            self._first = await until_gone(self.call.request.receive, anext(self.came, None))
        except BaseException:
            await self.came.aclose()
            raise
        finally:
            self._charge()

    async def whole(self) -> Response:
        """The answer in one piece."""
        try:
            async with aclosing(self.came):
                async for _ in self.came:
                    pass
        except asyncio.CancelledError:  # the client left; an answer that broke off costs nothing, as nobody has it
            self._charge()
            raise
        self._note()
        choices = [self._choice(index, one.text, one.finish) for index, one in sorted(self.writing.choices.items())]
        kind = "chat.completion" if self.chat else "text_completion"
        body = {**self._about(kind), "choices": choices, "usage": self._usage(), "nightshift": self._named()}
        return JSONResponse(body, headers=self.call.headers())

    def stream(self) -> Response:
        """The answer as server-sent events."""
        return Ending(self._events(), self.call, self.call.headers())

    async def _events(self) -> AsyncGenerator[bytes]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        about = self._about(kind)
        begun: set[int] = set()
        try:
            async with aclosing(self._all()) as came:
                async for piece in came:
                    more = {"nightshift": self._named()} if piece.finish and self._last() else {}
                    yield _event(about | {"choices": [self._delta(piece, begun)]} | more)
        except Refused as refused:
            self.call.broke(refused)
            yield _event(refused.body)
        except Exception:  # a bug too ends in this shape: its status was sent, and silence would look like an end
            log.exception("an answer broke off")
            bug = Refused("internal_error", "Something went wrong here.")
            self.call.broke(bug)
            yield _event(bug.body)
        else:
            self._note()
            if self.call.asked.usage:
                yield _event(about | {"choices": [], "usage": self._usage()})
        finally:
            self._charge()
        yield b"data: [DONE]\n\n"

    async def _all(self) -> AsyncGenerator[Piece]:
        async with aclosing(self.came):
            if self._first is not None:
                yield self._first
            async for piece in self.came:
                yield piece

    def _last(self) -> bool:
        finished = [one for one in self.writing.choices.values() if one.finish]
        return len(finished) == self.writing.count

    def _about(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": MODEL}

    def _delta(self, piece: Piece, begun: set[int]) -> dict[str, Any]:
        if not self.chat:
            return {"index": piece.index, "text": piece.text, "finish_reason": piece.finish, "logprobs": None}
        delta: dict[str, Any] = {} if piece.index in begun else {"role": "assistant", "content": ""}
        begun.add(piece.index)
        delta |= {"content": piece.text} if piece.text else {}
        return {
            "index": piece.index,
            "delta": delta | (piece.more or {}),
            "finish_reason": piece.finish,
            "logprobs": None,
        }

    def _choice(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        said = {"index": index, "finish_reason": finish, "logprobs": None}
        return said | (
            {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        )

    def _usage(self) -> dict[str, int]:
        counted = self.writing.usage or {}
        read = counted.get("prompt_tokens", self.read)
        wrote = counted.get("completion_tokens", self.writing.tokens)
        return {"prompt_tokens": read, "completion_tokens": wrote, "total_tokens": read + wrote}

    def _named(self) -> dict[str, Any]:
        """The release that answered, and the sections that it answered from."""
        sections = [
            {"id": one.id, "title": one.title, "source": one.source, "path": one.path, "score": one.score}
            for one in self.hits
        ]
        release = self.served.release
        said = {"release": release.digest, "version": release.version, "trace": self.call.trace.trace_id}
        return said | {"sections": sections, "abstained": self.call.abstained}

    def _charge(self) -> None:
        """What it has cost so far: who leaves before the end, or whose answer breaks off, has used what was written."""
        self.call.used = self._usage()["total_tokens"] if self.writing.first is not None else 0

    def _note(self) -> None:
        """What was used and how long it took, for the account, the counters and the trace."""
        self._charge()
        usage = self._usage()
        self.call.wrote(self.writing, usage)
        if self.step is not None:
            self.step.set(input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"])
            self.step.set(finish=[one.finish for one in self.writing.choices.values() if one.finish])
            self.step.end()


def _event(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()
