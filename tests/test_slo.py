"""Alerts come in time and go again, half a burn never raises one, and a spent budget holds back what it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightshift import invariants, openslo, slo
from nightshift.counts import Counts, Row
from nightshift.errors import AccessDenied, ParamsError
from nightshift.openslo import Objective
from nightshift.slo import Policy, Series, Standing
from tests.watch.traces import DAY, HOUR, TRACES, Stretch, Trace

START = 29_000_000


@pytest.fixture(scope="module")
def objectives(pytestconfig: pytest.Config) -> dict[str, Objective]:
    return openslo.read(pytestconfig.rootpath / openslo.FOLDER)


def severities(trace: Trace, objectives: dict[str, Objective]) -> list[str | None]:
    """What the engine says when each minute of a trace is over; place 0 is before the first."""
    known, said, heard = Series(trace.rows(START)), [None], START - 1
    for place, counted in enumerate(trace.counted()):
        now = START + place
        heard = now if counted is not None else heard
        found = slo.alerts(objectives.values(), known, now, now - heard)
        assert len(found) <= 1  # one fault, one alert
        said.append(found[0].severity if found else None)
    return said


@pytest.mark.parametrize("name", TRACES)
def test_the_engine_fires_on_every_trace_when_it_must(name: str, objectives: dict[str, Objective]) -> None:
    trace = TRACES[name]
    said = severities(trace, objectives)
    assert {minute: said[minute] for minute in trace.checks} == trace.checks
    assert not trace.never or set(said) == {None}


def test_a_total_outage_pages_within_five_minutes_and_clears_within_seven(objectives: dict[str, Objective]) -> None:
    said = severities(TRACES["a total outage"], objectives)
    first = said.index("page")
    assert first <= DAY + 5
    assert None in said[DAY + 5 : DAY + 5 + 8]


@pytest.mark.parametrize("table", [slo.BURNS, tuple(one for one in slo.BURNS if (one.share, one.long) != (0.025, 360))])
def test_a_burn_of_five_after_three_good_days_tickets_within_six_hours(
    table: tuple[slo.Burn, ...], objectives: dict[str, Objective], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workbook's four rows alone take half a day: why there is a fifth."""
    monkeypatch.setattr(slo, "BURNS", table)
    trace = Trace((Stretch(3 * DAY), Stretch(DAY, bad=10)), {})
    after = severities(trace, objectives).index("ticket") - 3 * DAY
    assert after <= 6 * HOUR if len(table) == 5 else 12 * HOUR < after < 14 * HOUR


def row(minute: int, good: int, valid: int, sli: str = "availability") -> Row:
    return Row(minute, sli, "a" * 64, good, valid)


def test_while_it_is_silent_nothing_clears(objectives: dict[str, Objective]) -> None:
    known = Series([row(START + minute, 0, 400) for minute in range(60)])
    for silent in (10, 100, 10_000):
        found = slo.alerts(objectives.values(), known, START + 59 + silent, silent)
        assert [(alert.id, alert.severity) for alert in found] == [("silence", "page"), ("health", "page")]


@pytest.mark.parametrize(("silent", "pages"), [(None, False), (0, False), (9, False), (10, True)])
def test_silence_of_ten_minutes_is_a_page_where_an_endpoint_is_meant_to_run(
    silent: int | None, pages: bool, objectives: dict[str, Objective]
) -> None:
    assert bool(slo.alerts(objectives.values(), Series([]), START, silent)) == pages


@pytest.mark.parametrize("skew", [-2, 0, 2])
def test_a_clock_that_is_off_by_ninety_seconds_neither_makes_nor_hides_budget(
    skew: int, root: Path, tmp_path: Path
) -> None:
    """A writer whose clock is behind or ahead by up to two whole minutes."""
    counts = Counts(tmp_path)
    counts.begin(START)
    for minute in range(20):
        counts.add(START + minute + skew, {("availability", "a"): (399 if minute % 2 else 400, 400)})
    now = START + 19
    found = slo.standing(tmp_path, root, now)
    left = found.budgets["availability"]
    assert left is not None
    assert 1 - left == pytest.approx(10 / (0.005 * 400 * 28 * DAY), rel=0.15)  # two of twenty minutes
    assert slo.series(counts, now, DAY).within("availability", now, DAY) == (7990, 8000)
    assert found.silent == max(0, -skew)


def test_a_gateway_that_starts_anew_loses_and_hides_nothing(tmp_path: Path, objectives: dict[str, Objective]) -> None:
    """A counter that begins at 0 again would hide what came before, or count it twice."""
    for _ in range(3):  # a process each
        counts = Counts(tmp_path)
        counts.begin(START)
        counts.add(START, {("availability", "a"): (90, 100)})
    assert slo.series(counts, START, DAY).within("availability", START, 1) == (270, 300)


@pytest.mark.parametrize(
    ("bad", "valid", "minutes", "left"),
    [
        (0, 0, 1, None),
        (0, 29, 1, None),  # too few tell nothing
        (29, 29, 1, None),
        (0, 30, 1, 1.0),
        (10, 2000, 28 * DAY, 0.0),  # a whole window: bad / (budget x valid)
        (50, 2000, 28 * DAY, -4.0),
        (1, 400, 1, 1 - 1 / (0.005 * 400 * 28 * DAY)),  # a minute old: as if the rest had been good
        (202 * 400, 202 * 400, 202, 1 - 202 / (0.005 * 28 * DAY)),  # a total outage spends it in 202 minutes
    ],
)
def test_what_is_left_of_a_budget(
    bad: int, valid: int, minutes: int, left: float | None, objectives: dict[str, Objective]
) -> None:
    found = slo.remaining(objectives["availability"], valid - bad, valid, minutes)
    assert found == (left if left is None else pytest.approx(left))


def test_what_is_older_than_the_window_spends_nothing(root: Path, tmp_path: Path) -> None:
    counts = Counts(tmp_path)
    counts.add(START - 28 * DAY, {("availability", "a"): (0, 500)})
    counts.add(START, {("availability", "a"): (400, 400)})
    assert slo.standing(tmp_path, root, START).budgets["availability"] == 1.0
    assert (slo.standing(tmp_path, root, START - 1).budgets["availability"] or 0) < 0.8


def standing(
    health: float | None, accuracy: float | None = 1.0, silent: int | None = 0, broken: tuple[str, ...] = ()
) -> Standing:
    return Standing({"availability": health, "correctness": accuracy}, frozenset({"correctness"}), silent, broken)


GOOD, HALF, QUARTER, NOTHING, OVER = 0.9, 0.5, 0.25, 0.0, -0.5
DECISIONS = [  # change, standing, allowed, samples
    ("model", standing(GOOD), True, 1),
    ("model", standing(0.51), True, 1),
    ("model", standing(HALF), True, 2),
    ("model", standing(0.26), True, 2),
    ("model", standing(QUARTER), False, 2),
    ("model", standing(0.01), False, 2),
    ("model", standing(NOTHING), False, 2),
    ("model", standing(OVER), False, 2),
    ("documents", standing(QUARTER), True, 2),
    ("documents", standing(NOTHING), False, 2),
    ("parameters", standing(HALF), True, 2),
    ("parameters", standing(QUARTER), False, 2),
    ("schema", standing(0.26), True, 2),
    ("schema", standing(0.1), False, 2),
    ("dependencies", standing(HALF), True, 2),
    ("dependencies", standing(0.1), False, 2),
    ("configuration", standing(0.51), True, 1),
    ("configuration", standing(HALF), False, 2),
    ("configuration", standing(OVER), False, 2),
    ("fix", standing(0.01), True, 2),
    ("fix", standing(NOTHING), False, 2),
    ("security", standing(OVER), True, 1),
    ("rollback", standing(OVER), True, 1),
    ("emergency", standing(OVER), True, 1),
    # quality holds back changes of the model, and no others
    ("model", standing(GOOD, HALF), True, 2),
    ("model", standing(GOOD, QUARTER), False, 2),
    ("documents", standing(GOOD, QUARTER), True, 2),
    ("documents", standing(GOOD, OVER), False, 2),
    ("dependencies", standing(GOOD, OVER), True, 2),
    ("configuration", standing(GOOD, OVER), True, 2),
    ("fix", standing(GOOD, OVER), True, 2),
    # too few events hold nothing back, nor does an endpoint that is not meant to run
    ("model", standing(None, None), True, 1),
    ("model", standing(None, OVER), False, 2),
    ("model", standing(GOOD, silent=None), True, 1),
    ("model", standing(OVER, silent=None), False, 2),
    # silence, and what must never happen
    ("model", standing(GOOD, silent=9), True, 1),
    ("model", standing(GOOD, silent=10), False, 1),
    ("fix", standing(GOOD, silent=10), False, 1),
    ("rollback", standing(GOOD, silent=10), True, 1),
    ("model", standing(GOOD, broken=("audit",)), False, 1),
    ("fix", standing(GOOD, broken=("audit",)), False, 1),
    ("rollback", standing(OVER, OVER, 99, ("audit",)), True, 1),
    ("security", standing(OVER, OVER, 99, ("audit",)), True, 1),
]


@pytest.mark.parametrize(("change", "stands", "allowed", "samples"), DECISIONS)
def test_what_the_policy_says(change: slo.Change, stands: Standing, allowed: bool, samples: int, root: Path) -> None:
    said = slo.may_deploy(change, stands, Policy.read(root))
    assert (said.allowed, said.samples) == (allowed, samples)
    assert bool(said.reason) != allowed


def test_every_change_is_decided_about_at_least_twice() -> None:
    assert len(DECISIONS) >= 40
    decided = [change for change, *_ in DECISIONS]
    assert {change for change in slo.CHANGES if decided.count(change) >= 2 or change == "emergency"} == set(slo.CHANGES)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("rollback, security", "security", "rollback is always let through"),
        ("documents, fix]}", "documents, rollback]}", "rollback is always let through"),
        ("above: 0.25", "above: 0.75", "levels go from much to little"),
        ("above: null", "above: -1.0", "levels go from much to little"),
        ("samples: 1", "samples: 0", "levels.0.samples"),
        ("[configuration]}", "[config]}", "levels.1.holds_back.0"),
        ("always:", "never:", "never: no such key"),
    ],
)
def test_a_policy_that_would_hold_back_a_rollback_or_is_mistyped_is_refused(
    old: str, new: str, sentence: str, root: Path, tmp_path: Path
) -> None:
    text = (root / slo.POLICY).read_text()
    assert old in text
    path = tmp_path / slo.POLICY
    path.parent.mkdir(parents=True)
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError) as refused:
        Policy.read(tmp_path)
    assert sentence in str(refused.value)
    assert "budget.yaml:" in str(refused.value)


def test_how_things_stand_is_read_from_what_was_counted(root: Path, tmp_path: Path) -> None:
    assert slo.standing(tmp_path, root, START).silent is None
    counts = Counts(tmp_path)
    counts.begin(START)
    for minute in range(10):
        counts.add(START + minute, {("availability", "a"): (300, 400), ("correctness", "a"): (5, 5)})
    found = slo.standing(tmp_path, root, START + 9)
    assert (found.silent, found.broken, found.quality) == (0, [], {"correctness", "grounded"})
    assert found.worst(quality=False) == ("availability", pytest.approx(1 - 1000 / (0.005 * 400 * 28 * DAY)))
    assert found.worst(quality=True) == ("correctness", 1.0)
    assert found.budgets["privacy"] is None
    later = slo.standing(tmp_path, root, START + 109)
    assert (later.silent, later.budgets) == (100, found.budgets)
    counts.end(START + 110)
    assert slo.standing(tmp_path, root, START + 200).silent is None


def test_a_broken_invariant_freezes_until_a_person_names_a_postmortem(root: Path, tmp_path: Path) -> None:
    invariants.broke(tmp_path, 1.0, "canary", "a canary of training stood in an answer")
    invariants.broke(tmp_path, 2.0, "canary", "again")
    assert invariants.broken(tmp_path, tmp_path) == {"canary": "a canary of training stood in an answer"}
    assert slo.standing(tmp_path, root, START).broken == ["canary"]
    for name, postmortem in (("canary", " "), ("other", "PM-1")):
        with pytest.raises(AccessDenied):
            invariants.lift(tmp_path, 3.0, "ada", name, postmortem)
    invariants.lift(tmp_path, 3.0, "ada", "canary", "PM-1")
    assert invariants.broken(tmp_path, tmp_path) == {}
    assert "PM-1" in (tmp_path / "audit.jsonl").read_text()
    (tmp_path / "audit.jsonl").write_text((tmp_path / "audit.jsonl").read_text().replace("PM-1", "PM-2"))
    assert list(invariants.broken(tmp_path, tmp_path)) == ["audit"]
    with pytest.raises(ValueError, match="is no name"):
        invariants.broke(tmp_path, 1.0, "../x", "")
