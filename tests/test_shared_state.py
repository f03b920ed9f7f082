"""What workers without a common disk find of each other: memo, checkpoints and records of nights under an S3 prefix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nightshift import checkout, checkpoint, memo, night, storage
from nightshift.errors import StorageError, UsageError
from nightshift.memo import Count, Memo
from nightshift.place import Place
from nightshift.stage import Work

STATE = "s3://documents/state"


def worker(machine: Path, key: str = "one") -> Work:
    """A stage's surroundings on a machine of its own."""
    return Work("train", machine, key=key, shared=STATE)


def lengths(work: Work, words: list[str]) -> list[int]:
    return work.memo("length", 1).map(words, lambda todo: [len(words[place]) for place in todo])


def test_what_one_worker_computed_another_finds(bucket: Any, tmp_path: Path) -> None:
    first, second = worker(tmp_path / "a"), worker(tmp_path / "b")
    assert lengths(first, ["a", "bb", "a"]) == [1, 2, 1]
    assert lengths(second, ["bb", "ccc"]) == [2, 3]
    assert (second.count.computed, second.count.reused) == (1, 1)
    third = worker(tmp_path / "c")
    assert lengths(third, ["a", "bb", "ccc"]) == [1, 2, 3]
    assert (third.count.computed, third.count.reused) == (0, 3)
    assert not list(tmp_path.iterdir())


def test_many_files_of_a_memo_become_one_and_lose_nothing(bucket: Any, tmp_path: Path) -> None:
    for number in range(memo.MOST_FILES + 1):
        lengths(worker(tmp_path), ["x" * number])
    assert len(storage.held(f"{STATE}/memo")) == 1
    last = worker(tmp_path)
    assert lengths(last, ["x" * number for number in range(memo.MOST_FILES + 1)])[-1] == memo.MOST_FILES
    assert last.count.computed == 0


def test_a_torn_file_of_a_memo_is_forgotten_and_a_store_that_is_away_is_not(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths(worker(tmp_path), ["a"])
    (kept,) = storage.held(f"{STATE}/memo")
    storage.write(f"{STATE}/memo/{kept.name}", b"torn")
    again = worker(tmp_path)
    assert lengths(again, ["a"]) == [1]
    assert again.count.computed == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(storage, "TRIES", 1)
    storage._client.cache_clear()
    with pytest.raises(StorageError):
        Memo(f"{STATE}/memo", "length", 1, Count()).map(["a"], lambda todo: [1 for _ in todo])


def saved(work: Work, step: int) -> None:
    shelf = work.checkpoints()
    assert shelf is not None
    checkpoint.save(shelf.folder, step, {"w": torch.full((2,), float(step))}, {"losses": [1.0] * step})
    shelf.share()


def step_found(work: Work) -> int | None:
    shelf = work.checkpoints()
    assert shelf is not None
    found = checkpoint.newest(shelf.bring())
    return None if found is None else found.step


def test_a_training_goes_on_on_another_machine(bucket: Any, tmp_path: Path) -> None:
    first, second = worker(tmp_path / "a"), worker(tmp_path / "b")
    assert step_found(second) is None
    for step in (2, 4, 6):
        saved(first, step)
    assert step_found(second) == 6
    assert {one.name.partition("/")[0] for one in storage.held(f"{STATE}/checkpoints/one")} == {
        "step-00000004",
        "step-00000006",
    }
    assert step_found(worker(tmp_path / "c", key="other values")) is None
    shelf = second.checkpoints()
    assert shelf is not None
    shelf.clear()
    assert storage.held(f"{STATE}/checkpoints") == []
    assert step_found(worker(tmp_path / "d")) is None


def test_a_checkpoint_that_did_not_arrive_whole_is_none(bucket: Any, tmp_path: Path) -> None:
    """One without its manifest, which is written last, and one whose bytes are others: the one before them is taken."""
    first = worker(tmp_path / "a")
    for step in (2, 4):
        saved(first, step)
    place = f"{STATE}/checkpoints/one"
    storage.write(f"{place}/step-00000006/tensors.safetensors", b"half")
    storage.write(f"{place}/step-00000004/tensors.safetensors", b"other")
    assert step_found(worker(tmp_path / "b")) == 2
    assert [one.name for one in (tmp_path / "b" / "checkpoints" / "one").iterdir()] == ["step-00000002"]


def test_a_checkpoint_that_cannot_be_shared_ends_no_training(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(storage, "TRIES", 1)
    storage._client.cache_clear()
    saved(worker(tmp_path), 2)
    assert "this checkpoint stays on this machine" in caplog.text
    assert checkpoint.newest(tmp_path / "checkpoints" / "one")


def test_records_of_nights_are_read_from_a_prefix(bucket: Any, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STATE", f"{STATE}/")
    monkeypatch.setenv("NIGHTSHIFT_SCRATCH", "/nowhere/scratch")
    monkeypatch.chdir(root)
    place = Place.here()
    assert (place.nights, place.state) == (STATE, Path("/nowhere/scratch"))
    assert place.environ()["NIGHTSHIFT_STATE"] == STATE
    assert night.recorded(place.nights) == []
    for run in ("a", "b"):
        record = {"run": run, "stages": {}, "published": "c" * 40}
        storage.write(f"{STATE}/runs/{run}/night.json", json.dumps(record).encode())
    assert {one["run"] for one in night.recorded(place.nights)} == {"a", "b"}
    assert night.ended(place.nights, "a")


def test_a_prefix_without_a_bucket_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NIGHTSHIFT_STATE", "s3://")
    with pytest.raises(UsageError, match="names no bucket"):
        checkout.state(tmp_path)
