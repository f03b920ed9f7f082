"""What readers think of answers: written by the endpoint, read by who reports on releases.

A rating is a line of NIGHTSHIFT_HOME/feedback, whose files are bounded by bytes and by age as those of traces are: what
anybody with a key may write must not fill a disk. Of the ratings that one key gives one answer the last counts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from nightshift import segments
from nightshift.segments import Segments

FOLDER = SERVICE = "feedback"
DAYS = 30.0  # the report looks back 28


def kept(home: Path) -> Segments:
    """Where the ratings of one home lie."""
    return Segments(home / FOLDER, SERVICE, days=DAYS)


def line(row: dict[str, Any]) -> bytes:
    """A rating as it is kept: time, key, trace, rating, release or None, and a correction where one was given."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def counted(home: Path, first: float) -> dict[str, tuple[int, int]]:
    """Release → (good, all) ratings since `first`, seconds since 1970; a rating of 0 takes an earlier one back."""
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _rows(home):
        last.setdefault((row["key"], row["trace"]), row)
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in last.values():
        if row["time"] >= first and row["rating"]:
            found[row.get("release") or ""][0] += row["rating"] > 0
            found[row.get("release") or ""][1] += 1
    return {release: (good, whole) for release, (good, whole) in found.items()}


def _rows(home: Path) -> Iterator[dict[str, Any]]:
    """Every rating, newest first; a line that is none is passed over."""
    for path in reversed(segments.files(home / FOLDER, SERVICE)):
        for one in segments.lines(path):
            with suppress(ValueError, TypeError, KeyError):
                row = json.loads(one)
                numbers = {name: float(row[name]) for name in ("time", "rating")}
                yield row | numbers | {name: str(row[name]) for name in ("key", "trace")}
