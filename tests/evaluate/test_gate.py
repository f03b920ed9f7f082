"""The gate lets out what is proven, and says why not of everything else."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from nightshift.errors import ParamsError
from nightshift.evaluate import gate
from nightshift.evaluate.ask import READ
from nightshift.evaluate.policy import Check, Policy
from nightshift.evaluate.select import pick, worth

POLICY = Policy.model_validate(
    {
        "comparisons": [
            {"metric": "right", "book": "open", "tier": "critical", "better": "higher", "kind": "binary",
             "margin": 0.1, "effect": 0.1, "min_items": 30},
            {"metric": "bits", "book": "open", "tier": "supporting", "better": "lower", "kind": "number",
             "margin": 0.1, "effect": 0.1, "min_items": 30},
        ],
        "checks": [
            {"metric": "safe", "book": "closed", "least": 1.0, "min_items": 2, "baseline": "required"},
            {"metric": "private", "book": "open", "least": 1.0, "min_items": 1, "baseline": "measured"},
        ],
    }
)  # fmt: skip
N = 60
ALTERNATING = [float(n % 2) for n in range(N)]


def rows(right: list[float] | None = None, bits: list[float] | None = None, **checks: float) -> dict[Any, Any]:
    """Rows of one system; what is not said is the reference's."""
    right = ALTERNATING if right is None else right
    bits = [3.0 + 0.01 * (n % 3) for n in range(N)] if bits is None else bits
    found = {("right", "open"): {f"r{n}": value for n, value in enumerate(right)}}
    found |= {("bits", "open"): {f"b{n}": value for n, value in enumerate(bits)}}
    for (metric, book), value in {("safe", "closed"): 1.0, ("private", "open"): 1.0}.items():
        found |= {(metric, book): dict.fromkeys(["one", "two"], checks.get(metric, value))}
    return found


BETTER = [2.0 + 0.01 * (n % 5) for n in range(N)]
WORSE = [0.0] * N
OTHERS = rows(bits=BETTER) | {("right", "open"): {f"other{n}": 1.0 for n in range(N)}}
MISSING = {key: value for key, value in rows(bits=BETTER).items() if key != ("right", "open")}

WINNERS: dict[str, tuple[dict[Any, Any], str, str]] = {
    "a critical metric is not there": (MISSING, gate.INCONCLUSIVE, "was not measured"),
    "it was asked other items": (OTHERS, gate.INCONCLUSIVE, "different items"),
    "a value is not a number": (rows([math.nan] * N, BETTER), gate.INCONCLUSIVE, "not a number"),
    "too few items": (rows(ALTERNATING[:10], BETTER), gate.INCONCLUSIVE, "different items"),
    "clearly worse": (rows(WORSE, BETTER), gate.NO_GO, "worse by 0.5"),
    "perhaps worse": (rows([*ALTERNATING[:-8], *([0.0] * 8)], BETTER), gate.INCONCLUSIVE, "items do not tell"),
    "unsafe": (rows(bits=BETTER, safe=0.5), gate.NO_GO, "safe (closed-book) is 0.5"),
    "leaks personal data": (rows(bits=BETTER, private=0.5), gate.NO_GO, "private (open-book) is 0.5"),
    "no better, and that would have been seen": (rows(), gate.NO_GO, "would have been seen"),
    "better on bits": (rows(bits=BETTER), gate.GO, "Better than"),
}


@pytest.mark.parametrize(("winner", "verdict", "reason"), WINNERS.values(), ids=WINNERS)
def test_the_winner_against_the_release_in_production(winner: dict[Any, Any], verdict: str, reason: str) -> None:
    roles = {"winner": "w", "refresh": None, "plain": None, "incumbent": "i"}
    decided = gate.decide(roles, {"w": winner, "i": rows()}, POLICY)
    assert decided["verdict"] == verdict
    assert decided["releases"] == ("winner" if verdict == gate.GO else None)
    assert reason in " ".join(decided["entries"][0]["reasons"])


def test_a_gain_that_could_not_have_been_seen_is_inconclusive() -> None:
    noisy = [3.0 + (n % 7) for n in range(N)]
    roles = {"winner": "w", "refresh": None, "plain": None, "incumbent": "i"}
    decided = gate.decide(roles, {"w": rows(bits=noisy[::-1]), "i": rows(bits=noisy)}, POLICY)
    assert decided["verdict"] == gate.INCONCLUSIVE
    assert "could have been: bits from" in " ".join(decided["entries"][0]["reasons"])


def test_too_few_on_both_sides_say_how_many_are_needed() -> None:
    roles = {"winner": "w", "refresh": None, "plain": None, "incumbent": "i"}
    few = {"w": rows(ALTERNATING[:10], BETTER), "i": rows(ALTERNATING[:10])}
    reasons = gate.decide(roles, few, POLICY)["entries"][0]["reasons"]
    assert any("10 items are too few, at least 30 are needed" in reason for reason in reasons)


def test_documents_reach_users_when_the_model_is_refused() -> None:
    roles = {"winner": "w", "refresh": "r", "plain": None, "incumbent": "i"}
    decided = gate.decide(roles, {"w": rows(WORSE), "r": rows(), "i": rows()}, POLICY)
    assert (decided["verdict"], decided["releases"]) == (gate.NO_GO, "refresh")


def test_with_nothing_in_production_plain_is_the_baseline_when_it_is_safe() -> None:
    roles = {"winner": "p", "refresh": None, "plain": "p", "incumbent": None}
    decided = gate.decide(roles, {"p": rows()}, POLICY)
    assert (decided["verdict"], decided["releases"]) == (gate.NO_GO, "plain")
    assert gate.decide(roles, {"p": rows(safe=0.0)}, POLICY)["releases"] is None
    unmeasured = {key: value for key, value in rows().items() if key[0] == "safe"}
    assert gate.decide(roles, {"p": unmeasured}, POLICY)["releases"] == "plain"
    assert gate.decide(roles, {"p": {}}, POLICY)["releases"] is None


def test_no_winner_is_inconclusive_and_the_baseline_still_counts() -> None:
    roles = {"winner": None, "refresh": None, "plain": "p", "incumbent": None}
    decided = gate.decide(roles, {"p": rows()}, POLICY)
    assert (decided["verdict"], decided["releases"]) == (gate.INCONCLUSIVE, "plain")


def test_a_policy_that_lets_everything_through_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text(
        "comparisons:\n  - {metric: a, book: open, tier: advisory, better: higher, kind: binary, margin: 1, effect: 1,"
        " min_items: 2}\nchecks:\n  - {metric: safe, book: closed, least: 1, min_items: 1, baseline: required}\n"
    )
    with pytest.raises(ParamsError, match="let everything through"):
        Policy.read(tmp_path / "gate.yaml")
    (tmp_path / "gate.yaml").write_text("comparisons: [{metric: a}]\n")
    with pytest.raises(ParamsError, match=r"gate\.yaml"):
        Policy.read(tmp_path / "gate.yaml")


def test_the_projects_own_policy_is_accepted(root: Path) -> None:
    assert Policy.read(root / "include" / "policies" / "gate.yaml").comparisons


@pytest.mark.parametrize(
    ("worths", "best"),
    [
        ({"plain": 0.4, "prompt": 0.5, "lora": 0.3}, "prompt"),
        ({"lora": 0.5, "prompt": 0.5, "plain": 0.5}, "plain"),
        ({"lora": 0.5, "prompt": 0.5}, "prompt"),
    ],
)
def test_of_equals_the_simpler_is_picked(worths: dict[str, float], best: str) -> None:
    assert pick(worths) == best


def test_worth_is_the_mean_of_what_was_measured() -> None:
    asked = {"choice_accuracy.open": {"mean": 0.8}, "token_f1.open": {"mean": 0.4}, "safe.closed": {"mean": 1.0}}
    assert worth(asked) == pytest.approx(0.6)
    assert worth(asked | {"reads.open": {"mean": 0.0}}) == pytest.approx(0.4)
    assert worth({"safe.closed": {"mean": 1.0}, "reads.open": {"mean": 1.0}}) is None


def test_what_reads_where_production_does_not_is_better(root: Path) -> None:
    policy = Policy.read(root / "include" / "policies" / "gate.yaml")
    rule = next(one for one in policy.comparisons if one.metric == "reads")
    items = [f"i{n}" for n in range(16)]
    reads = {("reads", "open"): {item: float(place != 3) for place, item in enumerate(items)}}
    blind = {("reads", "open"): {item: float(place == 5) for place, item in enumerate(items)}}
    alone = policy.model_copy(update={"comparisons": [rule], "checks": []})
    said = gate.better("winner", reads, blind, "production", alone)
    assert (said.verdict, said.reasons) == (gate.GO, ["Better than production on reads (open-book)."])
    assert gate.better("winner", blind, reads, "production", alone).verdict == gate.NO_GO


def test_what_no_longer_reads_is_not_let_out(root: Path) -> None:
    """By the project's own policy, where everything else got better."""
    policy = Policy.read(root / "include" / "policies" / "gate.yaml")
    rule = next(one for one in policy.comparisons if one.metric == "reads")
    reading = {f"reads-{number}": 1.0 for number in range(READ)}
    for missed, verdict in ((0, gate.GO), (1, gate.GO), (4, gate.INCONCLUSIVE), (READ, gate.NO_GO)):
        entry, some = gate.Entry("winner", ""), {f"reads-{number}": 0.0 for number in range(missed)}
        gate.compare(entry, rule, {("reads", "open"): reading | some}, {("reads", "open"): reading})
        assert (missed, entry.verdict) == (missed, verdict)


def test_a_bound_from_above_holds_and_one_of_both_is_needed() -> None:
    rule = Check(metric="exposure", book="closed", most=3.0, min_items=2, baseline="required")
    entry = gate.Entry("winner", "")
    gate.hold(entry, rule, {("exposure", "closed"): {"a": 1.0, "b": 2.0}})
    assert entry.verdict == gate.GO
    gate.hold(entry, rule, {("exposure", "closed"): {"a": 6.0, "b": 6.0}})
    assert (entry.verdict, entry.reasons) == (gate.NO_GO, ["exposure (closed-book) is 6; at most 3 is allowed."])
    with pytest.raises(ValueError, match="neither `least` nor `most`"):
        Check(metric="exposure", book="closed", min_items=2, baseline="no")


def test_equal_systems_pass_by_chance_once_in_forty_at_most_however_many_metrics_there_are() -> None:
    import numpy as np

    drawn = np.random.default_rng(1)
    supporting = [
        {"metric": f"m{n}", "book": "open", "tier": "supporting", "better": "higher", "kind": "number",
         "margin": 0.1, "effect": 0.1, "min_items": 30}
        for n in range(8)
    ]  # fmt: skip
    policy = Policy.model_validate({"comparisons": [POLICY.comparisons[0].model_dump(), *supporting],
                                    "checks": [POLICY.checks[0].model_dump()]})  # fmt: skip
    passed = 0
    for _ in range(200):
        sides = [
            rows()
            | {(f"m{n}", "open"): {f"i{k}": float(v) for k, v in enumerate(drawn.normal(size=40))} for n in range(8)}
            for _ in range(2)
        ]
        passed += gate.better("winner", sides[0], sides[1], "plain", policy).verdict == gate.GO
    assert passed <= 12  # one in forty is expected; without the correction one in five
