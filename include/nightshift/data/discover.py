"""List every item of every source: its path, size and sha256.

Reads the sources of params.yaml; writes one JSON file. It runs every night (a source may have changed) and makes
the same bytes when nothing did: modification times are never looked at. Refuses what `source.py` refuses.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from nightshift import commit, documents, stage
from nightshift.data import source
from nightshift.sections import Sources
from nightshift.stage import Metrics, Work

SALT = "files-1"  # of the order in which a limit on files takes them


def found(params: Sources, root: Path, lock: str) -> tuple[list[source.Item], Counter[str]]:
    """The items of all sources, sorted by rank and path, and how many files of which ending no reader is there for."""
    unread: Counter[str] = Counter()
    items = [item for rank, one in enumerate(params.items) for item in source.items(one, rank, root, lock, unread)]
    return sorted(items, key=lambda item: (item.rank, item.path)), unread


def limited(items: list[source.Item], most: int | None) -> list[source.Item]:
    """At most so many of the items: sources take turns, so that a large one leaves the others theirs.

    Of each source they are taken in order of hash, so that another item changes no choice but its own.
    """
    if most is None or len(items) <= most:
        return items
    turns: Counter[str] = Counter()
    order: list[tuple[int, int, source.Item]] = []
    for item in sorted(items, key=lambda one: documents.fraction(f"{one.source}/{one.path}", SALT)):
        order.append((turns[item.source], item.rank, item))
        turns[item.source] += 1
    taken = [item for *_, item in sorted(order, key=lambda one: one[:2])[:most]]
    return sorted(taken, key=lambda item: (item.rank, item.path))


def run(lock: Path, out: Path, params: Sources, work: Work) -> Metrics:
    """List the items. Raises SourceError for a source that is missing, empty, inside Git or of another version."""
    listed, unread = found(params, work.sources, lock.read_text(encoding="utf-8"))
    items = limited(listed, params.max_files)
    commit.file(out, commit.dumps({"items": [item.as_json() for item in items]}))
    counted = Counter(item.source for item in items)
    return {
        "items": len(items),
        "left_out": len(listed) - len(items),
        "bytes": sum(item.bytes for item in items),
        "by_source": dict(sorted(counted.items())),
        "not_read": dict(sorted(unread.items())),
    }


if __name__ == "__main__":
    stage.main(run)
