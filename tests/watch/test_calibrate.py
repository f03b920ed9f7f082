"""Thresholds are proposed from what was measured, and not from too little."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from nightshift.cli import app
from nightshift.errors import DataRefused
from nightshift.serve.meters import Meters
from nightshift.watch.calibrate import proposed, quantile


def measured(first_tokens: list[float], gaps: list[float]) -> str:
    """/metrics of an endpoint that measured these, half of them on either side of a rollout."""
    meters = Meters()
    for histogram, values in ((meters.first_token, first_tokens), (meters.gap, gaps)):
        for place, value in enumerate(values):
            histogram.labels(("stable", "canary")[place % 2]).observe(value)
    return meters.text().decode()


def test_a_percentile_is_interpolated_in_its_bucket_as_prometheus_does() -> None:
    buckets = {0.1: 50.0, 0.2: 90.0, 0.4: 100.0, float("inf"): 100.0}
    assert quantile(buckets, 0.95) == pytest.approx(0.3)
    assert quantile(buckets, 0.5) == pytest.approx(0.1)
    assert quantile({0.1: 100.0, float("inf"): 100.0}, 0.95) == pytest.approx(0.095)


def test_what_lies_beyond_the_last_bound_and_too_few_events_are_refused() -> None:
    with pytest.raises(DataRefused, match="took longer than the last bound"):
        quantile({0.1: 90.0, float("inf"): 100.0}, 0.95)
    with pytest.raises(DataRefused, match="nightshift_first_token_seconds holds 29 events, and 30 are needed"):
        proposed(measured([0.1] * 29, [0.01] * 40))
    with pytest.raises(DataRefused, match="holds 0 events"):
        proposed("")


def test_thresholds_are_a_fifth_above_what_was_measured_between_two_readings(tmp_path: Path) -> None:
    before = measured([100.0] * 40, [0.9] * 40)
    after = measured([100.0] * 40 + [0.4] * 60, [0.9] * 40 + [0.04] * 60)
    found = {one.objective: one for one in proposed(after, before)}
    assert found["first_token"].events == 60
    # 0.4 lies in the bucket from 0.3 to 0.5, 0.04 in that from 0.03 to 0.05
    assert found["first_token"].threshold == pytest.approx(1.2 * (0.3 + 0.2 * 0.95))
    assert found["first_token_tail"].threshold == pytest.approx(3 * found["first_token"].threshold)
    assert found["speed"].threshold == pytest.approx(1.2 * (0.03 + 0.02 * 0.95))
    (tmp_path / "before").write_text(before)
    (tmp_path / "after").write_text(after)
    words = ["slo", "calibrate", str(tmp_path / "after"), "--before", str(tmp_path / "before")]
    said = CliRunner().invoke(app, words)
    assert said.output.splitlines()[0] == 'first-token.yaml: nightshift/threshold: "0.588"   # 95 % of 60 within 0.49 s'
