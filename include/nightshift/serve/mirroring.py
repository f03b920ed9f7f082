"""Ask a candidate what clients ask the stable release, while its rollout is at a step that mirrors.

Nobody reads the answer and no client waits for it; whether it came, and how fast, is noted as seen of the candidate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from nightshift.answer import Message
from nightshift.serve.call import CALLERS
from nightshift.serve.follow import Follower
from nightshift.serve.inside import Inside
from nightshift.serve.refused import Refused
from nightshift.serve.served import Served

MIRRORS = 4  # requests that a candidate is sent a copy of at a time; the others are not mirrored
log = logging.getLogger("nightshift.serve")


@dataclass
class Mirror:
    """Sends copies to the candidate of one follower."""

    follower: Follower
    inside: Inside
    _asking: set[asyncio.Task[None]] = field(default_factory=set)

    def copy(self, question: str, earlier: Sequence[Message], groups: Sequence[str]) -> None:
        """Ask the candidate too, where there is one that is sent copies."""
        candidate = self.follower.mirror
        if candidate is None or len(self._asking) >= MIRRORS:
            return
        task = asyncio.create_task(self._ask(candidate, question, earlier, groups))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, candidate: Served, question: str, earlier: Sequence[Message], groups: Sequence[str]) -> None:
        seen = candidate.seen
        try:
            said = await self.inside.ask(candidate, "mirror", question, earlier, groups)
        except Refused as refused:
            if refused.status not in CALLERS:  # what a client did wrong, a copy does too
                seen.request(False, None)
        except Exception:  # whatever is wrong with a candidate, it did not answer
            log.exception("%s was sent a copy, and broke", candidate.release.version)
            seen.request(False, None)
        else:
            seen.request(True, said.first_s, said.token_s)
