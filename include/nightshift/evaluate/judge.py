"""Ask the test items of what could be released, and of what it has to beat.

Reads the winner, the refresh, plain and the incumbent; writes a table of rows for each system that was asked and
`judged.json`, which says which system plays which role, by digest. No system is asked twice: roles with equal digests
share their rows. With something in production plain is not asked. What could be released is also answered by the engine
that would serve it, as far as evaluate.engine_items goes, and the share of equal answers is a metric of the gate. Both
then compute in the engine's dtype: of greedy answers in bfloat16 every fifth parts from the same in float32, though
nothing is wrong. What it said to questions that everyone may ask is kept as `<digest>.golden.json`: a release is asked
them again by day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nightshift import commit, documents, engine, golden, stage
from nightshift.answer import System
from nightshift.evaluate.ask import ROW, Request, answers, ask, generated, load_probes, within, written
from nightshift.evaluate.evaluate import means
from nightshift.evaluate.metrics import loaded
from nightshift.golden import Golden
from nightshift.sections import Compute, Evaluate
from nightshift.serving import Engines
from nightshift.stage import Metrics, Work, libraries

ENGINE_TOKENS = 16  # of each answer that are compared: greedy answers that part do so early


def roles(winner: Path, refresh: Path, plain: Path, incumbent: Path) -> dict[str, str | None]:
    """Role → digest of the system that plays it; None where there is none, or it is not asked."""
    found = {"winner": winner, "refresh": refresh, "plain": plain, "incumbent": incumbent}
    digests = {role: None if commit.why_absent(path) else commit.digest(path) for role, path in found.items()}
    if digests["incumbent"]:
        digests["plain"] = None
    return digests


@dataclass(frozen=True)
class Spoken:
    """An item that was answered in words, by the judged model and, for the first of them, by the serving engine."""

    item: Mapping[str, Any]
    shown: frozenset[str]  # ids of the sections that it was answered from
    ours: str
    theirs: str | None


def spoken(
    folder: Path, items: pl.DataFrame, params: Evaluate, compute: Compute, engines: Engines, work: Work
) -> list[Spoken]:
    """What one system says in words to the items of the budget that are generated."""
    system = System.open(folder)
    asked = generated(within(items, params)[0], params)
    found = [system.sections(row["question"], row["groups"]) for row in asked]
    requests = [written(system, row["question"], hits) for row, hits in zip(asked, found, strict=True)]
    as_engine = compute.model_copy(update={"dtype": engine.TRAITS[engines.kind].dtype or compute.dtype})
    ours = [one["text"] for one in answers(system, requests, as_engine, work)[0]]
    read = [place for place, text in enumerate(ours[: params.engine_items]) if text]
    said = dict(zip(read, _engine(folder, [requests[place] for place in read], compute, engines, work), strict=True))
    return [
        Spoken(row, frozenset(hit.id for hit in hits), text, said.get(place))
        for place, (row, hits, text) in enumerate(zip(asked, found, ours, strict=True))
    ]


def _engine(folder: Path, requests: list[Request], compute: Compute, engines: Engines, work: Work) -> list[str]:
    """What the serving engine says to these requests, remembered by system and request."""
    asked = [commit.digest(folder), compute.model_dump(), engines.model_dump(), libraries("evaluate")]
    known = work.memo("judge.agreement", asked, engine.__file__)

    def ask_engine(todo: list[int]) -> list[str]:
        cache = work.state / "graphs" if work.state else None
        with engine.start(folder, compute.threads, compute.device, engines.kind, cache) as served:
            return [
                served.chat([dict(zip(("role", "content"), turn, strict=True)) for turn in one.messages], one.limit)
                for one in work.progress([requests[place] for place in todo], "answers of the engine")
            ]

    return known.map([one.key("") for one in requests], ask_engine)


def agreement(folder: Path, said: Sequence[Spoken]) -> pl.DataFrame:
    """Rows of `engine_agreement`: 1 where the serving engine says what the judged model said."""
    system = System.open(folder)
    rows = [
        (
            one.item["id"],
            "answer",
            "open",
            "engine_agreement",
            float(_begin(system, one.ours) == _begin(system, one.theirs)),
        )
        for one in said
        if one.theirs is not None
    ]
    return pl.DataFrame(rows, schema=ROW, orient="row")


def kept(said: Sequence[Spoken]) -> list[Golden]:
    """What a release is asked again by day: questions that everyone may ask, and that it answered."""
    return [
        Golden(
            id=one.item["id"],
            question=one.item["question"],
            section=one.item["section"],
            wanted=one.item["answer"],
            said=text,
            shown=one.item["section"] in one.shown,
        )
        for one in said
        if (text := one.theirs if one.theirs is not None else one.ours) and "public" in one.item["groups"]
    ]


def _begin(system: System, text: str) -> list[int]:
    """The first tokens of an answer."""
    ids: list[int] = system.tokens.encode(text.strip(), add_special_tokens=False).ids[:ENGINE_TOKENS]
    return ids


def run(
    winner: Path, refresh: Path, plain: Path, incumbent: Path, items: Path, probes: Path, out: Path,
    metrics: list[Path], params: Evaluate, compute: Compute, engines: Engines, work: Work,
) -> Metrics:  # fmt: skip
    """Judge tonight's candidates."""
    folders = {"winner": winner, "refresh": refresh, "plain": plain, "incumbent": incumbent}
    played = roles(*(commit.check(path) for path in folders.values()))
    table = pl.read_parquet(commit.check(items) / "items.parquet")
    params = params.model_copy(update={"tokens": params.judge_tokens, "generated": params.judge_generated})
    measured: dict[str, Any] = {}
    tables: dict[str, pl.DataFrame] = {}
    again: dict[str, list[Golden]] = {}
    left_out = 0
    with loaded(metrics) as known:
        for role, digest in played.items():
            if digest is None or digest in tables:
                continue
            rows, counted = ask(folders[role], table, load_probes(probes), known, params, compute, work)
            if role != "incumbent":
                said = spoken(folders[role], table, params, compute, engines, work)
                rows, again[digest] = pl.concat([rows, agreement(folders[role], said)]), kept(said)
            tables[digest] = rows.sort("item", "book", "metric")
            left_out = max(left_out, counted["left_out"])
            measured[role] = {name: one["mean"] for name, one in means(rows).items()}
    judged = {"roles": played, "items": commit.digest(items), "left_out": left_out}
    with commit.folder(out) as draft:
        for digest, rows in tables.items():
            documents.store(draft / f"{digest}.parquet", rows)
        for digest, questions in again.items():
            listed = commit.dumps([one.as_json() for one in questions])
            (draft / f"{digest}.{golden.FILE}").write_text(listed, encoding="utf-8")
        (draft / "judged.json").write_text(commit.dumps(judged), encoding="utf-8")
    return {"items": len(table), "left_out": left_out, **measured}


if __name__ == "__main__":
    stage.main(run)
