"""Two releases are asked the same question, where its words are there or given; else one sentence says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from nightshift import content
from nightshift.errors import UsageError
from nightshift.otlp import Background, FileSink
from nightshift.registry import Release
from nightshift.retrieve import Hit
from nightshift.segments import Segments
from nightshift.spans import Tracer
from nightshift.watch import replay
from nightshift.watch.replay import Answer
from tests.watch import released
from tests.watch.released import Released


@pytest.fixture
def trace(project: Released) -> Iterator[str]:
    """A trace of the newest release whose words were kept."""
    outlets = [
        Background(FileSink(Segments(project.traces, "gateway")), 10),
        Background(content.ContentSink(Segments(project.traces, content.SERVICE)), 10),
    ]
    tracer = Tracer("nightshift-gateway", outlets, content=1.0)
    with tracer.request("chat") as noted:
        released.noted(noted, project, "Who oils the pump?")
        noted.content("Who oils the pump of carl@example.org?", "The keeper.")
    tracer.close()
    yield noted.trace_id
    shutil.rmtree(project.traces)


def test_without_words_it_says_how_to_give_them(project: Released, trace: str) -> None:
    for path in project.traces.glob("content-*"):
        path.unlink()
    ended = project.run("replay", trace)
    assert (ended.returncode, ended.stdout) == (23, "")
    assert "are not kept; give it by --question; `traces.content: scrubbed` in params.yaml" in ended.stderr
    assert replay.question(project.traces, trace, "Who?") == "Who?"


def test_words_are_those_that_were_kept(project: Released, trace: str) -> None:
    assert replay.question(project.traces, trace, None) == "Who oils the pump of <EMAIL>?"


def test_the_other_release_is_the_one_asked_for_or_in_production_or_before(project: Released) -> None:
    first, last = project.releases
    assert replay.pair(project.folder, last.digest, None) == (last, first)
    assert replay.pair(project.folder, first.digest, None) == (first, last)
    assert replay.pair(project.folder, last.digest, "v0.2.0") == (last, last)
    with pytest.raises(UsageError, match=r"there is no version 'v9'; there are v0\.1\.0, v0\.2\.0"):
        replay.pair(project.folder, last.digest, "v9")
    with pytest.raises(UsageError, match="no version has the release 999999999999"):
        replay.pair(project.folder, "9" * 64, None)


def test_answers_stand_side_by_side() -> None:
    one = Answer(Release("v0.1.0", "c" * 40, "a" * 64), "The keeper of the mill oils it.", [])
    hit = Hit("0123456789abcdef", "Pump", "", 0.5, "notes", "pump.md")
    other = Answer(Release("v0.2.0", "c" * 40, "b" * 64), "On Friday.", [hit])
    said = replay.side_by_side((one, other), 60).splitlines()
    assert said[0].split("|")[1].strip() == "v0.2.0 (bbbbbbbbbbbb)"
    assert all(len(line) <= 60 for line in said)
    assert "The keeper of the mill" in said[2]
    assert said[2].endswith("On Friday.")
    assert "1. Pump (0123456789abcdef" in "\n".join(said)


@pytest.mark.long
def test_both_engines_are_asked_one_after_another(project: Released, trace: str) -> None:
    ended = project.run("replay", trace, "--against", "v0.1.0", "--json")
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["question"] == "Who oils the pump of <EMAIL>?"
    assert [one["release"]["version"] for one in said["answers"]] == ["v0.2.0", "v0.1.0"]
    assert all(one["sections"][0]["path"] == "pump.md" for one in said["answers"])
    assert all(isinstance(one["answer"], str) for one in said["answers"])
