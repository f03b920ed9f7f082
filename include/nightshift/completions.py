"""An OpenAI-compatible server around a batch of answers (batching.py): chat and completions, whole and as a stream.

It does what it says and refuses the rest by name: an unknown field is an error. A sequence of `stop` is never in the
text, `finish_reason` is why the answer ended, usage comes with every answer, and an asker who leaves ends the writing,
whichever way the answer was asked for. Prompts are made by the model's own template with transformers' own code, as the
judged ones are; torch is not imported, which leaves a process of 400 MB less.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from nightshift.batching import Asked, Batch, Finish

SEEDS = 1 << 64
LEAST_SHARE = 1e-6  # of top_p: 0 is the likeliest token, which OpenVINO says otherwise


class Body(BaseModel):
    """What both ways of asking share; the defaults are OpenAI's."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    model: str
    max_tokens: int = Field(ge=1)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    temperature: float = Field(default=1.0, ge=0, le=2)
    top_p: float = Field(default=1.0, ge=0, le=1)
    seed: int | None = None
    stop: str | list[str] | None = None
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)

    @property
    def stops(self) -> list[str]:
        """The sequences at which the answer ends."""
        return [one for one in ([self.stop] if isinstance(self.stop, str) else self.stop or []) if one]


class Chat(Body):
    """POST /v1/chat/completions."""

    messages: list[dict[str, str]] = Field(min_length=1)


class Completion(Body):
    """POST /v1/completions."""

    prompt: str


class Text:
    """Tokens as they become text, up to a sequence that ends it.

    What could be the beginning of such a sequence is held back until it is clear.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str]) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer, self._stops = tokenizer, stops
        self._decoder = DecodeStream([], skip_special_tokens=True)
        self._held = ""
        self.stopped = False

    def add(self, ids: Sequence[int], last: bool) -> str:
        """The text that may be said after these tokens; all that is left when they are the last."""
        self._held += "".join(self._decoder.step(self._tokenizer, one) or "" for one in ids)
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        self.stopped = bool(found)
        keep = 0 if last else self._begun()
        end = min(found) if found else len(self._held) - keep
        said, self._held = self._held[:end], self._held[end:]
        return said

    def _begun(self) -> int:
        """Characters at the end that a stop sequence begins with."""
        longest = max(map(len, self._stops), default=1) - 1
        tails = range(min(longest, len(self._held)), 0, -1)
        return next((size for size in tails if any(stop.startswith(self._held[-size:]) for stop in self._stops)), 0)


@dataclass
class Writing:
    """An answer under way: how many tokens it has, and why it ended."""

    prompt: int
    tokens: int = 0
    finish: Finish | None = None

    @property
    def usage(self) -> dict[str, int]:
        """Tokens as OpenAI counts them."""
        counted = {"prompt_tokens": self.prompt, "completion_tokens": self.tokens}
        return counted | {"total_tokens": self.prompt + self.tokens}


class Wrong(Exception):
    """A request that cannot be answered: the sentence that says why."""


class Completions:
    """The server of one model.

    Args:
        batch: what writes.
        base: folder with the model's tokenizer, its template and its generation_config.json.
        model: the name that it is asked for by.
        context: tokens of prompt and answer together, at most.
    """

    def __init__(self, batch: Batch, base: Path, model: str, context: int) -> None:
        from transformers import PreTrainedTokenizerFast

        self.batch, self.model, self.context = batch, model, context
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
        path = base / "generation_config.json"
        own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        ends = own.get("eos_token_id")
        self.ends = frozenset([*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id]) - {None}
        self.repetition_penalty = float(own.get("repetition_penalty") or 1.0)

    def application(self) -> Starlette:
        """The routes."""
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/health", self.healthy),
        ]
        return Starlette(routes=routes, exception_handlers={Wrong: _wrong})

    async def healthy(self, request: Request) -> Response:
        """GET /health."""
        return JSONResponse({"status": "ok"})

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = await _read(request, Chat)
        ids = self.tokenizer.apply_chat_template(body.messages, add_generation_prompt=True, return_dict=False)
        return await self._answer(request, body, list(ids), "chat.completion")

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = await _read(request, Completion)
        return await self._answer(request, body, list(self.tokenizer(body.prompt)["input_ids"]), "text_completion")

    async def _answer(self, request: Request, body: Body, ids: list[int], kind: str) -> Response:
        if body.model != self.model:
            raise Wrong("There is no such model here.")
        if len(ids) + body.max_tokens > self.context:
            raise Wrong(f"The prompt has {len(ids)} tokens, and prompt and answer together {self.context} at most.")
        about = {"id": secrets.token_hex(12), "created": int(time.time()), "model": self.model}
        writing = Writing(len(ids))
        pieces = self._pieces(body, ids, writing)
        if body.stream:
            return StreamingResponse(_events(pieces, writing, about, kind), media_type="text/event-stream")
        text = await _unless_left(request, _joined(pieces))
        if writing.finish == "failed":
            return JSONResponse({"error": {"message": "The answer could not be written."}}, 500)
        said = {"message": {"role": "assistant", "content": text}} if kind == "chat.completion" else {"text": text}
        choice = {"index": 0, **said, "finish_reason": writing.finish}
        return JSONResponse({**about, "object": kind, "choices": [choice], "usage": writing.usage})

    async def _pieces(self, body: Body, ids: list[int], writing: Writing) -> AsyncGenerator[str]:
        """The text as it is written; to stop the writing, close this."""
        loop, said = asyncio.get_running_loop(), asyncio.Queue[tuple[Sequence[int], Finish | None]]()
        text = Text(self.tokenizer.backend_tokenizer, body.stops)
        asked = Asked(
            ids=ids,
            limit=body.max_tokens,
            ends=self.ends,
            temperature=body.temperature,
            top_p=max(body.top_p, LEAST_SHARE),
            seed=secrets.randbelow(SEEDS) if body.seed is None else body.seed % SEEDS,
            frequency_penalty=body.frequency_penalty,
            presence_penalty=body.presence_penalty,
            repetition_penalty=self.repetition_penalty,
        )

        def tell(tokens: Sequence[int], finish: Finish | None) -> None:
            loop.call_soon_threadsafe(said.put_nowait, (tokens, finish))

        number = self.batch.ask(asked, tell)
        try:
            while writing.finish is None:
                tokens, finish = await said.get()
                writing.tokens += len(tokens)
                if piece := text.add(tokens, finish is not None):
                    yield piece
                writing.finish = "stop" if text.stopped else finish
        finally:
            self.batch.cancel(number)


async def _read(request: Request, kind: type[Any]) -> Any:
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise Wrong("; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found)) from None


async def _joined(pieces: AsyncGenerator[str]) -> str:
    async with aclosing(pieces):
        return "".join([piece async for piece in pieces])


async def _events(
    pieces: AsyncGenerator[str], writing: Writing, about: dict[str, Any], kind: str
) -> AsyncGenerator[bytes]:
    """The answer as server-sent events; usage comes last."""
    chat = kind == "chat.completion"
    about = about | {"object": f"{kind}.chunk" if chat else kind}

    def event(text: str, finish: str | None) -> bytes:
        said = {"delta": {"content": text} if text else {}} if chat else {"text": text}
        return _event(about | {"choices": [{"index": 0, **said, "finish_reason": finish}]})

    async with aclosing(pieces):
        async for piece in pieces:
            yield event(piece, None)
    if writing.finish == "failed":
        yield _event({"error": {"message": "The answer could not be written."}})
    else:
        yield event("", writing.finish)
        yield _event(about | {"choices": [], "usage": writing.usage})
    yield b"data: [DONE]\n\n"


def _event(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()


async def _unless_left(request: Request, work: Any) -> Any:
    """What this gives, unless the asker leaves first: then it is cancelled."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    leaving.cancel()
    if not working.done():
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        raise Wrong("The asker left.")
    return working.result()


async def _wrong(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": {"message": str(error), "type": "invalid_request_error"}}, 400)
