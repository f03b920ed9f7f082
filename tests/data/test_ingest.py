"""Files become sections with stable ids; bad files go to quarantine with a reason; sources are refused by name."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path

import polars as pl
import pytest

from nightshift import commit, documents
from nightshift.data import discover, ingest, markup, source
from nightshift.errors import SourceError
from nightshift.sections import Sources
from nightshift.sources import FolderSource, PackagesSource
from nightshift.stage import Work

NOTES = FolderSource(name="notes", kind="folder", path="notes", licence="CC0-1.0", groups=["staff"])
PARAMS = Sources(items=[NOTES], max_file_bytes=10_000)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "guide.md").write_text("# Guide\n\nHow to begin.\n\n## Install\n\nUse pip.\n\n## Install\n\nOr conda.\n")
    return folder


def night(tmp_path: Path, work: Work, params: Sources = PARAMS) -> Path:
    (tmp_path / "lock").write_text("")
    discover.run(tmp_path / "lock", tmp_path / "sources.json", params, work)
    ingest.run(tmp_path / "sources.json", tmp_path / "raw", params, work)
    return tmp_path / "raw"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe\x00bad", "not-text"),
        (b"zero\x00byte", "not-text"),
        (b"x" * 10_001, "too-large"),
        (b"   \n", "empty"),
    ],
)
def test_a_bad_file_goes_to_quarantine_and_the_rest_goes_on(
    content: bytes, reason: str, notes: Path, tmp_path: Path, work: Work
) -> None:
    (notes / "bad.txt").write_bytes(content)
    raw = night(tmp_path, work)
    bad = pl.read_parquet(raw / "quarantine.parquet")
    assert bad.select("path", "reason").rows() == [("bad.txt", reason)]
    assert len(documents.read(raw)) == 3


def test_sources_take_turns_at_a_limit(notes: Path, tmp_path: Path) -> None:
    for number in range(20):
        (notes / f"{number}.md").write_text(f"# {number}\n\nText.\n")
    few = tmp_path / "few"
    few.mkdir()
    for number in range(2):
        (few / f"{number}.md").write_text(f"# Few {number}\n\nText.\n")
    items = [NOTES, FolderSource(name="few", kind="folder", path="few", licence="CC0-1.0")]
    listed, _ = discover.found(Sources(items=items, max_file_bytes=10_000), tmp_path, "")
    taken = [(one.source, one.path) for one in discover.limited(listed, 6)]
    assert [path for name, path in taken if name == "few"] == ["0.md", "1.md"]
    assert len(taken) == 6
    assert set(taken) > {(one.source, one.path) for one in discover.limited(listed, 5)}


def test_a_folder_of_nothing_usable_is_refused(notes: Path, tmp_path: Path, work: Work) -> None:
    (notes / "guide.md").write_bytes(b"\xff\xfe")
    with pytest.raises(SourceError, match=r"no file of this source could be used: guide\.md is not-text"):
        night(tmp_path, work)


def test_a_file_that_changes_after_discovery_is_refused(notes: Path, tmp_path: Path, work: Work) -> None:
    (tmp_path / "lock").write_text("")
    discover.run(tmp_path / "lock", tmp_path / "sources.json", PARAMS, work)
    (notes / "guide.md").write_text("# Other")
    with pytest.raises(SourceError, match="changed since it was discovered"):
        ingest.run(tmp_path / "sources.json", tmp_path / "raw", PARAMS, work)


def test_documents_inside_git_are_refused_with_the_line_to_add(notes: Path, tmp_path: Path, work: Work) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(SourceError, match=r"add /notes/ to \.gitignore"):
        night(tmp_path, work)
    (tmp_path / ".gitignore").write_text("/notes/\n")
    assert len(documents.read(night(tmp_path, work))) == 3


@pytest.mark.parametrize(("path", "sentence"), [("none", "the folder is not there"), ("empty", "no files are there")])
def test_a_missing_or_empty_folder_is_refused(path: str, sentence: str, tmp_path: Path, work: Work) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=sentence):
        night(tmp_path, work, Sources(items=[NOTES.model_copy(update={"path": path})], max_file_bytes=10))


def test_another_version_than_the_locks_is_refused_with_the_command(tmp_path: Path) -> None:
    packages = PackagesSource(name="packages", kind="packages", packages=["click"])
    with pytest.raises(SourceError, match=r"pip install click==0\.0\.1"):
        list(source.items(packages, 0, tmp_path, "click==0.0.1"))


def test_sections_carry_where_they_come_from(notes: Path, tmp_path: Path, work: Work) -> None:
    rows = documents.read(night(tmp_path, work)).sort("title", "body").to_dicts()
    assert [r["title"] for r in rows] == [
        "guide.md > Guide",
        "guide.md > Guide > Install",
        "guide.md > Guide > Install",
    ]
    assert len({r["id"] for r in rows}) == 3
    assert {r["within"] for r in rows[1:]} == {"guide.md > Guide"}
    assert all(r["groups"] == ["staff"] and r["licence"] == "CC0-1.0" and r["parent"] == r["document"] for r in rows)


def test_ids_stay_when_the_text_changes_and_only_that_file_is_read_again(
    notes: Path, tmp_path: Path, work: Work
) -> None:
    (notes / "other.md").write_text("# Other\n\nText.\n")
    before = documents.read(night(tmp_path, work))
    (notes / "guide.md").write_text((notes / "guide.md").read_text().replace("Use pip", "Use uv"))
    work.count.computed = 0
    after = documents.read(night(tmp_path, work))
    assert before["id"].to_list() == after["id"].to_list()
    assert (before["content"] != after["content"]).sum() == 1
    assert work.count.computed == 1


def test_a_second_night_without_memo_makes_the_same_bytes(notes: Path, tmp_path: Path, work: Work) -> None:
    first = commit.digest(night(tmp_path, work))
    assert commit.digest(night(tmp_path, Work("test", None, tmp_path))) == first


def test_docstrings_of_an_installed_package_are_cut_at_their_headings(tmp_path: Path, work: Work) -> None:
    packages = PackagesSource(name="packages", kind="packages", packages=["click"])
    (tmp_path / "lock").write_text(f"click=={metadata.version('click')}")
    params = Sources(items=[packages], max_file_bytes=10_000_000)
    discover.run(tmp_path / "lock", tmp_path / "sources.json", params, work)
    entries = json.loads((tmp_path / "sources.json").read_text())["items"]
    assert all(e["path"].startswith(f"click=={metadata.version('click')}/") for e in entries)
    ingest.run(tmp_path / "sources.json", tmp_path / "raw", params, work)
    assert "click.core.Command" in documents.read(tmp_path / "raw")["title"].to_list()


NUMPY_STYLE = '''
def norm(x):
    """Return the norm of a vector, which is a number that says how long the vector is, always.

    Parameters
    ----------
    x : array
        The vector whose length is asked for, of any shape whatever.
    """
'''


def test_a_docstring_becomes_its_summary_and_its_parts() -> None:
    assert [p.title for p in markup.python(NUMPY_STYLE, "a/b.py")] == [("a.b.norm",), ("a.b.norm", "Parameters")]


def test_html_is_cut_at_headings_without_scripts() -> None:
    page = "<nav>menu</nav><h1>Top</h1><p>One</p><script>evil()</script><h2>Sub</h2><ul><li>Two</li></ul>"
    assert markup.html(page, "page") == [
        markup.Part(("page", "Top"), "One"),
        markup.Part(("page", "Top", "Sub"), "Two"),
    ]


def test_a_long_text_is_cut_at_paragraphs() -> None:
    found = markup.text("\n\n".join(["word " * 300] * 6), "long")
    assert len(found) > 1
    assert all(len(part.body) <= 2 * markup.LONGEST for part in found)


def test_files_that_no_reader_is_there_for_are_counted(notes: Path, tmp_path: Path, work: Work) -> None:
    for name in ("one.pdf", "two.PDF", "three"):
        (notes / name).write_bytes(b"%PDF")
    (tmp_path / "lock").write_text("")
    metrics = discover.run(tmp_path / "lock", tmp_path / "sources.json", PARAMS, work)
    assert metrics["not_read"] == {".pdf": 2, "none": 1}
