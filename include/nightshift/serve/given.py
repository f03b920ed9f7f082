"""Which key was given which answer, and by which release: what a rating is of.

A trace's id is the client's to choose, so that several keys may have answers under one: each has its own. The last
answers are in memory. An older one, or one from before a restart, is looked up in the local traces, one at a time and
in a thread: they are up to `traces.total_bytes`, gone through piece by piece so that no request waits for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from nightshift import otlp, segments
from nightshift.attributes import ATTRIBUTES

SERVICE = "gateway"  # whose traces answers are in
ANSWERS = ("chat", "completions")  # routes whose answers are rated
REMEMBERED = 10_000
PIECE = 262_144  # bytes that are searched at once, while no other thread runs: 0.1 ms
_KEY, _RELEASE, _STATUS, _ERROR = (ATTRIBUTES[word].name for word in ("key", "release", "status", "error"))


@dataclass
class Given:
    """The answers that can be rated.

    Args:
        folder: of the local traces; None where there are none.
    """

    folder: Path | None = None
    _lately: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def note(self, trace: str, key: str, release: str) -> None:
        """An answer was given; the release's digest is what its rating counts for."""
        self._lately[trace, key] = release
        while len(self._lately) > REMEMBERED:
            self._lately.popitem(last=False)

    async def release(self, trace: str, key: str) -> str | None:
        """The digest of the release whose answer this key was given; None where it was given none. Raises OSError."""
        known = self._lately.get((trace, key))
        if known is None and self.folder is not None:
            async with self._looking:
                known = await asyncio.to_thread(_kept, self.folder, trace, key)
            if known is not None:
                self.note(trace, key, known)
        return known


def _kept(folder: Path, trace: str, key: str) -> str | None:
    """The release of the newest whole answer of a trace that this key was given, by the local traces."""
    for path in reversed(segments.files(folder, SERVICE)):
        if not _holds(path, trace.encode()):
            continue
        for line in segments.lines(path, trace.encode()):
            spans = otlp.read(line) if key.encode() in line else []
            if not spans or spans[0]["trace"] != trace or spans[0]["name"] not in ANSWERS:
                continue
            said = spans[0]["attributes"]
            if said.get(_KEY) == key and said.get(_STATUS) == 200 and _ERROR not in said and _RELEASE in said:
                return str(said[_RELEASE])
    return None


def _holds(path: Path, word: bytes) -> bool:
    """Whether a file holds these bytes; not where it has gone meanwhile."""
    try:
        with path.open("rb") as file:
            last = b""
            while piece := file.read(PIECE):
                if word in last + piece:
                    return True
                last = piece[1 - len(word) :]
    except FileNotFoundError:
        pass
    return False
