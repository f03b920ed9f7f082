"""Answer what is asked of the endpoint: the handlers behind the public routes.

A chat's last turn is answered from the sections that the key's groups may see. On its way in, personal data is masked
or refused; where the sections do not bear on the question it is not answered; a question that does not fit is refused
before it waits. Then it waits for its turn, fairly between keys, and what the engine says is cleaned as it is written.
A stream and a whole answer are made by the same code. Every answer names its release, its sections and its trace.
"""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from starlette.responses import JSONResponse, Response

from nightshift import feedback, window
from nightshift.retrieve import Hit
from nightshift.serve import request as asking
from nightshift.serve.answering import Answer
from nightshift.serve.call import Call, until_gone
from nightshift.serve.embedding import LONGEST, Embedding
from nightshift.serve.fitting import fits, length, may_fit
from nightshift.serve.follow import Follower
from nightshift.serve.front import Front
from nightshift.serve.incoming import beside, cleaned, masking
from nightshift.serve.inside import Inside
from nightshift.serve.links import urls
from nightshift.serve.mirroring import Mirror
from nightshift.serve.outgoing import Harm, Outgoing
from nightshift.serve.pieces import Patience, Piece, pieces
from nightshift.serve.refused import Refused
from nightshift.serve.request import BARE, EMBEDDINGS, MODEL, Chat, Completion, Embeddings, Feedback, Sampled
from nightshift.serve.routes import PUBLIC, document
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serve.wire import Wires
from nightshift.serve.writing import Writing
from nightshift.serving import Rails
from nightshift.spans import Rating

API_VERSION = "1"
# words of a question that the bound of abstention is for, which was measured on single questions: a longer text brings
# matter of its own, which no section need hold
LONGEST_QUESTION = 40
# fields whose answers hold text in places that are not cleaned
UNCLEAN = frozenset({"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"})
EARLY_S = 0.05  # that a deadline of the event loop may come before its time
UNSAID = frozenset({"logprobs", "top_logprobs"})  # likelihoods give weights away (Carlini et al. 2024): none are said
# what is said while nothing answers
NOT_READY = {
    "none": "No release is in production yet; try again after a night has released one.",
    "loading": "The release in production is being loaded; try again in a few seconds.",
    "refused": "The release in production did not pass its check; its operator has to look into it.",
}


@dataclass
class Gateway:
    """The handlers, with what they answer by.

    Args:
        front: what all routes share.
        follower: knows what is served.
        home: NIGHTSHIFT_HOME, for feedback.
        private: whether what a release is built on is nobody's business (`deployment.private_architecture`).
    """

    front: Front
    follower: Follower
    home: Path
    rails: Rails
    harm: Harm
    private: bool = True
    draining: bool = False

    def __post_init__(self) -> None:
        self.limits, self.clock = self.front.limits, self.front.clock
        self.patience = Patience(self.limits.first_token_s, self.limits.total_s)
        self.wires = Wires()
        self.inside = Inside(self.wires, self.patience, self.clock)
        self.mirror = Mirror(self.follower, self.inside)
        self.ratings = feedback.kept(self.home)
        self.embedding = Embedding(Turns(1, self.limits.queue, self.limits.queue_s), self.rails)

    async def close(self) -> None:
        """Let go of what is open."""
        self.wires.close()

    async def chat(self, call: Call[Chat]) -> Response:
        """POST /v1/chat/completions."""
        asked = call.asked
        asking.named(asked.model, MODEL, BARE)
        asking.bounded(asked.messages, self.limits.messages, self.limits.part_bytes)
        served = self.serving(call)
        passed = asked.passed(self._accepted(served))
        said, limit = asked.turns(), length(asked, served)
        contents = await self._incoming([turn["content"] for turn in said], call, served, limit, "messages")
        turns = [turn | {"content": content} for turn, content in zip(said, contents, strict=True)]
        question = turns[-1]["content"]
        with call.trace.step("retrieve") as step:
            hits = await self._sections(served, question, call) if asked.looks_up else []
            step.set(sections=[hit.id for hit in hits], scores=[hit.score for hit in hits])
        call.trace.content(question=question)
        call.questions, call.sections = (question,), [hit.body for hit in hits]
        call.about(asked.user, (asked.metadata or {}).get("session_id"))
        if asked.looks_up and self._abstains(served, question, hits):
            return await self._abstention(call, served)
        with call.trace.step("prompt") as step:
            messages, read = await beside(contents, lambda: _prompt(served, turns, hits, limit))
            step.set(prompt=served.prompt, prompt_name=served.system.settings.get("name"))
        links = urls([*(hit.body for hit in hits), question]) if self.rails.links == "sources" else None
        body = {"messages": messages, "max_tokens": limit, "temperature": 0} | passed
        call.reserve(read + limit * (asked.n or 1))
        self.mirror.copy(question, turns[:-1], call.key.groups)
        return await self._answer(call, served, "/v1/chat/completions", [body], hits, links, read)

    async def completions(self, call: Call[Completion]) -> Response:
        """POST /v1/completions."""
        asked = call.asked
        asking.named(asked.model, MODEL)
        served = self.serving(call)
        passed = asked.passed(self._accepted(served))
        limit = length(asked, served)
        prompts = await self._incoming(asked.texts, call, served, limit, "prompt")
        call.questions = prompts
        call.trace.content(question="\n".join(prompts))
        read = await beside(prompts, lambda: sum(fits(served, [one], limit, "prompt") for one in prompts))
        links = urls(prompts) if self.rails.links == "sources" else None
        bodies = [{"prompt": one, "max_tokens": limit, "temperature": 0} | passed for one in prompts]
        call.reserve(read + limit * (asked.n or 1) * len(prompts))
        return await self._answer(call, served, "/v1/completions", bodies, [], links, read)

    async def embeddings(self, call: Call[Embeddings]) -> Response:
        """POST /v1/embeddings."""
        asked = call.asked
        asking.named(asked.model, EMBEDDINGS, MODEL)
        served = self.serving(call)
        vectors = await until_gone(call.request.receive, self.embedding.vectors(call, served))
        call.trace.set(input_tokens=call.used)
        wanted = vectors.astype("<f4")
        data = [
            {"object": "embedding", "index": place, "embedding": _vector(one, asked.encoding_format)}
            for place, one in enumerate(wanted)
        ]
        usage = {"prompt_tokens": call.used, "total_tokens": call.used}
        body = {"object": "list", "data": data, "model": asked.model, "usage": usage}
        return JSONResponse(body, headers=call.headers())

    async def feedback(self, call: Call[Feedback]) -> Response:
        """POST /v1/feedback."""
        asked = call.asked
        try:
            release = await self.front.given.release(asked.trace, call.key.id)
        except OSError:
            raise Refused("dependency_unavailable", "The answer cannot be looked up now; try again.") from None
        if release is None:
            raise Refused("not_found", "This key was not given that answer.", "trace")
        row: dict[str, Any] = {"time": round(call.wall, 3), "key": call.key.id, "trace": asked.trace}
        row["rating"], row["release"] = asked.rating, release
        if asked.correction is not None:
            [row["correction"]], _ = await masking([asked.correction])
        rating = Rating(
            asked.trace, "rating", asked.rating, call.key.id, int(call.wall * 1e9), row.get("correction", "")
        )
        try:
            await asyncio.to_thread(self.ratings.append, feedback.line(row), call.wall)
        except OSError:
            raise Refused("dependency_unavailable", "The rating could not be kept; try again.") from None
        self.front.tracer.rate(rating)
        return JSONResponse({"object": "feedback", "trace": asked.trace}, headers=call.headers())

    async def models(self, call: Call[Any]) -> Response:
        """GET /v1/models."""
        listed = [self._model(name) for name in (MODEL, BARE, EMBEDDINGS)]
        return JSONResponse({"object": "list", "data": listed}, headers=call.headers())

    async def model(self, call: Call[Any]) -> Response:
        """GET /v1/models/{model}."""
        name = call.request.path_params["model"]
        if name not in (MODEL, BARE, EMBEDDINGS):
            raise Refused("model_not_found", f"There is no such model here; there is '{MODEL}'.", "model")
        return JSONResponse(self._model(name), headers=call.headers())

    async def openapi(self, call: Call[Any]) -> Response:
        """GET /openapi.json."""
        return JSONResponse(document(PUBLIC, API_VERSION), headers=call.headers())

    async def healthy(self, call: Call[Any]) -> Response:
        """GET /healthz."""
        return JSONResponse({"ok": True})

    async def ready(self, call: Call[Any]) -> Response:
        """GET /readyz."""
        up = self.follower.phase == "serving" and not self.draining and await asyncio.to_thread(self.front.admits)
        return JSONResponse({"ready": up}, status_code=200 if up else 503)

    def serving(self, call: Call[Any]) -> Served:
        """The release that answers this call. Raises Refused while none does."""
        if self.draining:
            raise Refused("draining", "The endpoint is being stopped; ask again in a few seconds.")
        served = self.follower.serving(call.key.id)
        if served is None:
            raise Refused("not_ready", NOT_READY.get(self.follower.phase, NOT_READY["loading"]))
        call.by(served)
        served.turns.room(call.key.id)
        return served

    def _model(self, name: str) -> dict[str, Any]:
        """What may be known of a model: its name, how much it reads, and unless it is private on what it is built."""
        said = {"id": name, "object": "model", "created": 0, "owned_by": MODEL}
        served = self.follower.served
        if served is not None and name in (MODEL, BARE):
            context = served.system.settings["context"]
            said["context_window"] = window.effective(self.home, served.release.digest, context)
            if not self.private:
                facts = served.system.facts
                said |= {"digest": served.release.digest, "base": facts.get("name"), "licence": facts.get("licence")}
        elif name == EMBEDDINGS:
            said["context_window"] = LONGEST
        return said

    def _accepted(self, served: Served) -> frozenset[str]:
        """The fields that are handed on; those whose answers could not be cleaned, or are not said, are not."""
        return served.accepts - UNSAID - (UNCLEAN if self.rails.personal_out == "mask" else frozenset())

    async def _incoming(self, texts: list[str], call: Call[Any], served: Served, limit: int, field: str) -> list[str]:
        """A field's texts, by the policy on personal data. Raises Refused; what cannot fit is not even looked at."""
        may_fit(served, texts, limit, field)
        masked, found = await cleaned(texts, self.rails)
        call.masked_in.update(found)
        return masked

    async def _sections(self, served: Served, question: str, call: Call[Any]) -> list[Hit]:
        """What the question is answered from; nothing that the key's groups may not see."""
        if not served.system.settings["sections"]:
            return []
        return await asyncio.to_thread(served.system.sections, question, call.key.groups)

    def _abstains(self, served: Served, question: str, hits: list[Hit]) -> bool:
        """Whether the sections bear too little on the question."""
        if self.rails.abstain_below is None or not served.system.settings["sections"]:
            return False
        if len(question.split()) > LONGEST_QUESTION:
            return False
        return not hits or served.system.index.coverage(question, hits) < self.rails.abstain_below

    async def _abstention(self, call: Call[Chat], served: Served) -> Response:
        """Say that there is no answer, as an answer."""
        call.abstained = True

        async def said() -> AsyncGenerator[Piece]:
            yield Piece(0, self.rails.abstention, "stop", {"prompt_tokens": 0, "completion_tokens": 0})

        writing = Writing(said(), [], lambda: Outgoing(False, None), self.clock)
        answer = Answer(call, served, writing, [], 0)
        return answer.stream() if call.asked.stream else await answer.whole()

    async def _answer(
        self,
        call: Call[Any],
        served: Served,
        path: str,
        bodies: list[dict[str, Any]],
        hits: list[Hit],
        links: frozenset[str] | None,
        read: int,
    ) -> Response:
        asked: Sampled = call.asked
        limit, count = bodies[0]["max_tokens"], asked.n or 1
        begun, step = self.clock(), call.trace.step("engine")
        operation = "chat" if isinstance(asked, Chat) else "text_completion"
        step.set(operation=operation, provider=MODEL, model=MODEL, max_tokens=limit)
        step.set(temperature=bodies[0]["temperature"], top_p=bodies[0].get("top_p"))
        head = {"traceparent": call.trace.traceparent(step)}
        images = urls(call.questions) if hits and links else links or ()  # those that the asker brought
        stops = {"stop": asked.stops} if "stop" in served.accepts and asked.stops else {}
        chosen = asked.chosen(bodies[0])
        gathered = not asked.stream and not asked.stops  # else it may end early, and then its engine has to know

        async def answered() -> AsyncGenerator[Piece]:
            used: Counter[str] = Counter()
            for place, body in enumerate(bodies):
                came_at = self.clock()
                async with served.turn(call.key.id, read / len(bodies) + limit, call.left_s) as engine:
                    if call.asked_at is None:
                        call.asked_at = self.clock()
                        call.waited_s = call.asked_at - came_at
                        step.set(queue_s=call.waited_s)
                    patience = self.patience.within(call.left_s)
                    said = pieces(self.wires, engine, path, body | stops, patience, head, gathered, chosen)
                    async with aclosing(said) as came:
                        async for piece in came:
                            if call.scrub is None:
                                step.set(first_token_s=self.clock() - begun)
                                call.scrub = call.trace.step("scrub")
                            yield piece if len(bodies) == 1 else _of(piece, place * count, used)

        def outgoing() -> Outgoing:
            personal = self.rails.personal_out == "mask"
            return Outgoing(personal, links, self.harm, at_once=not asked.stream, images=images)

        told = answered() if len(bodies) == 1 else _together(answered(), call)
        writing = Writing(told, asked.stops, outgoing, self.clock, count * len(bodies))
        answer = Answer(call, served, writing, hits, read, step)
        if asked.stream:
            await answer.begin()
            return answer.stream()
        return await until_gone(call.request.receive, answer.whole())


def _prompt(
    served: Served, turns: list[dict[str, str]], hits: list[Hit], limit: int
) -> tuple[list[dict[str, str]], int]:
    """The turns that the model reads, and their tokens. Raises Refused for what it could not read whole."""
    messages = served.system.messages(turns[-1]["content"], hits, turns[:-1])
    return messages, fits(served, [turn["content"] for turn in messages], limit, "messages")


async def _together(said: AsyncGenerator[Piece], call: Call[Any]) -> AsyncGenerator[Piece]:
    """The pieces of several answers, which have one deadline: texts that are too many for it are the caller's fault."""
    try:
        async with aclosing(said):
            async for piece in said:
                yield piece
    except Refused:
        if call.left_s > EARLY_S:
            raise
        raise Refused("invalid_value", "These texts take too long together; ask for fewer.", "prompt") from None


def _of(piece: Piece, first: int, used: Counter[str]) -> Piece:
    """A piece as one of several answers': its choices are counted from `first` on, its tokens with those before."""
    used.update(piece.usage or {})
    return replace(piece, index=first + piece.index, usage=dict(used) if piece.usage else None)


def _vector(one: Any, form: str) -> str | list[float]:
    """A vector as little-endian float32 in base64, or as numbers."""
    single = np.asarray(one, dtype="<f4")
    return base64.b64encode(single.tobytes()).decode() if form == "base64" else [float(value) for value in single]
