"""An answer is followed back to its release, its sections, its raw rows and the files that they were read from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightshift import commit, documents, segments
from nightshift.otlp import Background, FileSink
from nightshift.segments import Segments
from nightshift.spans import Trace, Tracer
from nightshift.watch import trace
from tests.watch import released
from tests.watch.released import Released


@pytest.fixture
def tracer(project: Released) -> Iterator[Tracer]:
    made = Tracer("nightshift-gateway", [Background(FileSink(Segments(project.traces, "gateway")), 10, every_s=0.01)])
    yield made
    made.close()
    shutil.rmtree(project.traces, ignore_errors=True)


def asked(project: Released, tracer: Tracer, traceparent: str | None = None) -> Trace:
    with tracer.request("chat", traceparent) as noted:
        released.noted(noted, project, "Who oils the pump?")
    tracer.close()
    assert noted.tracer.refused == {}
    return noted


def test_a_trace_leads_to_the_source_file(project: Released, tracer: Tracer) -> None:
    noted = asked(project, tracer)
    ended = project.run("trace", noted.trace_id[:12], "--json")
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    last = project.releases[-1]
    assert said["trace"] == noted.trace_id
    assert said["release"] | {"lineage": 0, "corpus": 0} == {
        "version": "v0.2.0",
        "digest": last.digest,
        "commit": last.commit,
        "run": "manual-2026-11-22T00-00-00",
        "prompt_file": "include/prompts/plain.yaml",
        "corpus": 0,
        "lineage": 0,
    }
    assert said["release"]["corpus"]["digest"] == said["attributes"]["corpus"]
    pump = said["sections"][0]
    assert [row["table"] for row in pump["rows"]] == ["data/unique", "data/clean", "data/raw"]
    assert pump["file"]["path"] == "pump.md"
    assert pump["file"]["sha256"] == commit.sha256(project.folder / "notes" / "pump.md")
    assert "example.org" not in ended.stdout
    raw = documents.read(project.folder / "data" / "raw").row(
        by_predicate=documents.pl.col("path") == "pump.md", named=True
    )
    assert pump["rows"][-1]["content"] == raw["content"] != pump["rows"][0]["content"]


def test_the_raw_row_is_shown_where_it_is_asked_for(project: Released, tracer: Tracer) -> None:
    noted = asked(project, tracer)
    plain = project.run("trace", noted.trace_id).stdout
    assert "bert@example.org" not in plain
    for part in ("Release v0.2.0", "manual-2026-11-22", "pump.md", "status 200", "masked.out.EMAIL 1", "engine"):
        assert part in plain
    assert "bert@example.org" in project.run("trace", noted.trace_id, "--rows").stdout


def test_an_older_release_is_read_at_its_own_commit(project: Released, tracer: Tracer) -> None:
    first = project.releases[0]
    with tracer.request("chat") as noted:
        released.noted(noted, project, "Who oils the pump?")
        noted.set(release=first.digest, version=first.version, commit=first.commit)
    tracer.close()
    said = json.loads(project.run("trace", noted.trace_id, "--json", "--rows").stdout)
    assert said["release"]["commit"] == first.commit
    assert "anna@example.org" in said["sections"][0]["rows"][-1]["body"]
    assert said["release"]["corpus"]["digest"] != said["attributes"]["corpus"]
    assert "another than the trace names" in project.run("trace", noted.trace_id).stdout


def test_requests_of_one_trace_are_told_apart(project: Released, tracer: Tracer) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for _ in range(2):
        with tracer.request("chat", parent) as noted:
            released.noted(noted, project, "Who oils the pump?")
    tracer.close()
    found = trace.find(project.traces, noted.trace_id)
    assert len(found) == 2
    assert found[0].start_ns > found[1].start_ns
    assert "newest of 2 requests" in project.run("trace", noted.trace_id).stdout


@pytest.mark.parametrize(
    ("identifier", "code", "sentence"),
    [
        ("0" * 32, 23, "there is no trace 00000000000000000000000000000000: the oldest that is kept began at 20"),
        ("xyz", 2, "'xyz' is no trace; give its id, 8 to 32 hex digits"),
        ("0af7", 2, "is no trace"),
    ],
)
def test_what_is_no_trace_is_a_sentence(
    project: Released, tracer: Tracer, identifier: str, code: int, sentence: str
) -> None:
    asked(project, tracer)
    ended = project.run("trace", identifier)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_where_nothing_was_ever_traced_it_says_so(project: Released) -> None:
    ended = project.run("trace", "0" * 32)
    assert ended.returncode == 23
    assert "none was ever written here" in ended.stderr


def test_a_release_of_another_repository_is_a_sentence(project: Released, tracer: Tracer) -> None:
    with tracer.request("chat") as noted:
        noted.set(release="9" * 64, key="abcdefghij")
    tracer.close()
    ended = project.run("trace", noted.trace_id)
    assert ended.returncode == 17
    assert "no version has the release 999999999999" in ended.stderr


def test_a_table_that_is_gone_is_a_sentence(project: Released, tracer: Tracer, tmp_path: Path) -> None:
    noted = asked(project, tracer)
    cache = project.folder / ".dvc" / "cache"
    shutil.move(cache, tmp_path / "cache")
    try:
        ended = project.run("trace", noted.trace_id)
    finally:
        shutil.move(tmp_path / "cache", cache)
    assert ended.returncode == 13
    assert "it is not to be had of commit" in ended.stderr
    assert segments.files(project.traces)
