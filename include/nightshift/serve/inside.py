"""Ask a release from inside, on nobody's behalf: a question with a known answer, or a copy of what a client asked.

It goes the way of a client's, through retrieval, prompt, queue and engine, and nobody reads what comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from nightshift.answer import Message
from nightshift.retrieve import PUBLIC
from nightshift.serve.pieces import Patience, gap, pieces
from nightshift.serve.served import Served
from nightshift.serve.wire import Wires


@dataclass(frozen=True)
class Said:
    """What a release answered: its text, and the ids of its sections.

    Args:
        first_s: seconds to the first token, the wait for its turn aside.
        token_s: seconds between two tokens, their mean; None for an answer of fewer.
        took_s: seconds of its engine.
    """

    text: str
    sections: list[str]
    first_s: float
    token_s: float | None
    took_s: float


@dataclass(frozen=True)
class Inside:
    """How it asks: by which connections, how long, and by what clock."""

    wires: Wires
    patience: Patience
    clock: Callable[[], float]

    async def ask(
        self,
        served: Served,
        key: str,
        question: str,
        earlier: Sequence[Message] = (),
        groups: Sequence[str] = PUBLIC,
    ) -> Said:
        """The greedy answer; `key` is whose turn it takes. Raises Refused."""
        with served.held():
            return await self._asked(served, key, question, earlier, groups)

    async def _asked(
        self, served: Served, key: str, question: str, earlier: Sequence[Message], groups: Sequence[str]
    ) -> Said:
        system, begun = served.system, self.clock()
        hits = await asyncio.to_thread(system.sections, question, groups) if system.settings["sections"] else []
        limit = system.settings["max_new_tokens"]
        body = {"messages": system.messages(question, hits, earlier), "max_tokens": limit, "temperature": 0}
        chosen = ["messages"] if earlier else []
        text, first, last, tokens, came = "", None, 0.0, 0, self.clock()
        async with served.turn(key, limit) as engine:
            asked = self.clock()
            said = pieces(self.wires, engine, "/v1/chat/completions", body, self.patience, chosen=chosen)
            async with aclosing(said):
                async for piece in said:
                    last = self.clock()
                    first = last if first is None else first
                    text += piece.text
                    tokens += piece.tokens
        ended = self.clock()
        first_s = (first or ended) - begun - (asked - came)
        return Said(text, [hit.id for hit in hits], first_s, gap(first, last, tokens), ended - asked)
