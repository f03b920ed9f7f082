"""Vectors of texts, by the sentence encoder of the release that serves: one request at a time, each in its turn.

The encoder uses all cores for one request, so that two at a time would both take twice as long. Who waits too long, or
finds too many waiting, is told so; what is too long for the encoder, or personal where none is taken, before it waits.
A request's texts are counted and encoded some at a time: a client that leaves is not gone on for, while what a thread
has begun ends before the next request's turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from nightshift.encode import BUCKETS, Vectors
from nightshift.retrieve import Encodes
from nightshift.serve.call import Call
from nightshift.serve.fitting import LONGEST_TOKEN
from nightshift.serve.incoming import cleaned
from nightshift.serve.refused import Refused
from nightshift.serve.request import Embeddings
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns
from nightshift.serving import Rails

AT_ONCE = 32  # texts between two looks at whether the client left
LONGEST = BUCKETS[-1]  # tokens that the encoder reads
T = TypeVar("T")


@dataclass
class Embedding:
    """Encodes for whose turn it is, by the policy on personal data."""

    turns: Turns
    rails: Rails
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def vectors(self, call: Call[Embeddings], served: Served) -> Vectors:
        """(texts, width) float16; `call` is told what it used. Raises Refused."""
        self.turns.room(call.key.id)
        async with self._opening:  # loaded once, by the first
            encoder = await _whole(lambda: served.system.index.encoder)
        if call.asked.dimensions not in (None, encoder.width):
            raise Refused("unsupported_parameter", f"'dimensions' can only be {encoder.width}.", "dimensions")
        counts = await _counted(encoder, call.asked.texts)
        call.reserve(sum(counts))
        texts, found = await cleaned(call.asked.texts, self.rails)
        call.masked_in.update(found)
        made = []
        async with self.turns.turn(call.key.id, sum(counts), call.left_s):
            for start in range(0, len(texts), AT_ONCE):
                if call.left_s <= 0:
                    raise Refused("engine_timeout", "The vectors took too long; ask for fewer.")
                made.append(await _whole(partial(encoder.encode, texts[start : start + AT_ONCE], LONGEST)))
                call.used += sum(counts[start : start + AT_ONCE])
        return np.concatenate(made)


async def _counted(encoder: Encodes, texts: Sequence[str]) -> list[int]:
    """Tokens of each text. Raises Refused where the encoder could not read one whole."""
    counts = [LONGEST + 1 if len(text) > LONGEST_TOKEN * LONGEST else 0 for text in texts]
    for start in range(0, len(texts), AT_ONCE):
        if max(counts) <= LONGEST:
            some = slice(start, start + AT_ONCE)
            counts[some] = await _whole(partial(encoder.lengths, texts[some]))
    if max(counts) > LONGEST:
        message = f"The encoder reads {LONGEST} tokens; text {counts.index(max(counts))} has more."
        raise Refused("context_length_exceeded", message, "input")
    return counts


async def _whole(work: Callable[[], T]) -> T:
    """What a thread makes of this; who is cancelled meanwhile waits for it, as a thread cannot be stopped."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
