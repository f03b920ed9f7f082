"""params.yaml is refused at the key that is wrong, with its line, and read as YAML 1.2 else."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from nightshift import params, sections
from nightshift.errors import ParamsError

GOOD = """\
profile: small
sources:
  items:
    - name: notes
      kind: folder
      path: sources/notes
  max_file_bytes: 1000
compute:
  device: cpu
  threads: 2
  dtype: bfloat16
  workers: 1
profiles:
  small: {compute: {threads: 1}}
"""

REFUSED = {
    "unknown key": ("threads: 2", "threads: 2\n  thread: 2", "compute.thread: no such key", 11),
    "mistyped": ("threads: 2", "threads: two", "compute.threads: input should be a valid integer", 10),
    "out of range": ("threads: 2", "threads: 0", "greater than or equal to 1", 10),
    "duplicate key": ("threads: 2", "threads: 2\n  threads: 3", "'threads' stands twice", 11),
    "missing": ("  threads: 2\n", "", "compute.threads: is missing", 8),
    "yes is text": ("device: cpu", "device: yes", "not 'yes'", 9),
    "no object": (
        "  items:\n    - name: notes\n      kind: folder\n      path: sources/notes\n",
        "  items: [notes]\n",
        "sources.items.0: input should be an object: keys with values",
        3,
    ),
    "no section": (
        "compute:\n  device: cpu\n  threads: 2\n  dtype: bfloat16\n  workers: 1\n",
        "compute: 5\n",
        "compute: input should be an object: keys with values",
        8,
    ),
    "inside a list": (
        "path: sources/notes",
        "path: 7",
        "sources.items.0.path: input should be a valid string, not 7",
        6,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_value_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    old, new, sentence, line = REFUSED[name]
    path = tmp_path / "params.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ParamsError) as refused:
        params.load(path, sections.Compute)
        params.load(path, sections.Sources)
    assert sentence in str(refused.value)
    assert f"params.yaml:{line}" in str(refused.value)


def test_what_is_right_is_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    assert params.load(path, sections.Compute).threads == 2
    assert params.load(path, sections.Sources).items[0].name == "notes"


def test_a_profile_is_written_into_the_sections(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("# kept\n" + GOOD)
    params.apply(path, "small")
    assert params.load(path, sections.Compute).threads == 1
    assert path.read_text().startswith("# kept")


def test_a_profile_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    with pytest.raises(ParamsError, match="no profile 'huge'"):
        params.apply(path, "huge")
    assert path.read_text() == GOOD


def test_the_projects_own_file_is_accepted(root: Path) -> None:
    params.check(root / "params.yaml")
    assert params.load(root / "params.yaml", sections.Compute).threads >= 1


def test_the_file_holds_the_values_of_its_own_profile(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((root / "params.yaml").read_text())
    before = params.plain(params.parse(path))
    params.apply(path, before["profile"])
    assert params.plain(params.parse(path)) == before


def test_a_file_is_read_anew_when_it_has_changed_and_who_parses_it_may_change_what_that_gives(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    params.parse(path)["compute"]["threads"] = 9
    assert params.load(path, sections.Compute).threads == 2
    path.write_text(GOOD.replace("threads: 2", "threads: 3"))
    assert params.load(path, sections.Compute).threads == 3


def test_of_what_is_written_one_line_changes(tmp_path: Path) -> None:
    text = GOOD.replace("small: {comp", "small: &small {comp") + "  other: {<<: *small, dedup: {threshold: 0.5}}\n"
    path = tmp_path / "params.yaml"
    path.write_text(text)
    document = params.parse(path)
    document["compute"]["threads"] = 3
    out = io.StringIO()
    params._yaml().dump(document, out)
    assert out.getvalue() == text.replace("threads: 2", "threads: 3")


def test_profiles_come_and_go_without_a_trace(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text((root / "params.yaml").read_text())
    for name in ("tiny", "gpu", "laptop"):
        params.apply(path, name)
        params.check(path)
    assert path.read_text() == (root / "params.yaml").read_text()


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    twice = "    - {name: notes, kind: folder, path: other}\n  max_file_bytes"
    path.write_text(GOOD.replace("  max_file_bytes", twice))
    with pytest.raises(ParamsError, match=r"sources\.items: two sources are named 'notes'"):
        params.load(path, sections.Sources)


def test_a_section_is_no_value(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(GOOD)
    with pytest.raises(ParamsError, match="compute holds keys of its own; name one: device, threads"):
        params.overridden(path, None, {"compute": 3})
