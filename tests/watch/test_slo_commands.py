"""What `nightshift slo` says and does, as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nightshift import invariants
from nightshift.cli import app


@pytest.fixture
def home(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(root)
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    return tmp_path


def said(*words: str) -> str:
    ended = CliRunner().invoke(app, ["slo", *words])
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_what_is_promised_and_what_is_held_back_is_shown(home: Path) -> None:
    assert "availability      health    0.995  too few events" in said("show")
    assert "Held back" not in said("show")
    invariants.broke(home, 1.0, "canary", "a canary stood in an answer")
    shown = said("show")
    assert "Broken: canary" in shown
    assert "fix: an invariant is broken (canary); it takes a postmortem." in shown
    assert "rollback" not in shown
    said("lift", "canary", "--postmortem", "PM-7")
    assert "Held back" not in said("show")


def test_the_rules_are_written_where_prometheus_reads_them(root: Path) -> None:
    before = (root / "deploy" / "prometheus" / "rules.yaml").read_bytes()
    assert said("rules").strip() == "deploy/prometheus/rules.yaml"
    assert (root / "deploy" / "prometheus" / "rules.yaml").read_bytes() == before
