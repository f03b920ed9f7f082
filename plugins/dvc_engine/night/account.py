"""What a night took: its critical path, how long nothing ran, memory, processor time and money, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

COLUMNS = ("stage", "outcome", "began", "seconds", "cpu s", "memory MB", "money")


@dataclass(frozen=True)
class Account:
    """A night in numbers.

    Args:
        seconds: from the begin of its first stage to the end of its last.
        path: the stages that the night waited for: each began when the one before it, which it rests on, had ended.
        path_seconds: that these took.
        idle: share of the seconds in which no stage ran.
        cpu_seconds: of all commands; `memory_bytes`, the most that one took; `money`, of all; None without prices.
    """

    seconds: float
    path: Sequence[str]
    path_seconds: float
    idle: float
    cpu_seconds: float
    memory_bytes: int
    money: float | None

    def line(self) -> str:
        """What night.json and the log say first."""
        money = "" if self.money is None else f", {self.money:.4f} of money"
        return (
            f"{self.seconds:.1f} s, {self.idle:.0%} of it idle, {self.cpu_seconds:.1f} s of processors, "
            f"{self.memory_bytes / 1e6:.0f} MB at most{money}; it waited {self.path_seconds:.1f} s for "
            f"{' → '.join(self.path)}"
        )


def account(stages: Mapping[str, Mapping[str, Any]], above: Mapping[str, Sequence[str]]) -> Account | None:
    """The account of what night.json says of stages; None where none of them ran.

    Args:
        stages: name → began (seconds since the epoch), seconds, cpu_seconds, memory_bytes, money.
        above: name → the stages that it rests on.
    """
    ran = {name: one for name, one in stages.items() if one.get("began")}
    if not ran:
        return None
    ends = {name: one["began"] + one["seconds"] for name, one in ran.items()}
    first, last = min(one["began"] for one in ran.values()), max(ends.values())
    busy, until = 0.0, first
    for name in sorted(ran, key=lambda each: ran[each]["began"]):
        busy += max(0.0, ends[name] - max(until, ran[name]["began"]))
        until = max(until, ends[name])
    path = [max(ends, key=lambda each: ends[each])]
    while waited := [one for one in above.get(path[-1], ()) if one in ran]:
        path.append(max(waited, key=lambda each: ends[each]))
    money = [one["money"] for one in ran.values() if one.get("money") is not None]
    return Account(
        seconds=round(last - first, 3),
        path=path[::-1],
        path_seconds=round(sum(ran[name]["seconds"] for name in path), 3),
        idle=round(1 - busy / (last - first), 4) if last > first else 0.0,
        cpu_seconds=round(sum(one.get("cpu_seconds") or 0.0 for one in ran.values()), 3),
        memory_bytes=max(one.get("memory_bytes") or 0 for one in ran.values()),
        money=round(sum(money), 6) if money else None,
    )


def table(stages: Mapping[str, Mapping[str, Any]]) -> str:
    """A line a stage, as they began."""
    began = sorted((one for one in stages.items() if one[1].get("began")), key=lambda one: one[1]["began"])
    rows = [COLUMNS, *(_row(name, one, began[0][1]["began"]) for name, one in began)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    )


def _row(name: str, said: Mapping[str, Any], first: float) -> tuple[str, ...]:
    money = "" if said.get("money") is None else f"{said['money']:.4f}"
    cpu, memory = said.get("cpu_seconds") or 0.0, (said.get("memory_bytes") or 0) / 1e6
    began = f"{said['began'] - first:.1f}"
    return (name, str(said["outcome"]), began, f"{said['seconds']:.1f}", f"{cpu:.1f}", f"{memory:.0f}", money)
