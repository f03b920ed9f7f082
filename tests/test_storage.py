"""Folders and S3 prefixes are read by one set of verbs, whole or not at all (S3 by moto's server)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nightshift import documents, storage
from nightshift.data import discover, ingest
from nightshift.errors import SourceError, StorageError
from nightshift.sections import Sources
from nightshift.sources import S3Source
from nightshift.stage import Work


@pytest.mark.parametrize("location", ["s3://documents/empty", "s3://nowhere/at/all"])
def test_a_prefix_with_nothing_in_it_is_refused(bucket: Any, location: str) -> None:
    with pytest.raises(SourceError):
        storage.listing(location)


def test_a_missing_object_is_refused_and_a_missing_store_is_tried_again(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match="NoSuchKey"):
        storage.read("s3://documents/gone.md")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(storage, "TRIES", 1)
    storage._client.cache_clear()
    with pytest.raises(StorageError) as failed:
        storage.read("s3://documents/gone.md")
    assert failed.value.retry


def test_what_is_written_is_listed_and_read(bucket: Any) -> None:
    storage.write("s3://documents/a/b.md", b"# B\n")
    storage.write("s3://documents/a/c/d.md", b"# D\n")
    storage.write("s3://documents/ab.md", b"not below a/")
    assert storage.listing("s3://documents/a") == [storage.Stored("b.md", 4), storage.Stored("c/d.md", 4)]
    assert storage.read("s3://documents/a/c/d.md") == b"# D\n"


def test_a_body_that_is_cut_short_is_not_taken(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short:
        def get_object(self, **_: str) -> dict[str, Any]:
            return {"Body": type("Body", (), {"read": lambda _: b"half"})(), "ContentLength": 8}

    with monkeypatch.context() as patched, pytest.raises(StorageError, match="4 of 8 bytes"):
        patched.setattr(storage, "_client", Short)
        storage.read("s3://documents/a.md")


def test_an_s3_prefix_becomes_sections(bucket: Any, tmp_path: Path, work: Work) -> None:
    storage.write("s3://documents/guide/one.md", b"# One\n\nThe first page of the guide.\n")
    storage.write("s3://documents/guide/logo.png", b"\x89PNG")
    source = S3Source(name="guide", kind="s3", uri="s3://documents/guide", licence="CC-BY-4.0", groups=["staff"])
    params = Sources(items=[source], max_file_bytes=1000)
    (tmp_path / "lock").write_text("")
    discover.run(tmp_path / "lock", tmp_path / "sources.json", params, work)
    ingest.run(tmp_path / "sources.json", tmp_path / "raw", params, work)
    (row,) = documents.read(tmp_path / "raw").to_dicts()
    assert (row["title"], row["path"], row["licence"], row["groups"]) == (
        "one.md > One",
        "one.md",
        "CC-BY-4.0",
        ["staff"],
    )


def test_a_folder_is_listed_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.md").write_text("x")
    storage.write(str(tmp_path / "a.md"), b"a")
    assert storage.listing(str(tmp_path)) == [storage.Stored("a.md", 1)]
    with pytest.raises(SourceError, match="not there"):
        storage.read(str(tmp_path / "b.md"))


def test_a_link_out_of_a_folder_is_refused_and_one_inside_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.md").write_text("A")
    (folder / "b.md").symlink_to("a.md")
    assert [one.name for one in storage.listing(str(folder))] == ["a.md", "b.md"]
    (tmp_path / "secret.md").write_text("S")
    (folder / "c.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(SourceError, match=r"c\.md: it links to a file outside its source"):
        storage.listing(str(folder))
