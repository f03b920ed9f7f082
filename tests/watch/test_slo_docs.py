"""docs/slo.md says what is: its tables are the files' and the engine's, its commands run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nightshift import openslo, slo
from tests.documented import blocks_run


@pytest.fixture
def page(root: Path) -> str:
    return (root / "docs" / "slo.md").read_text()


def table(page: str, head: str) -> list[list[str]]:
    """The rows below the head of a table."""
    rows = page.partition(head)[2].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[: rows.index("")]]


def test_every_promise_is_in_the_table_with_its_target_and_category(page: str, root: Path) -> None:
    told = {row[0].strip("`"): (float(row[1]) / 1000, row[2]) for row in table(page, "| promise |")}
    promised = openslo.read(root / openslo.FOLDER)
    assert told == {name: (pytest.approx(one.target), one.category) for name, one in promised.items()}


def test_the_alert_table_is_the_engines(page: str) -> None:
    units = {"min": 1, "h": 60, "d": 1440}

    def minutes(text: str) -> int:
        number, unit = text.split()
        return int(number) * units[unit]

    told = [
        (row[0], float(row[1].removesuffix(" %")) / 100, minutes(row[2]), minutes(row[3]), float(row[4]))
        for row in table(page, "| severity |")
    ]
    window = 28 * 1440
    wanted = [(one.severity, one.share, one.long, one.short, round(one.factor(window), 4)) for one in slo.BURNS]
    assert told == [(*row[:1], pytest.approx(row[1]), *row[2:4], pytest.approx(row[4])) for row in wanted]


def test_the_levels_are_the_policys(page: str, root: Path) -> None:
    rows, levels = table(page, "| left of the worst budget |"), slo.Policy.read(root).levels
    bounds = [re.search(r"over (\d+) %", row[0]) for row in rows]
    assert [int(one[1]) / 100 if one else None for one in bounds] == [level.above for level in levels]
    assert [row[2] for row in rows] == [{1: "as they are", 2: "twice"}[level.samples] for level in levels]


def test_its_commands_run(page: str, tmp_path: Path) -> None:
    blocks_run(page, tmp_path)
