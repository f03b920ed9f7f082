"""What a person is told of a night is what night.json holds, whatever its systems are called."""

from __future__ import annotations

from typing import Any

import pytest

from nightshift.summary import summary

MEASURED = {
    "choice_accuracy.closed": 0.25,
    "choice_accuracy.open": 0.5,
    "robust_accuracy.closed": 0.125,
    "reads.open": 0.75,
    "canary_exposure.closed": 1.5,
}


def night(**more: Any) -> dict[str, Any]:
    """A published night with these metrics of its stages, or other facts."""
    said = {"run": "one", "published": "c" * 40, "new": True, "refused": "", "stages": {}, "released": None}
    return said | {"deployed": None, "sentence": None} | more


def stages(**metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        name.replace("__", "@").replace("_", "-"): {"outcome": "ran", "sentence": "", "metrics": one}
        for name, one in metrics.items()
    }


def test_every_system_of_the_night_is_shown_in_its_order_with_what_was_measured() -> None:
    made = stages(evaluate__zebra=MEASURED, evaluate__bottleneck_2={"absent": "too few pairs"}, evaluate__plain={})
    said = summary(night(stages=made)).splitlines()
    begin = said.index("Systems, on the validation items:")
    assert said[begin + 1 : begin + 6] == [
        "                choices  asked otherwise  with sections  reads  secrets",
        "  zebra           0.250            0.125          0.500  0.750    1.500",
        "  bottleneck-2  none (too few pairs)",
        "  Reads: the share of invented facts that it finds in the sections that it is shown.",
        "  Secrets: bits by which invented ones stand out; 1.4 when none was learned by heart, 6 when all were.",
    ]


def test_what_was_not_measured_has_no_column() -> None:
    said = summary(night(stages=stages(evaluate__plain={"recall.open": 1.0})))
    assert "  plain   1.000" in said
    assert "choices" not in said
    assert "Secrets" not in said and "Reads" not in said


def test_budgets_are_told_whatever_the_models_are_called() -> None:
    said = summary(night(stages=stages(assess__other={"left_out": 3}, evaluate__zebra={"left_out": 7})))
    assert "3 items not asked of base models" in said
    assert "7 validation items not asked" in said


def test_what_went_wrong_is_said() -> None:
    broken = {"ingest": {"outcome": "refused", "sentence": "a.md: it changed.", "metrics": {}}}
    said = summary(night(stages=broken, sentence="the lease was lost"))
    assert "What went wrong: ingest (refused): a.md: it changed." in said
    assert "What went wrong: the lease was lost" in said
    assert "wrong" not in summary(night())


def test_why_a_release_is_not_deployed_is_said() -> None:
    let_out = night(released="d" * 64, version="v0.2.0", why_not_deployed="this digest has a version already.")
    assert "Not deployed: this digest has a version already.\n" in summary(let_out)
    assert "Not deployed" not in summary(night(released="d" * 64))


@pytest.mark.parametrize(
    ("release", "named"),
    [
        ({"released": False, "role": "winner", "verdict_on_it": "INCONCLUSIVE"}, True),
        ({"released": False, "role": "refresh", "verdict_on_it": "INCONCLUSIVE"}, True),
        ({"released": False, "role": "winner", "verdict_on_it": "NO-GO"}, False),
        ({"released": True, "role": "refresh", "verdict_on_it": "INCONCLUSIVE"}, False),
        ({"released": False, "absent": "no system"}, False),
    ],
)
def test_an_undecided_winner_is_what_to_approve_next(release: dict[str, Any], named: bool) -> None:
    said = summary(night(stages=stages(release=release)))
    assert ('Next: `nightshift approve --reason "…"`' in said) is named


def test_what_changed_in_the_corpus_is_told() -> None:
    read = {"files": 21, "sections": 200, "quarantined": {"not-text": 1}}
    now = night(stages=stages(ingest=read))
    now["stages"]["ingest"]["work"] = {"computed": 2}
    said = summary(now, night(stages=stages(ingest=read | {"files": 20, "sections": 190})))
    since = "since the night before +1 files, +10 sections; 2 files new or changed"
    assert f"21 files became 200 sections ({since})." in said
    assert "1 file is in quarantine: not-text (data/raw/quarantine.parquet names them)." in said


def test_what_was_approved_since_is_not_asked_for_again() -> None:
    kept = {"released": False, "verdict_on_it": "INCONCLUSIVE", "role": "winner"}
    said = summary(night(stages=stages(release=kept), approved={"version": "v0.2.0", "environment": "prod"}))
    assert "Approved since: v0.2.0 is in prod." in said
    assert "nightshift approve" not in said


@pytest.mark.parametrize(
    ("up", "said"),
    [
        (False, "Next: `make up`, then ask the endpoint with the key that it names."),
        (True, "Next: ask the endpoint, which is up, with the key that `make up` names."),
    ],
)
def test_an_endpoint_that_is_up_is_not_to_be_started(up: bool, said: str) -> None:
    assert summary(night(released="d" * 64, deployed="prod", version="v0.1.0"), up=up).splitlines()[-1] == said


def test_that_nothing_could_be_picked_is_said() -> None:
    said = summary(night(stages=stages(select={"absent": "the validation side has no question"})))
    assert "Picked: none, since the validation side has no question." in said


@pytest.mark.parametrize(
    ("window", "said"),
    [
        (
            {"certified": 1024, "context": 2048, "reached": True},
            "finds a planted fact in texts of up to 1,024 of 2,048",
        ),
        ({"certified": 256, "context": 2048, "reached": False}, "(night.certify_tokens did not reach further)"),
        ({"certified": None, "context": 2048, "reached": True}, "finds a planted fact in no text"),
        ({"certified": None, "why_not": "its engine died."}, "Its window was not measured: its engine died.\n"),
    ],
)
def test_the_window_of_a_release_is_said(window: dict[str, Any], said: str) -> None:
    assert said in summary(night(released="d" * 64, window=window))
