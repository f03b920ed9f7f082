"""As many engines as the objective needs, in time, and none goes before its quiet minutes are over."""

from __future__ import annotations

import heapq
import random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightshift import scaling
from nightshift.scaling import Engines, Lately, Load, Profile, Rules, Scaling

UTC = ZoneInfo("UTC")
MONDAY = 1_795_996_800  # 2026-11-30, midnight
NOTHING = Profile((0.0,) * 168, UTC)
RULES = Rules(1, 8, 600.0, 1.0, 0.05)
ENGINES = Engines(4, 4.0, 30.0)
CALM = Load(0.0, 0.0, 0)
loads = st.builds(Load, st.floats(0, 50), st.floats(0, 200), st.integers(0, 300))
kinds = st.builds(Engines, st.integers(1, 64), st.floats(0.1, 60), st.floats(1, 7200))


def profile(**rates: float) -> Profile:
    """Rates by hour of the week: h8=0.5."""
    return Profile(tuple(rates.get(f"h{hour}", 0.0) for hour in range(168)), UTC)


@pytest.mark.parametrize(
    ("servers", "load", "wanted"),  # one server: C = load; two: a² / (2 + a); ten at 8: tables of C give 0.409
    [(1, 0.7, 0.7), (2, 1.0, 1 / 3), (2, 0.5, 0.1), (10, 8.0, 0.4092), (3, 3.0, 1.0), (3, 0.0, 0.0)],
)
def test_erlangs_c_is_that_of_the_tables(servers: int, load: float, wanted: float) -> None:
    assert scaling.erlang_c(servers, load) == pytest.approx(wanted, abs=1e-4)


def test_as_many_wait_as_the_formula_says() -> None:
    drawn, servers, rate, service_s, wait_s = random.Random(5), 6, 1.2, 4.0, 1.0
    free, now, over, number = [0.0] * servers, 0.0, 0, 30_000
    for _ in range(number):
        now += drawn.expovariate(rate)
        begins = max(now, heapq.heappop(free))
        over += begins - now > wait_s
        heapq.heappush(free, begins + drawn.expovariate(1 / service_s))
    assert over / number == pytest.approx(scaling.late(servers, rate * service_s, service_s, wait_s), rel=0.15)


@given(st.integers(1, 200), st.floats(0, 300))
def test_a_share_waits_and_fewer_with_one_server_more(servers: int, load: float) -> None:
    share = scaling.erlang_c(servers, load)
    assert 0 <= scaling.erlang_c(servers + 1, load) <= share <= 1


@given(st.floats(0, 20), st.floats(0, 20), kinds)
def test_more_requests_never_need_fewer_engines_and_one_fewer_would_not_do(
    one: float, other: float, kind: Engines
) -> None:
    low, high = (scaling.needed(rate, kind, RULES) for rate in sorted((one, other)))
    assert 1 <= low <= high <= RULES.most + 1
    if low > 1:
        short = (low - 1) * kind.slots
        assert scaling.late(short, min(one, other) * kind.service_s, kind.service_s, RULES.wait_s) > RULES.late


@given(st.lists(st.tuples(st.floats(0.1, 900), loads), min_size=1, max_size=60), kinds, st.floats(0, 20))
def test_the_bounds_hold_and_nothing_goes_before_its_time(
    looks: list[tuple[float, Load]], kind: Engines, rate: float
) -> None:
    rules = Rules(2, 5, 300.0, 1.0, 0.05)
    made, now = Scaling(rules, profile(h1=rate)), 0.0
    wanted: list[tuple[float, int]] = []
    for step, load in looks:
        now += step
        said = made.decide(now, MONDAY + now, load, kind)
        alone = Scaling(rules, made.profile).decide(now, MONDAY + now, load, kind).engines
        wanted.append((now, alone))
        assert rules.least <= alone <= said.engines <= rules.most
        assert said.engines == max(number for at, number in wanted if at >= now - rules.quiet_s)


@given(
    st.dictionaries(st.integers(1_995_552, 1_995_552 + 4 * 168 * 5), st.tuples(st.integers(0, 500), st.integers(1, 15)))
)
def test_an_hour_is_planned_for_what_was_counted_in_it_or_what_is_expected(found: dict[int, tuple[int, int]]) -> None:
    made = Profile.of(found, [7.0] * 168, UTC)
    rates = [requests / minutes / 60 for requests, minutes in found.values()]
    assert all(one == 7.0 / 3600 or one in rates for one in made.rates)


def test_a_busy_hour_is_ready_for_before_it_begins_and_not_long_before() -> None:
    made, eight = profile(h8=2.0), MONDAY + 8 * 3600
    need = scaling.needed(2.0, ENGINES, RULES)
    assert need > 1

    def at(seconds: float) -> scaling.Decision:
        return Scaling(RULES, made).decide(0.0, eight + seconds, CALM, ENGINES)

    assert (at(-31).engines, at(-29).engines, at(3599).engines, at(3600).engines) == (1, need, need, 1)
    assert at(-29) == scaling.Decision(need, "profile", "the week's profile has 2 requests a second at Mon 08:00")
    late = Engines(4, 4.0, 3 * 3600.0)  # an engine that takes three hours looks that far
    assert Scaling(RULES, made).decide(0.0, eight - 2 * 3600, CALM, late).engines == need


def test_the_hours_are_those_of_the_time_zone_in_summer_and_in_winter() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert scaling.hour_of(MONDAY + 7 * 3600, berlin) == 8
    assert scaling.hour_of(MONDAY - 140 * 86_400 + 6 * 3600, berlin) == 8  # a Monday in July
    assert scaling.hour_of(MONDAY, UTC) == 0 and scaling.hour_of(MONDAY - 1, UTC) == 167


def test_a_profile_is_high_among_the_weeks_and_silence_of_the_gateway_is_no_quiet() -> None:
    quarter = MONDAY // 900
    weeks = [quarter - number * 672 for number in range(1, 6)]
    counted = {week + part: (90 * (1 + number), 15) for number, week in enumerate(weeks) for part in range(4)}
    assert Profile.of(counted, [3.6] * 168, UTC).rates[:2] == (0.5, 0.001)
    short = dict.fromkeys(weeks[:3], (90, 15))  # three quarters are no hour
    assert Profile.of(short, [3.6] * 168, UTC).rates[0] == 0.001
    halves = {weeks[0] + part: (90, 5) for part in range(4)}  # it ran for five minutes of each
    assert Profile.of(halves, [3.6] * 168, UTC).rates[0] == 0.3


REACTIONS = {
    "nothing": (CALM, 1, "least"),
    "what came": (Load(1.5, 0.0, 0), 3, "reaction"),  # 6 under way by Little's law, of 2.8 an engine
    "what is under way": (Load(0.0, 6.0, 0), 3, "reaction"),
    "what waits": (Load(0.5, 2.0, 30), 2, "reaction"),  # 2 answers more under way for a minute
    "more than there may be": (Load(50.0, 8.0, 32), 8, "most"),
}


@pytest.mark.parametrize("name", REACTIONS)
def test_it_reacts_to_what_came_what_runs_and_what_waits(name: str) -> None:
    load, engines, why = REACTIONS[name]
    said = Scaling(RULES, NOTHING).decide(0.0, MONDAY, load, ENGINES)
    assert (said.engines, said.why) == (engines, why)


def test_a_quiet_while_ends_an_engine_and_a_short_one_does_not() -> None:
    made = Scaling(RULES, NOTHING)
    found = [
        made.decide(now, MONDAY + now, Load(1.5, 6.0, 0) if now in (0, 500) else CALM, ENGINES).engines
        for now in range(0, 1300, 50)
    ]
    assert found == [3] * 23 + [1] * 3  # until 500 + 600


def test_what_is_seen_is_the_last_minutes() -> None:
    lately = Lately()
    for now in range(0, 61, 2):
        seen = lately.note(float(now), now * 3, 4, 0)
    assert seen == Load(3.0, 4.0, 0)
    for now in range(62, 200, 2):
        seen = lately.note(float(now), 180, 0, 1)
    assert seen == Load(0.0, 0.0, 1)
