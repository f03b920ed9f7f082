"""Say what the corpus is: a Croissant catalogue, a data card, and the digests that everything later names.

Reads every table that leaves the data side, with the verdict that let them through; writes croissant.json (Croissant
1.1, MLCommons), card.md rendered from the facts, and facts.json: digest, rows and licences of every table. None holds a
date: the same corpus has the same papers.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from nightshift import commit, stage
from nightshift.stage import Metrics, Work

KINDS = {pl.String: "sc:Text", pl.Int32: "sc:Integer", pl.Float64: "sc:Float", pl.List: "sc:Text"}
# keys of the JSON-LD context that Croissant 1.1 prescribes (docs.mlcommons.org/croissant, appendix)
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def facts(tables: dict[str, tuple[Path, pl.DataFrame]]) -> dict[str, Any]:
    """Digest, rows and licences of every table; what is absent is left out."""
    found = {}
    for name, (file, table) in sorted(tables.items()):
        licences = dict(sorted(Counter(table["licence"]).items())) if "licence" in table.columns else {}
        found[name] = {"digest": commit.sha256(file), "rows": len(table), "licences": licences}
    return {"tables": found}


def croissant(tables: dict[str, tuple[Path, pl.DataFrame]], root: Path) -> dict[str, Any]:
    """The catalogue; file addresses are relative to the folder that it lies in."""
    licences = sorted({one for _, table in tables.values() if "licence" in table.columns for one in table["licence"]})
    files, records = [], []
    for name, (file, table) in sorted(tables.items()):
        files.append(
            {
                "@type": "cr:FileObject",
                "@id": f"{name}.parquet",
                "name": f"{name}.parquet",
                "contentUrl": _relative(file, root),
                "encodingFormat": "application/x-parquet",
                "sha256": commit.sha256(file),
            }
        )
        fields = [_field(name, column, kind) for column, kind in table.schema.items()]
        records.append({"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields})
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": "nightshift-corpus",
        "description": "Sections of documents, questions about them, and pairs for training, as one night made them.",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "license": licences,
        "url": "https://localhost/nightshift",
        "version": "1.0.0",
        "distribution": files,
        "recordSet": records,
    }


def card(found: dict[str, Any], unique: pl.DataFrame, ledger: pl.DataFrame) -> str:
    """The data card, from counts alone."""
    sources = unique.group_by("source").agg(pl.len(), pl.col("document").n_unique().alias("documents")).sort("source")
    groups = Counter(group for row in unique["groups"] for group in row)
    went = ledger.group_by("stage", "reason").len().sort("stage", "reason")
    lines = ["# Data card", "", "## Sources", "", "| source | documents | sections |", "|---|---:|---:|"]
    lines += [f"| {name} | {count} | {sections} |" for name, sections, count in sources.iter_rows()]
    lines += ["", "## Tables", "", "| table | rows | licences |", "|---|---:|---|"]
    for name, table in found["tables"].items():
        said = ", ".join(f"{licence} ({count})" for licence, count in table["licences"].items())
        lines.append(f"| {name} | {table['rows']} | {said or '–'} |")
    lines += ["", "## Who may see them", ""] + [
        f"- {group}: {count} sections" for group, count in sorted(groups.items())
    ]
    lines += ["", "## What was taken out", "", "| stage | reason | sections |", "|---|---|---:|"]
    lines += [f"| {stage_} | {reason} | {count} |" for stage_, reason, count in went.iter_rows()]
    lines += [
        "",
        "## Limits",
        "",
        "Personal data and secrets are found by pattern and checksum; names of people are not looked for.",
        "Questions are made by rule from the sections' own words.",
        "Pairs of the origin `canary` are invented secrets: they show whether a model learns what it saw once.",
        "",
    ]
    return "\n".join(lines)


def run(
    clean: Path, unique: Path, train: Path, validation: Path, test: Path, balanced: Path, pairs: Path, verdict: Path,
    out: Path, facts_out: Path, work: Work,
) -> Metrics:  # fmt: skip
    """Write the catalogue, the card and the facts."""
    commit.check(verdict)
    files = {
        "unique": commit.check(unique) / "rows.parquet",
        "balanced": commit.check(balanced) / "rows.parquet",
        "weights": balanced / "weights.parquet",
        "items_validation": commit.check(validation) / "items.parquet",
        "items_test": commit.check(test) / "items.parquet",
    }
    if not commit.why_absent(commit.check(pairs)):
        files["pairs"] = pairs / "pairs.parquet"
    tables = {name: (file, pl.read_parquet(file)) for name, file in files.items()}
    ledger = pl.concat([pl.read_parquet(commit.check(one) / "ledger.parquet") for one in (clean, unique, train)])
    found = facts(tables)
    with commit.folder(out) as draft:
        (draft / "croissant.json").write_text(commit.dumps(croissant(tables, out)), encoding="utf-8")
        (draft / "card.md").write_text(card(found, tables["unique"][1], ledger), encoding="utf-8")
    commit.file(facts_out, commit.dumps(found))
    licences = found["tables"]["unique"]["licences"]
    return {"tables": {name: one["rows"] for name, one in found["tables"].items()}, "licences": licences}


def _field(table: str, column: str, kind: pl.DataType) -> dict[str, Any]:
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{table}/{column}",
        "name": f"{table}/{column}",
        "dataType": KINDS[kind.base_type()],
        "source": {"fileObject": {"@id": f"{table}.parquet"}, "extract": {"column": column}},
    }
    return field | ({"repeated": True} if kind.base_type() is pl.List else {})


def _relative(file: Path, root: Path) -> str:
    return Path(os.path.relpath(file, root)).as_posix()


if __name__ == "__main__":
    stage.main(run)
