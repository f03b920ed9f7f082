"""A document is said to be where it is, and nowhere where it is not."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from nightshift.data.find import holders
from nightshift.errors import SourceError
from nightshift.sections import Sources

NUMPY = f"numpy=={metadata.version('numpy')}"


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """A folder of two documents, beside packages."""
    folder = tmp_path / "sources" / "handbook"
    (folder / "deep").mkdir(parents=True)
    for name in ("x.md", "deep/y.md", "picture.png", ".hidden.md"):
        (folder / name).write_text("# X")
    items = [
        {"name": "handbook", "kind": "folder", "path": "sources/handbook/"},
        {"name": "packages", "kind": "packages", "packages": ["python", "numpy"]},
    ]
    return Sources.model_validate({"items": items, "max_file_bytes": 1000})


@pytest.mark.parametrize(
    ("path", "source", "inside"),
    [
        ("x.md", "handbook", "x.md"),
        ("sources/handbook/x.md", "handbook", "x.md"),
        ("deep/y.md", "handbook", "deep/y.md"),
        (f"{NUMPY}/numpy/linalg/_linalg.py", "packages", f"{NUMPY}/numpy/linalg/_linalg.py"),
        ("python==3.11/json/decoder.py", "packages", "python==3.11/json/decoder.py"),
    ],
)
def test_a_document_is_found_in_its_source(
    path: str, source: str, inside: str, sources: Sources, tmp_path: Path
) -> None:
    assert holders(path, sources, tmp_path, "") == [(source, inside)]


@pytest.mark.parametrize(
    "path",
    [
        "z.md",
        "picture.png",
        ".hidden.md",
        "deep",
        "../handbook/x.md",
        f"{NUMPY}/linalg/_linalg.py",
        "numpy==0.0.1/numpy/linalg/_linalg.py",
        "polars==1.0.0/polars/sql.py",
        "",
    ],
)
def test_a_document_that_no_source_holds_is_refused(path: str, sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no source of params\.yaml holds this document"):
        holders(path, sources, tmp_path, "")


def test_a_source_that_is_not_there_is_said(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the folder is not there"):
        holders("x.md", sources, tmp_path / "elsewhere", "")
