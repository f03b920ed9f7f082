"""Vectors of texts, by the sentence encoder of the release that serves: one request at a time, each in its turn.

The encoder uses all cores for one request, so that two at a time would both take twice as long. Who waits too long, or
finds too many waiting, is told so. A request's texts are encoded some at a time: a client that leaves is not gone on
for, while what a thread has begun ends before the next request's turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from nightshift.encode import BUCKETS, Vectors
from nightshift.serve.call import Call
from nightshift.serve.refused import Refused
from nightshift.serve.request import Embeddings
from nightshift.serve.served import Served
from nightshift.serve.turns import Turns

AT_ONCE = 32  # texts between two looks at whether the client left
LONGEST = BUCKETS[-1]  # tokens that the encoder reads
T = TypeVar("T")


@dataclass
class Embedding:
    """Encodes for whose turn it is."""

    turns: Turns

    async def vectors(self, call: Call[Embeddings], served: Served) -> Vectors:
        """(texts, width) float16; `call` is told what it used. Raises Refused."""
        texts = call.asked.texts
        async with self.turns.turn(call.key.id, sum(map(len, texts))):
            encoder = await _whole(lambda: served.system.index.encoder)
            if call.asked.dimensions not in (None, encoder.width):
                message = f"'dimensions' can only be {encoder.width}."
                raise Refused("unsupported_parameter", message, "dimensions")
            counts = await _whole(lambda: encoder.lengths(texts))
            if max(counts) > LONGEST:
                message = f"The encoder reads {LONGEST} tokens; text {counts.index(max(counts))} has more."
                raise Refused("context_length_exceeded", message, "input")
            call.reserve(sum(counts))
            found = []
            for start in range(0, len(texts), AT_ONCE):
                if call.left_s <= 0:
                    raise Refused("engine_timeout", "The vectors took too long; ask for fewer.")
                some = texts[start : start + AT_ONCE]
                found.append(await _whole(partial(encoder.encode, some, LONGEST)))
                call.used += sum(counts[start : start + AT_ONCE])
        return np.concatenate(found)


async def _whole(work: Callable[[], T]) -> T:
    """What a thread makes of this; who is cancelled meanwhile waits for it, as a thread cannot be stopped."""
    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
