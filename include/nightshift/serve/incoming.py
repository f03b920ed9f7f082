"""Clean what a caller sends, before anything is made of it: personal data and secrets, by the policy on them.

A text of nothing but telephone numbers takes 7 µs a character, ordinary prose 0.2 (two busy cores). So what is long is
looked at in a thread, while the event loop goes on answering others; a short one is not worth the way to a thread and
back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from nightshift import mask
from nightshift.serve.refused import Refused
from nightshift.serving import Rails

LONG = 2_000  # characters from which on a thread looks
T = TypeVar("T")


async def cleaned(texts: Sequence[str], rails: Rails) -> tuple[list[str], Counter[str]]:
    """The texts by the policy on personal data, and how often each kind was replaced.

    Raises Refused where the policy takes none; never says what was found.
    """
    if rails.personal_in == "keep":
        return list(texts), Counter()
    masked, found = await masking(texts)
    if found and rails.personal_in == "refuse":
        message = "The request holds personal data or a secret, which this endpoint does not take."
        raise Refused("content_policy_violation", message)
    return masked, found


async def masking(texts: Sequence[str]) -> tuple[list[str], Counter[str]]:
    """The texts with the kind in the place of what was found, and how often each kind was."""
    return await beside(texts, lambda: _masked(texts))


async def beside(texts: Sequence[str], work: Callable[[], T]) -> T:
    """What this gives, of texts of this size: from a thread where they are long."""
    return work() if sum(map(len, texts)) < LONG else await asyncio.to_thread(work)


def _masked(texts: Sequence[str]) -> tuple[list[str], Counter[str]]:
    pairs = [mask.replace(one) for one in texts]
    return [text for text, _ in pairs], sum((found for _, found in pairs), Counter[str]())
