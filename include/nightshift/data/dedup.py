"""Drop sections that repeat another, exactly or nearly.

Reads the cleaned table; writes the kept rows, and a ledger row for each that went. Exact repeats are found on
lower-case words; near repeats by MinHash over word shingles (rensa: 26 times datasketch at nearly the same kept set),
candidates by bands and then checked on the whole signature. Of a group the section with the smallest (source rank,
id) stays, so that neither order nor earlier nights matter. Signatures are kept by content between nights.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from nightshift import documents, stage
from nightshift.errors import DataRefused
from nightshift.sections import Dedup
from nightshift.stage import Metrics, Work

SEED = 1
ROWS_A_BAND = 4  # at Jaccard 0.8 a pair of 112-permutation signatures shares one of 28 bands all but surely
WIDEST = 64  # members of one band that are compared with each other; the rest with the first of them
Signatures = npt.NDArray[np.uint32]  # (sections, permutations)


def words(text: str) -> list[str]:
    """Lower-case words: what counts when texts are compared."""
    return re.findall(r"\w+", text.lower())


def shingles(text: str, size: int) -> list[str]:
    """Runs of `size` words; of a shorter text the whole."""
    found = words(text)
    return [" ".join(found[place : place + size]) for place in range(max(1, len(found) - size + 1))]


def signatures(texts: list[str], params: Dedup) -> Signatures:
    """MinHash signatures, (texts, permutations)."""
    from rensa import RMinHash

    sets = [shingles(text, params.shingle_words) for text in texts]
    rows = RMinHash.digest_matrix_from_token_sets(sets, params.permutations, SEED).to_rows()
    return np.asarray(rows, dtype=np.uint32)


def pairs(signature: Signatures, threshold: float) -> list[tuple[int, int]]:
    """Pairs of rows whose estimated Jaccard similarity is at least the threshold."""
    candidates: set[tuple[int, int]] = set()
    for start in range(0, signature.shape[1], ROWS_A_BAND):
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for row, band in enumerate(np.ascontiguousarray(signature[:, start : start + ROWS_A_BAND])):
            buckets[band.tobytes()].append(row)
        for members in buckets.values():
            for place, one in enumerate(members[:WIDEST]):
                candidates.update((one, other) for other in members[place + 1 :])
    if not candidates:
        return []
    found = np.array(sorted(candidates))
    equal = np.concatenate(
        [(signature[part[:, 0]] == signature[part[:, 1]]).mean(axis=1) for part in _chunks(found, 50_000)]
    )
    return [(int(a), int(b)) for a, b in found[equal >= threshold]]


def groups(size: int, linked: list[tuple[int, int]]) -> list[int]:
    """Group number of every row: rows that a chain of pairs links have the same."""
    root = list(range(size))

    def top(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for one, other in linked:
        a, b = sorted((top(one), top(other)))
        root[b] = a
    return [top(row) for row in range(size)]


def keepers(table: pl.DataFrame, group: list[int]) -> list[int]:
    """For every row, the row of its group that stays."""
    order = list(zip(table["rank"], table["id"], strict=True))
    best: dict[int, int] = {}
    for row, number in enumerate(group):
        if number not in best or order[row] < order[best[number]]:
            best[number] = row
    return [best[number] for number in group]


def run(clean: Path, out: Path, params: Dedup, work: Work) -> Metrics:
    """Deduplicate one corpus. Raises DataRefused when more than params.max_dropped of the sections would go."""
    table = documents.read(clean)
    known = work.memo("dedup.signature", [params.permutations, params.shingle_words, stage.libraries("data")], __file__)
    bodies = table["body"].to_list()
    rows = known.map_bytes(
        table["content"].to_list(),
        lambda todo: [row.tobytes() for row in signatures([bodies[place] for place in todo], params)],
    )
    signature = np.frombuffer(b"".join(rows), dtype=np.uint32).reshape(len(table), params.permutations)
    same = _exact(bodies)
    near = pairs(signature, params.threshold)
    keeper = keepers(table, groups(len(table), same + near))
    identifiers = table["id"].to_list()
    exact = {row: first for first, row in same}
    ledger = [
        {
            "id": identifiers[row],
            "stage": "dedup",
            "reason": "exact-repeat" if _alike(row, kept, exact) else "near-repeat",
            "detail": identifiers[kept],
        }
        for row, kept in enumerate(keeper)
        if row != kept
    ]
    if len(ledger) > params.max_dropped * len(table):
        raise DataRefused(
            f"{len(ledger)} of {len(table)} sections repeat another",
            "dedup.max_dropped",
            "take repeated documents out of the sources, or raise dedup.max_dropped",
        )
    kept = table.filter(pl.Series([row == one for row, one in enumerate(keeper)]))
    documents.write(out, kept.with_columns(parent=pl.col("id")), pl.DataFrame(ledger, schema=documents.LEDGER))
    reasons = Counter(entry["reason"] for entry in ledger)
    return {"sections_in": len(table), "sections": len(kept), "dropped": dict(sorted(reasons.items()))}


def _exact(bodies: list[str]) -> list[tuple[int, int]]:
    """Pairs (first, later) of rows with the same words."""
    first: dict[str, int] = {}
    found = []
    for row, body in enumerate(bodies):
        key = documents.key(*words(body))
        if key in first:
            found.append((first[key], row))
        else:
            first[key] = row
    return found


def _alike(row: int, kept: int, first: dict[int, int]) -> bool:
    return first.get(row, row) == first.get(kept, kept)


def _chunks(rows: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


if __name__ == "__main__":
    stage.main(run)
