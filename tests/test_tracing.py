"""The tracer of a process is the one that params.yaml asks for, whatever OTEL_SDK_DISABLED says of packages' own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nightshift import content, params, segments, spans, tracing
from nightshift.errors import ParamsError
from nightshift.tracing import Traces


def section(root: Path, **values: object) -> Traces:
    return params.load(root / params.FILE, Traces).model_copy(update=values)


def test_by_default_traces_stay_here_without_a_word(root: Path, tmp_path: Path) -> None:
    assert os.environ.get("OTEL_SDK_DISABLED") == "true"
    tracer = tracing.tracer(tmp_path, section(root), "gateway")
    with tracer.request("chat") as trace:
        trace.set(key="abcdefghij")
        trace.content("Who oils the pump?", "The keeper.")
    tracer.close()
    (path,) = segments.files(tmp_path / spans.FOLDER)
    assert trace.trace_id.encode() in path.read_bytes()
    assert b"pump" not in path.read_bytes()
    assert tracer.counts()["content"]["sent"] == 1  # with nothing in it


def test_words_are_kept_where_they_are_asked_for(root: Path, tmp_path: Path) -> None:
    tracer = tracing.tracer(tmp_path, section(root, content="scrubbed", content_share=1.0), "gateway")
    with tracer.request("chat") as trace:
        trace.set(key="abcdefghij")
        trace.content("Who oils the pump?", "The keeper.")
    tracer.close()
    assert content.find(tmp_path / spans.FOLDER, trace.trace_id) is not None
    assert set(tracer.counts()) == {"file", "content"}


def test_words_of_days_ago_go_where_none_are_kept_any_more(root: Path, tmp_path: Path) -> None:
    old = tmp_path / spans.FOLDER / "content-20261101T000000Z.jsonl"
    old.parent.mkdir()
    old.write_text("{}\n")
    tracing.tracer(tmp_path, section(root), "gateway").close()
    assert not old.exists()


def test_a_home_has_one_secret_for_pseudonyms(root: Path, tmp_path: Path) -> None:
    names = [tracing.tracer(tmp_path, section(root), "gateway").pseudonym("anna") for _ in range(2)]
    assert names[0] == names[1]
    assert (tmp_path / spans.FOLDER / tracing.SECRET).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("otlp: null", "otlp: ftp://x", "traces.otlp"),
        ("otlp: null", "otlp: http://me:secret@host/v1/traces", "traces.otlp"),
        ('content: "off"', "content: all", "traces.content"),
        ("langfuse: null", 'langfuse: {url: "http://h", environment: langfuse-x}', "keeps for itself"),
    ],
)
def test_a_wrong_value_is_refused(root: Path, tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / params.FILE
    file.write_text((root / params.FILE).read_text().replace(f"  {old}\n", f"  {new}\n"))
    with pytest.raises(ParamsError, match=said):
        params.check(file)
