"""A promise that is written wrongly is refused with file and line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nightshift import openslo, params, slo
from nightshift.errors import ParamsError
from nightshift.sections import Night

REFUSED = {
    "unknown key": ("  service:", "  servise:", "spec.servise: no such key", 11),
    "another version": ("openslo/v1", "openslo/v2", "apiVersion: input should be 'openslo/v1'", 1),
    "another kind": ("kind: SLO", "kind: SLI", "kind: input should be 'SLO', not 'SLI'", 2),
    "a target that an outage hardly breaks": ("0.995", "0.4", "spec.objectives.0.target", 33),
    "a target without a budget": ("0.995", "1.0", "spec.objectives.0.target: input should be less than 1", 33),
    "a category that nobody budgets": ("health", "wealth", "metadata.labels.category", 6),
    "a calendar's window": ("isRolling: true", "isRolling: false", "spec.timeWindow.0.isRolling", 30),
    "a duration in words": ("28d", "28 days", "spec.timeWindow.0.duration", 29),
    "slices of time": ("Occurrences", "Timeslices", "spec.budgetingMethod", 31),
    "a service that is missing": ("service: nightshift\n", "", "spec.service: is missing", 7),
    "two sources": ("type: Prometheus", "type: nightshift", "good and total are of two sources", 16),
    "a query that does more than select": (
        'nightshift_good_total{sli="availability"}',
        "rate(nightshift_good_total[5m])",
        "is no metric with a label",
        21,
    ),
    "a name that openslo does not have": ("name: availability", "name: Avail_ability", "metadata.name", 4),
    "a name that nobody counts": ("name: availability", "name: regenerated", "nobody counts 'regenerated'", 0),
    "another's query": (
        'valid_total{sli="availability"}',
        'valid_total{sli="speed"}',
        "are not about availability",
        0,
    ),
    "a key that stands twice": ("kind: SLO", "kind: SLO\nkind: SLO", "'kind' stands twice", 3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_promise_is_refused_with_file_and_line(name: str, root: Path, tmp_path: Path) -> None:
    old, new, sentence, line = REFUSED[name]
    text = (root / openslo.FOLDER / "availability.yaml").read_text()
    assert old in text
    path = tmp_path / "availability.yaml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError) as refused:
        openslo.read(tmp_path)
    assert sentence in str(refused.value)
    assert (f"{path}:{line}: " if line else f"{path}: ") in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_one_promise_in_two_files_and_a_folder_without_any_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no objective drift is there"):
        openslo.read(tmp_path)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text((root / openslo.FOLDER / "speed.yaml").read_text())
    with pytest.raises(ParamsError, match=r"b\.yaml: speed is promised twice"):
        openslo.read(tmp_path)


def test_what_is_promised_is_read(root: Path) -> None:
    found = openslo.read(root / openslo.FOLDER)
    counted = [one.name for one in openslo.counted(found.values())]
    assert counted == [
        "availability", "correctness", "first_token_tail", "first_token", "grounded", "overhead", "privacy", "speed",
    ]  # fmt: skip
    assert {name for name in found if name not in counted} == {"drift", "freshness", "night_on_time"}
    availability = found["availability"]
    assert (availability.target, availability.window, availability.threshold) == (0.995, 28 * 1440, None)
    assert availability.budget == pytest.approx(0.005)
    assert found["overhead"].threshold == 0.025
    tail, first = found["first_token_tail"].threshold, found["first_token"].threshold
    assert (tail, first) != (None, None)
    assert tail == pytest.approx(3 * (first or 0))


def test_a_night_is_told_of_when_it_breaks_its_promise(root: Path) -> None:
    told = params.load(root / params.FILE, Night).deadline_hours
    assert told is not None
    assert openslo.read(root / openslo.FOLDER)["night_on_time"].threshold == told * 3600


def test_the_objectives_of_an_endpoint_are_those_of_prod(root: Path, tmp_path: Path) -> None:
    shutil.copyfile(root / params.FILE, tmp_path / params.FILE)
    shutil.copytree(root / openslo.POLICIES, tmp_path / openslo.POLICIES)
    said = {"target": None, "keys": "local", "approvals": 0}
    items = [said | {"name": "staging", "slo": "slo"}, said | {"name": "prod", "slo": "stricter"}]
    params.write(tmp_path / params.FILE, {"environments.items": items}, "test")
    shutil.copytree(root / openslo.FOLDER, tmp_path / openslo.POLICIES / "stricter")
    for file in (tmp_path / openslo.FOLDER).iterdir():
        file.unlink()
    assert openslo.promised(tmp_path) == openslo.read(root / openslo.FOLDER)
    assert slo.standing(tmp_path, tmp_path, 29_000_000).budgets
