"""What a night took, from what night.json says of its stages."""

from __future__ import annotations

from typing import Any

from dvc_engine.night.account import account, table


def stage(began: float, seconds: float, **more: Any) -> dict[str, Any]:
    return {"outcome": "ran", "began": 1000.0 + began, "seconds": seconds, "cpu_seconds": seconds / 2, **more}


NIGHT = {
    "prep": stage(0, 10, memory_bytes=5_000_000, money=0.5),
    "slow": stage(12, 30, memory_bytes=9_000_000, money=None),
    "fast": stage(12, 5, memory_bytes=1, money=0.25),
    "join": stage(45, 5, memory_bytes=2, money=0.25),
    "never": {"outcome": "lost", "began": 0.0, "seconds": 0.0},
}
ABOVE = {"prep": [], "slow": ["prep"], "fast": ["prep"], "join": ["fast", "slow"], "never": ["join"]}


def test_the_path_is_what_the_night_waited_for() -> None:
    found = account(NIGHT, ABOVE)
    assert found is not None
    assert found.path == ["prep", "slow", "join"]
    assert (found.seconds, found.path_seconds, found.cpu_seconds) == (50.0, 45.0, 25.0)
    assert found.idle == 0.1  # two seconds after prep, three before join
    assert (found.memory_bytes, found.money) == (9_000_000, 1.0)
    assert found.line() == (
        "50.0 s, 10% of it idle, 25.0 s of processors, 9 MB at most, 1.0000 of money; "
        "it waited 45.0 s for prep → slow → join"
    )


def test_the_table_has_a_line_a_stage_as_they_began() -> None:
    lines = table(NIGHT).splitlines()
    assert [line.split()[0] for line in lines] == ["stage", "prep", "slow", "fast", "join"]
    assert lines[2].split() == ["slow", "ran", "12.0", "30.0", "15.0", "9"]
    assert len({len(line) for line in lines}) == 1


def test_a_night_in_which_nothing_ran_has_no_account() -> None:
    assert account({"never": NIGHT["never"]}, ABOVE) is None
    assert table({"never": NIGHT["never"]}).splitlines() == [table({}).splitlines()[0]]
