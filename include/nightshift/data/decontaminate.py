"""Take from the training side what the items ask about.

Reads the deduplicated table, the sides and both items; writes the training rows, with a ledger row for each that
leaked. A row leaks when it shares a run of 13 words with an item (its question and answer together), or is nearly
equal to one (Jaccard of word shingles). Runs of 13 words as in the GPT-3 paper (Brown et al. 2020, appendix C); one
that more than a few documents hold is common speech and counts for nothing. Refuses when too much would go: then
the split itself leaks, and dropping rows would hide it. Sections that not everyone may see go too: what weights and
prompts hold, everyone who asks can be told.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import polars as pl

from nightshift import commit, documents, stage
from nightshift.data.dedup import shingles, words
from nightshift.errors import DataRefused
from nightshift.sections import Decontaminate, Dedup
from nightshift.stage import Metrics, Work

PUBLIC = "public"  # the group of what everyone may see


def runs(text: str, size: int) -> set[str]:
    """Every run of `size` words."""
    found = words(text)
    return {" ".join(found[place : place + size]) for place in range(len(found) - size + 1)}


def held(table: pl.DataFrame, wanted: set[str], size: int) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Of the wanted runs: section id → those in it, and run → documents that hold it."""
    starts = {run.partition(" ")[0] for run in wanted}
    sections: dict[str, set[str]] = {}
    holders: dict[str, set[str]] = defaultdict(set)
    for identifier, document, title, body in table.select("id", "document", "title", "body").iter_rows():
        text = f"{title}\n{body}"
        found = words(text)
        here = {
            run
            for place in range(len(found) - size + 1)
            if found[place] in starts and (run := " ".join(found[place : place + size])) in wanted
        }
        if here:
            sections[identifier] = here
            for run in here:
                holders[run].add(document)
    return sections, holders


def near(table: pl.DataFrame, texts: list[str], size: int, threshold: float) -> set[str]:
    """Ids of sections whose shingles have at least this Jaccard similarity with one of the texts."""
    asked = [set(shingles(text, size)) for text in texts]
    where: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(asked):
        for shingle in one:
            where[shingle].append(number)
    found = set()
    for identifier, body in table.select("id", "body").iter_rows():
        own = set(shingles(body, size))
        shared = Counter(number for shingle in own for number in where.get(shingle, ()))
        if any(count >= threshold * len(own | asked[number]) for number, count in shared.items()):
            found.add(identifier)
    return found


def run(
    unique: Path,
    sides: Path,
    validation: Path,
    test: Path,
    out: Path,
    params: Decontaminate,
    equal: Dedup,
    work: Work,
) -> Metrics:
    """Keep what may be trained on. Raises DataRefused when more than params.max_dropped of the rows leak."""
    table = documents.read(unique)
    placed = table.join(pl.read_parquet(commit.check(sides) / "sides.parquet"), on="document")
    side = placed.filter(pl.col("side") == "train").select(documents.SECTION.names())
    train = side.filter(pl.col("groups").list.contains(PUBLIC))
    items = pl.concat([pl.read_parquet(commit.check(one) / "items.parquet") for one in (validation, test)])
    texts = [f"{question} {answer}" for question, answer in items.select("question", "answer").iter_rows()]
    wanted = {one for text in texts for one in runs(text, params.ngram_words)}
    sections, holders = held(table, wanted, params.ngram_words)
    rare = {one for one, documents_ in holders.items() if len(documents_) <= params.max_holders}
    shared = {identifier for identifier, found in sections.items() if found & rare}
    alike = near(train, texts, equal.shingle_words, equal.threshold)
    ledger = [
        {"id": one, "stage": "decontaminate", "reason": reason, "detail": ""}
        for one in train["id"]
        if (reason := "near-an-item" if one in alike else "shares-a-run" if one in shared else "")
    ]
    if len(ledger) > params.max_dropped * max(1, len(train)):
        raise DataRefused(
            f"{len(ledger)} of {len(train)} training sections hold what the items ask",
            "decontaminate.max_dropped",
            "the sources repeat themselves across documents: remove repeats, or change split.salt",
        )
    kept = train.filter(~pl.col("id").is_in([entry["id"] for entry in ledger]))
    hidden = side.filter(~pl.col("groups").list.contains(PUBLIC))["id"]
    ledger += [{"id": one, "stage": "decontaminate", "reason": "not-public", "detail": ""} for one in hidden]
    documents.write(out, kept.with_columns(parent=pl.col("id")), pl.DataFrame(ledger, schema=documents.LEDGER))
    reasons = Counter(entry["reason"] for entry in ledger)
    return {"sections_in": len(side), "sections": len(kept), "dropped": dict(sorted(reasons.items()))}


if __name__ == "__main__":
    stage.main(run)
