"""Hold tables against suites of Great Expectations, and fail closed.

A suite is a YAML file: for each table its expectations by their names in Great Expectations. The library passes on an
empty frame, an empty suite and an all-null column; here each of these is a refusal, as are an expectation that was not
evaluated, an exception inside it, and one that it does not know. Only counts are kept: no value of a document gets into
a sentence, a metric or a page.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nightshift import commit
from nightshift.errors import DataRefused, ParamsError
from nightshift.stage import Work


class Expectation(BaseModel):
    """One expectation: its snake-case name in Great Expectations and its arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = Field(pattern=r"^expect_[a-z_]+$")
    kwargs: dict[str, Any]


class Table(BaseModel):
    """The expectations of one table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    may_be_empty: bool = False
    expectations: list[Expectation]


@dataclass(frozen=True)
class Outcome:
    """One expectation as it came out; `unexpected` rows of `rows`."""

    table: str
    expectation: str
    column: str
    success: bool
    rows: int
    unexpected: int


def suite(path: Path) -> dict[str, Table]:
    """Read a suite. Raises ParamsError, and DataRefused for one that expects nothing."""
    try:
        found = YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}
        tables = {name: Table.model_validate(said) for name, said in found.items()}
    except (ValidationError, YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise ParamsError(f"it is not a suite ({str(error).splitlines()[0]})", str(path), "mend it there") from None
    bare = [name for name, table in tables.items() if not table.expectations]
    if bare or not tables:
        what = f"the suite of {bare[0]!r} expects nothing" if bare else "the suite expects nothing"
        raise DataRefused(what, str(path), "write expectations, or take the table out")
    return tables


def hold(name: str, table: pl.DataFrame, wanted: Table, where: str) -> list[Outcome]:
    """How one table meets its expectations. Raises DataRefused for a table that tells nothing."""
    if table.is_empty():
        if wanted.may_be_empty:
            return []
        raise DataRefused(f"{name} is empty", where, "look at the stage that makes it")
    columns = sorted({one.kwargs["column"] for one in wanted.expectations if "column" in one.kwargs})
    for column in columns:
        if column not in table.columns:
            raise DataRefused(f"{name} has no column {column!r}", where, f"it has {', '.join(table.columns)}")
        if table[column].null_count() == len(table):
            raise DataRefused(f"{name}.{column} is null in every row", where, "look at the stage that makes it")
    return _evaluated(name, table, wanted, where)


def judge(tables: Mapping[str, pl.DataFrame], suites: list[Path], out: Path, work: Work) -> dict[str, Any]:
    """Hold every table against the suites and write the verdict; returns metrics. Raises DataRefused."""
    outcomes: list[Outcome] = []
    held: dict[str, str] = {}
    for path in suites:
        for name, wanted in suite(path).items():
            if name not in tables:
                raise DataRefused(f"there is no table {name!r}", str(path), f"there are {', '.join(tables)}")
            outcomes += hold(name, tables[name], wanted, str(path))
            held[name] = str(path)
    if work.state:
        commit.file(work.state / "pages" / f"{work.stage}.html", page(work.stage, outcomes))
    for one in outcomes:
        if not one.success:
            what = f"{one.table}.{one.column} fails {one.expectation} in {one.unexpected} of {one.rows} rows"
            raise DataRefused(what, held[one.table], "mend the data, or the suite if the data is right")
    if missing := sorted(set(tables) - set(held)):
        raise DataRefused(f"no suite speaks of {missing[0]}", str(suites[0]), "add expectations for it")
    verdict = {"suites": {path.name: commit.sha256(path) for path in suites}, "accepted": True}
    commit.file(out, commit.dumps(verdict))
    return {"expectations": len(outcomes), "rows": {name: len(table) for name, table in sorted(tables.items())}}


def page(title: str, outcomes: list[Outcome]) -> str:
    """What was expected of which table, for a person to look at; counts alone."""
    rows = "\n".join(
        f"<tr><td>{html.escape(one.table)}</td><td>{html.escape(one.column)}</td><td>{html.escape(one.expectation)}</td>"
        f"<td>{one.rows:,}</td><td>{one.unexpected:,}</td><td>{'met' if one.success else 'not met'}</td></tr>"
        for one in outcomes
    )
    style = (
        "body{font:15px system-ui;margin:2rem}td,th{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #ddd}"
    )
    head = "<tr><th>table<th>column<th>expectation<th>rows<th>unexpected<th></tr>"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{style}</style><h1>{html.escape(title)}: {len(outcomes)} expectations</h1>"
        f"<table>{head}\n{rows}</table></html>\n"
    )


def _evaluated(name: str, table: pl.DataFrame, wanted: Table, where: str) -> list[Outcome]:
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    frame = table.to_pandas()
    source = context.data_sources.add_pandas(name)
    batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe(name).get_batch({"dataframe": frame})
    asked = [_expectation(gx, one, where) for one in wanted.expectations]
    result = batch.validate(gx.ExpectationSuite(name=name, expectations=asked), result_format="SUMMARY")
    if len(result.results) != len(wanted.expectations):
        what = f"{len(result.results)} of {len(wanted.expectations)} expectations of {name} were evaluated"
        raise DataRefused(what, where, "look for two that are equal")
    return [_outcome(name, len(table), one, where) for one in result.results]


def _expectation(gx: Any, one: Expectation, where: str) -> Any:
    kind = "".join(word.capitalize() for word in one.type.split("_"))
    try:
        return getattr(gx.expectations, kind)(**one.kwargs)
    except AttributeError:
        raise DataRefused(f"Great Expectations has no {one.type}", where, "mend its name") from None
    except (TypeError, ValueError) as error:
        raise DataRefused(f"{one.type}: {str(error).splitlines()[0]}", where, "mend its arguments") from None


def _outcome(name: str, rows: int, one: Any, where: str) -> Outcome:
    raised = [said["exception_message"] for said in _exceptions(one.exception_info) if said.get("raised_exception")]
    kind, column = one.expectation_config.type, str(one.expectation_config.kwargs.get("column", "table"))
    if raised:
        what = f"{kind} of {name}.{column} could not be evaluated"
        raise DataRefused(what, where, "it does not fit this column: mend the suite")
    return Outcome(name, kind, column, bool(one.success), rows, int((one.result or {}).get("unexpected_count") or 0))


def _exceptions(info: Any) -> list[Mapping[str, Any]]:
    """One record, or one for each metric that was computed."""
    found = dict(info or {})
    return [found] if "raised_exception" in found else [one for one in found.values() if isinstance(one, Mapping)]
